"""What keeping one state a row costs, against `output_hidden_states=True`: memory of fresh processes.

    python benchmarks/speed/capture_memory.py

Output is one JSON object on stdout, words go to stderr.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import resource
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from models import LLAMAS, about, build, say

from msr_enhance.llm.capture import Depth, last_position

ROWS, PROMPT = 16, 512


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Three fresh processes answer the same batch and keep the states in three ways."""
    spawn = multiprocessing.get_context("spawn")
    found = {}
    for way in ("no states", "our capture", "output_hidden_states=True"):
        with spawn.Pool(1) as pool:
            found[way] = pool.apply(answered, (way, options))
        say(f"{way}: {found[way]}")
    hidden, layers = LLAMAS[options.model][:2]
    tokens = PROMPT + options.new
    return {
        "batch": ROWS,
        "prompt_tokens": PROMPT,
        "new_tokens": options.new,
        "megabytes": found,
        "by_arithmetic_megabytes": {
            "our capture: batch x dim": ROWS * hidden * 4 / 1e6,
            "output_hidden_states: batch x tokens x (layers + 1) x dim": round(
                ROWS * tokens * (layers + 1) * hidden * 4 / 1e6, 1
            ),
        },
    }


def answered(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Answer a batch; what the process holds more than before while the result lives, and its peak."""
    model, _ = build(options.model, "cpu", torch.float32, options.seed)
    ids = torch.randint(2, 4000, (ROWS, PROMPT))
    run: dict[str, Any] = {"max_new_tokens": options.new, "do_sample": False, "pad_token_id": 0}
    run |= {"eos_token_id": None, "return_dict_in_generate": True, "use_cache": True}
    with torch.inference_mode():
        model(ids[:, :8])
        before = resident()
        with last_position(model, Depth()) if way == "our capture" else nullcontext() as states:
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **run) if states else None
            kept: Any = states() if states else None
        if states is None:
            keep = way != "no states"
            out = model.generate(ids, attention_mask=torch.ones_like(ids), output_hidden_states=keep, **run)
            kept = out.hidden_states
        del out
        held = resident() - before
        del kept
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"held": round(held / 1e6, 1), "peak": round(peak / 1e6, 1)}


def resident() -> int:
    """Bytes of memory this process holds, after it gave back what it can."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Run what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", choices=list(LLAMAS), default="small")
    words.add_argument("--new", type=int, default=32, help="tokens of each answer")
    words.add_argument("--seed", type=int, default=0)
    words.set_defaults(device="cpu")
    options = words.parse_args()
    print(json.dumps({**about(options), **memory(options)}, indent=1))


if __name__ == "__main__":
    main()
