"""How fast the reader is: ours against one prompt at a time, in one process, with equal vectors.

    python benchmarks/speed/reader.py                        # small random model, on what is here
    python benchmarks/speed/reader.py --model 6b             # ChatGLM2-6B's size, random weights; needs a GPU

Weights are random, so nobody can say that the answers are good; they are as long and as expensive as those
of a trained model of that size. Prompts are our default user prompt over a made-up log whose histories
spread like real ones (log-normal). The two ways take turns on the same prompts, and the ratio is that of
their sums. Output is one JSON object on stdout, words go to stderr.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from models import LLAMAS, about, build, prompts, say

from msr_enhance.llm.estimate import ModelSize, roofline
from msr_enhance.llm.hardware import measure
from msr_enhance.llm.huggingface import HuggingFaceLLM

QUANTILES = {"least": 0.0, "tenth": 0.1, "median": 0.5, "nine_tenths": 0.9, "most": 1.0}
TOLERANCE = 1e-3  # largest difference of a vector's numbers, float32; half precision is not compared


@torch.inference_mode()
def plain_loop(model: Any, tokenizer: Any, texts: Sequence[str], new: int, keep: bool) -> list[Any]:
    """What one writes first: `generate` for one prompt after the other.

    With `keep` it asks for the hidden states, as the vectors need; without it yields no vector at all.
    """
    states = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            output_hidden_states=keep,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        states.append(out.hidden_states[-1][-1][0, -1].float().cpu().numpy() if keep else None)
    return states


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of both ways on fresh prompts; seconds, ratio, largest difference, share of the roofline."""
    device, dtype = options.device, getattr(torch, options.dtype)
    model, tokenizer = build(options.model, device, dtype, options.seed)
    llm = HuggingFaceLLM.of(
        model,
        tokenizer,
        name=options.model,
        max_new_tokens=options.new,
        state="last_step",
        tokens_per_batch=options.tokens_per_batch,
    )
    ways: dict[str, Callable[[list[str]], Any]] = {"ours": llm.answer}
    if not options.only_ours:
        ways["generate, states kept"] = lambda texts: plain_loop(model, tokenizer, texts, options.new, True)
        ways["generate, no vectors"] = lambda texts: plain_loop(model, tokenizer, texts, options.new, False)
    warm = prompts(tokenizer, 2, 60, options.seed)
    for way in ways.values():
        way(warm)
    seconds, worst, lengths = dict.fromkeys(ways, 0.0), 0.0, []
    for turn in range(options.rounds):
        texts = prompts(tokenizer, options.users, options.tokens, options.seed + turn)
        lengths += llm.count_tokens(texts)
        found = {}
        for name in sorted(ways, key=lambda name: (turn + list(ways).index(name)) % len(ways)):
            synchronize(device)
            start = time.perf_counter()
            found[name] = ways[name](texts)
            synchronize(device)
            seconds[name] += time.perf_counter() - start
            say(f"round {turn + 1}: {name}: {seconds[name]:.1f} s so far")
        if any(answer.status != "ok" for answer in found["ours"]):
            raise SystemExit(f"not every prompt was answered: {[a.reason for a in found['ours']]}")
        for answer, state in zip(found["ours"], found.get("generate, states kept", []), strict=False):
            worst = max(worst, float(np.abs(answer.vector - state).max()))
    if worst > TOLERANCE and options.dtype == "float32":
        raise SystemExit(f"the vectors differ by {worst:.2e}, more than {TOLERANCE}: nothing is compared")
    parameters = sum(weight.numel() for weight in model.parameters())
    users, read = options.users * options.rounds, sum(lengths)
    size, hardware = ModelSize.of(model.config, parameters), measure(device, options.dtype)
    floor = sum(
        roofline(
            size,
            hardware,
            prompt_tokens=max(lengths[row] for row in batch),
            new_tokens=options.new,
            batch=len(batch),
        ).floor
        for batch in planned(lengths, options, llm)
    )
    return {
        "parameters": parameters,
        "prompts": users,
        "prompt_tokens": {name: int(np.quantile(lengths, q)) for name, q in QUANTILES.items()},
        "new_tokens": options.new,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "seconds_per_user": round(seconds["ours"] / users, 4),
        "tokens_per_second": round((read + users * options.new) / seconds["ours"]),
        "times_faster": {n: round(s / seconds["ours"], 2) for n, s in seconds.items() if n != "ours"},
        "largest_difference": worst if not options.only_ours else None,
        "share_of_roofline": round(floor / seconds["ours"], 3),
    }


def planned(lengths: list[int], options: argparse.Namespace, llm: HuggingFaceLLM) -> list[list[int]]:
    """The batches that were run, as rows of `lengths`."""
    rows = []
    for turn in range(options.rounds):
        part = range(turn * options.users, (turn + 1) * options.users)
        rows += [[part[row] for row in batch] for batch in llm.planned([lengths[row] for row in part])]
    return rows


def synchronize(device: str) -> None:
    """Wait for a GPU; a clock would else stop before the work does."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Run what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", choices=[*LLAMAS, "6b"], default="tiny")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    words.add_argument("--users", type=int, default=64, help="prompts a round")
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("--tokens", type=int, default=500, help="median prompt")
    words.add_argument("--new", type=int, default=300, help="tokens of each answer")
    words.add_argument("--tokens-per-batch", type=int)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--only-ours", action="store_true", help="leave the slow loops out")
    options = words.parse_args()
    if options.model == "6b" and not options.device.startswith("cuda"):
        raise SystemExit("--model 6b needs a GPU (12.5 GB in float16); write --model medium for a CPU.")
    options.dtype = options.dtype or ("float16" if options.device.startswith("cuda") else "float32")
    print(json.dumps({**about(options), **speed(options)}, indent=1))


if __name__ == "__main__":
    main()
