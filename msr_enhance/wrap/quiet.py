"""A trial call that leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from msr_enhance.wrap.arguments import Call

_COPIED = 2**20  # numbers of a buffer that is copied; a larger one is a table, which no call changes


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Eval mode for the time of the block; modes, buffers and random numbers are put back after it."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [
        (part, name, held, held.clone() if held.numel() <= _COPIED else None)
        for part in module.modules()
        for name, held in part._buffers.items()
        if held is not None and not is_lazy(held)
    ]
    devices = {weight.device.index for weight in module.parameters() if weight.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            module.eval()
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        for part, name, held, before in buffers:
            part._buffers[name] = _as_before(held, before)


@torch.no_grad()
def _as_before(held: Tensor, before: Tensor | None) -> Tensor:
    if before is not None and not torch.equal(held, before):
        held.copy_(before)
    return held


@torch.no_grad()
def run_quietly(module: nn.Module, call: Call) -> Any:
    """One call in eval mode, without gradients."""
    with undisturbed(module):
        return module(*call[0], **call[1])
