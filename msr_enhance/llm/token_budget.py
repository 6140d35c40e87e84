"""Which prompts are answered together: as many tokens as the memory holds, of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_CPU_TOKENS = 32_768


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
    if model.device.type != "cuda":
        return _CPU_TOKENS
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    total = torch.cuda.get_device_properties(model.device).total_memory
    # Part of the memory is left to the activations of the prefill.
    return max(
        1, int((0.85 * total - weights) * 0.6) // kv_bytes_per_token(model.config, model.dtype.itemsize)
    )


def kv_bytes_per_token(config: Any, itemsize: int) -> int:
    """Bytes of keys and values of one token over all layers."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept = getattr(text, "num_key_value_heads", None) or heads
    return int(2 * text.num_hidden_layers * kept * dim * itemsize)


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
