"""Train the built-in decoder from nothing, on this machine's CPU.

    python -m benchmarks.builtin_llm.train --out runs/builtin --steps 6000

Loss: the answer's tokens; with less weight the category words of the prompt (they can only be copied), what
each comma could already know (counts, scenarios, the commonest shared category), and the frequencies of the
categories from the last state of the answer, which is the vector a store keeps. The heads of the latter
three are thrown away. Same seed, steps, machine and threads give the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.builtin_llm import circuits, tokenizer
from benchmarks.builtin_llm.lessons import SLOTS, Batch, batches, copying
from benchmarks.builtin_llm.worlds import Worlds

SEED, SIZE, WINDOW = 20240618, 4096, 1024
COPY_STEPS, COPY_SHARE = 250, 0.03
MUON, ADAM = 0.004, 6e-4
COUNTS_AFTER = 3


class Heads(nn.Module):
    """What is read from the states in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.counts = nn.ModuleList(nn.Linear(width, size) for size in (8, 8, 4))
        self.pick = nn.Linear(width, width, bias=False)
        self.bags = nn.Parameter(torch.eye(width).repeat(SLOTS + 1, 1, 1))
        nn.init.eye_(self.pick.weight)


def losses(model: Any, heads: Heads, batch: Batch) -> dict[str, Tensor]:
    """Each part of the loss."""
    between: list[Tensor] = []
    hook = model.model.layers[COUNTS_AFTER - 1].register_forward_hook(lambda _m, _i, out: between.append(out))
    try:
        states = model.model(input_ids=batch.tokens, use_cache=False).last_hidden_state.flatten(0, 1)
    finally:
        hook.remove()
    table = model.model.embed_tokens.weight

    def scores(at: Tensor, change: Any = None) -> Tensor:
        picked = states[at]
        return (picked if change is None else change(picked)) @ table.T

    each = F.cross_entropy(scores(batch.answer[0]), batch.answer[1], reduction="none")
    found = {"answer": (each * batch.answer[2]).sum() / batch.answer[2].sum()}
    if batch.words.shape[1]:
        found["words"] = F.cross_entropy(scores(batch.words[0]), batch.words[1])
    if len(batch.marks):
        middle = between[0].flatten(0, 1)[batch.marks[:, 0]]
        parts = [F.cross_entropy(head(middle), batch.marks[:, 1 + n]) for n, head in enumerate(heads.counts)]
        found["counts"] = torch.stack(parts).mean()
        found["pick"] = F.cross_entropy(scores(batch.marks[:, 0], heads.pick), batch.marks[:, 4])
    if len(batch.bag_at):
        kept = torch.cat([(batch.bag_at[:, 1] == slot).nonzero().squeeze(1) for slot in range(SLOTS + 1)])
        changed = torch.cat(
            [
                states[batch.bag_at[batch.bag_at[:, 1] == slot, 0]] @ heads.bags[slot]
                for slot in range(SLOTS + 1)
            ]
        )
        wanted = batch.bags[kept]
        cross = -(wanted * F.log_softmax(changed @ table.T, dim=-1)).sum(-1)
        entropy = -torch.special.xlogy(wanted, wanted).sum(-1)  # so that 0 is perfect
        found["bag"] = (cross + -entropy).mean()
    return found


def attention(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Causal attention in float32: torch's backward in bfloat16 is twice as slow on a CPU."""
    with torch.autocast("cpu", enabled=False):
        out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    return out.transpose(1, 2), None


WEIGHTS = {"answer": 1.0, "words": 0.4, "counts": 0.3, "pick": 0.4, "bag": 0.2}
FLAT, WORDS_LEFT = 0.2, 0.1
"""Share of the steps at the full learning rate; and of the weight of words that is left at the end."""


def train(out: Path, *, steps: int, seed: int = SEED, every: int = 100, save_every: int = 1000) -> None:
    """Train and write checkpoints."""
    from tokenizers import Tokenizer
    from transformers import AttentionInterface, LlamaForCausalLM

    torch.manual_seed(seed)
    words = tokenizer.train()
    out.mkdir(parents=True, exist_ok=True)
    words.save(str(out / "tokenizer.json"))
    words = Tokenizer.from_file(str(out / "tokenizer.json"))
    end, pad, size = words.token_to_id("<eos>"), words.token_to_id("<pad>"), words.get_vocab_size()
    AttentionInterface.register("causal_float32", attention)
    model: Any = LlamaForCausalLM(circuits.config(size, pad, end, WINDOW))
    draw = torch.Generator().manual_seed(seed)
    circuits.fill(model, draw)
    model.set_attn_implementation("causal_float32")
    heads = Heads(circuits.WIDTH)
    matrices = [p for n, p in model.model.layers.named_parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in [*model.parameters(), *heads.parameters()] if id(p) not in taken]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = [MUON, ADAM]
    worlds = Worlds(seed, tokenizer.pieces(words), level=0.0)
    supply = batches(worlds, words, end, size=SIZE, window=WINDOW)
    started, sums, seen = time.perf_counter(), {}, 0
    log = (out / "log.jsonl").open("w", encoding="utf-8")
    for step in range(steps):
        done = step / steps
        worlds.level = min(1.0, max(0.0, step - COPY_STEPS) / (0.3 * steps))
        fall = max(0.0, done - FLAT) / (1 - FLAT)
        rate = min(1.0, (step + 1) / 50) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * fall))
        weights = WEIGHTS | {"words": WEIGHTS["words"] * (1 - (1 - WORDS_LEFT) * done)}
        copy = step < COPY_STEPS or torch.rand((), generator=draw) < COPY_SHARE
        batch = copying(draw, size, SIZE) if copy else next(supply)
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(model, heads, batch)
            loss = sum(weights[name] * value for name, value in parts.items())
        loss.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            optimizer.step()
            optimizer.zero_grad()
        seen += batch.tokens.numel()
        for name, value in parts.items():
            key = "copy" if copy else name
            total, count = sums.get(key, (0.0, 0))
            sums[key] = (total + float(value.detach()), count + 1)
        if (step + 1) % every == 0:
            spent = time.perf_counter() - started
            row = {
                "step": step + 1,
                "seconds": round(spent),
                "tokens": seen,
                "level": round(worlds.level, 2),
                "rate": round(rate, 3),
            }
            row |= {name: round(total / count, 4) for name, (total, count) in sums.items()}
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            sums = {}
        if (step + 1) % save_every == 0 or step + 1 == steps:
            model.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6_000)
    given = parser.parse_args()
    train(given.out, steps=given.steps)
