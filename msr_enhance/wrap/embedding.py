"""The embedding at a tap: one tensor or a container of them, flattened to `[batch, width]` and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.path import NOT_PACKED, members_of, rebuilt


def leaves_of(value: Any) -> list[Tensor]:
    """The floating tensors `[batch, width]` or `[batch, fields, dim]` in a value, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() and value.dim() in (2, 3) else []
    return [leaf for member in members_of(value).values() for leaf in leaves_of(member)]


def flattened(value: Any, tap: object) -> Tensor:
    """All of a value's embeddings side by side, `[batch, width]`.

    Args:
        value: What is at the tap.
        tap: For the error.

    Raises:
        EnhanceError: There is none, or they are not of one batch.
    """
    if _packed(value):
        raise EnhanceError(f"Tap {str(tap)!r} gives a PackedSequence: {NOT_PACKED}")
    leaves = leaves_of(value)
    if not leaves or any(leaf.shape[0] != leaves[0].shape[0] for leaf in leaves):
        raise EnhanceError(
            f"Tap {str(tap)!r} gives {described(value)}; allowed: a floating tensor [batch, width] or "
            "[batch, fields, dim], or a dict or tuple of those for one batch. Name one member, for example "
            "tap='NAME[0]', or another module."
        )
    flat = [leaf.flatten(1) for leaf in leaves]
    return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)


def _packed(value: Any) -> bool:
    """Whether a packed sequence is somewhere in a value."""
    if isinstance(value, (Tensor, PackedSequence)):
        return isinstance(value, PackedSequence)
    return any(_packed(member) for member in members_of(value).values())


def restored(value: Any, flat: Tensor) -> Any:
    """The value with its embeddings taken from `flat`, each in its own shape and type."""
    start = 0

    def take(leaf: Tensor) -> Tensor:
        nonlocal start
        width = leaf.shape[1:].numel()
        # Not split(): its results must not be changed in place, and a backbone may do that.
        part = flat.narrow(1, start, width).reshape(leaf.shape).to(leaf.dtype)
        start += width
        return part

    return mapped(value, take)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a value with each of its embeddings changed."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() and value.dim() in (2, 3) else value
    members = members_of(value)
    return rebuilt(value, [mapped(member, change) for member in members.values()]) if members else value


def described(value: Any) -> str:
    """A value in a few words: shapes of tensors, names of members."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    members = members_of(value)
    if not members:
        return type(value).__name__
    some = ", ".join(f"{name}: {described(member)}" for name, member in list(members.items())[:8])
    return f"{type(value).__name__}({some}{', ...' if len(members) > 8 else ''})"
