"""Tensors that are knowledge, not state: they move with their module, and nothing else happens to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn


def tracing() -> bool:
    """Whether somebody else computes: shapes may be symbols, and no number may be looked at."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


class Held(nn.Module):
    """A module whose `held` attributes are tensors and no buffers.

    As buffers they would be averaged by an EMA, sent round by DDP, and lost by `to_empty()`; and a checkpoint
    has no use for them.
    """

    held: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[tuple[str, ...]] = ()
    """Those, and buffers, that keep their type: what is read through rounded ones is something else."""

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        before = {name: getattr(self, name) for name in (*self.held, *self.exact)}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            if value is None or value.is_meta:
                continue
            like = fn(value.new_empty(0))
            device = value.device if like.is_meta else like.device  # a module without memory keeps knowledge
            setattr(self, name, value.to(device, value.dtype if name in self.exact else like.dtype))
        return self

    def here(self, name: str, like: Tensor) -> Tensor:
        """A held tensor on the device of another one, where it then stays: FSDP moves only what it knows."""
        value: Tensor = getattr(self, name)
        if value.device != like.device:
            value = value.to(like.device)
            setattr(self, name, value)
        return value
