"""Rows scaled to size 1 (root mean square), with a backward pass of three passes over the rows, not nine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from msr_enhance.meta.held import tracing

_EPS = 1e-6


def scaled_rows(x: Tensor) -> Tensor:
    """Rows `[batch, width]` divided by `sqrt(mean(x**2) + 1e-6)`, as `torch.nn.functional.rms_norm`.

    torch has a kernel of its own for GPUs; on a CPU its gradient is made of many small steps, which cost
    a tenth of a backbone.

    Args:
        x: `[batch, width]`.
    """
    plain = x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64)
    if plain or tracing():
        return functional.rms_norm(x, x.shape[1:], eps=_EPS)
    if not (x.requires_grad and torch.is_grad_enabled()):
        return x * _factor(x)
    scaled: Tensor = _Scaled.apply(x)  # type: ignore[no-untyped-call]
    return scaled


def _factor(x: Tensor) -> Tensor:
    """What each row is multiplied with, `[batch, 1]`."""
    size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    factor: Tensor = size.square_().div_(x.shape[1]).add_(_EPS).rsqrt_()
    return factor


class _Scaled(torch.autograd.Function):
    """`scaled_rows`: with y the result and f the factor, `dx = f (dy - y mean(dy y))`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        factor = _factor(x)
        scaled = x * factor
        ctx.save_for_backward(scaled, factor)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        scaled, factor = ctx.saved_tensors
        dy = gradients[0]
        shared = (dy * scaled).mean(1, keepdim=True).mul_(factor)
        dx: Tensor = (dy * factor).addcmul_(scaled, shared, value=-1)
        return dx
