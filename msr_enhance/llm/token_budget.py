"""Which prompts are answered together: as many tokens as the memory holds, of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from msr_enhance.llm.estimate import ModelSize, tokens_at_once
from msr_enhance.machine import memory_of


class OutOfMemoryError(Exception):
    """A batch did not fit; never seen outside of the reader."""


def planned(lengths: Sequence[int], new: int, budget: int) -> list[list[int]]:
    """Rows that are answered together.

    Args:
        lengths: Tokens of each prompt.
        new: Tokens of the longest answer.
        budget: Most tokens of a batch, padding and answers included; a single row may pass it.

    Returns:
        Positions, shortest prompts first; each position once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if not batches or (len(batches[-1]) + 1) * (lengths[row] + new) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def tokens_that_fit(model: Any) -> int:
    """Tokens of prompt and answer for which the device's memory holds keys and values.

    From the size of the device, not from what is free at the moment: a resumed run then plans the
    same batches.
    """
    size = ModelSize.of(model.config, sum(weight.numel() for weight in model.parameters()))
    memory, device = memory_of(str(model.device)), str(model.device)
    return tokens_at_once(size, str(model.dtype).removeprefix("torch."), device, memory and memory[0])


@contextmanager
def out_of_memory_named() -> Iterator[None]:
    """Raise `OutOfMemoryError` for every way torch says that memory ran out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as full:
        raise OutOfMemoryError(str(full)) from full
    except RuntimeError as full:
        if "can't allocate memory" not in str(full) and "out of memory" not in str(full):
            raise
        raise OutOfMemoryError(str(full)) from full
