"""Mixing: every row weighs the same few basis matrices, and no weights are made for a row or a key.

`y_n = sum_k c_nk (x_n A_k + b_k)`, so that x meets the basis matrices in one product and only the
results are weighed (design notes, section 4). Rows go through in chunks that stay in cache; autograd
keeps the three factors and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from msr_enhance.meta.held import tracing

# Numbers of the widest intermediate of a chunk. On a CPU they should stay in the second-level cache
# (rates are flat from 2^17 to 2^19); elsewhere a chunk is a launch, so only memory limits it.
_CPU_NUMBERS = 2**18
_OTHER_NUMBERS = 2**26


def mix(x: Tensor, coefficients: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Result `[batch, outputs]` of each row's own mix of layers.

    Args:
        x: `[batch, inputs]`.
        coefficients: `[batch, basis]`, how much of each basis layer a row takes.
        weight: `[basis, inputs, outputs]`.
        bias: `[basis, outputs]`.
    """
    if tracing():
        return _plain(x, coefficients, weight, bias)
    mixed: Tensor = _Mix.apply(x, coefficients, weight, bias)  # type: ignore[no-untyped-call]
    return mixed


def sums_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which products of chunks are summed: half-precision ones lose too much."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _plain(x: Tensor, coefficients: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same in formulas that a compiler and an exporter can follow."""
    basis, inputs, outputs = weight.shape
    if inputs <= outputs:
        spread = (coefficients[:, :, None] * x[:, None, :]).flatten(1)
        return spread @ weight.reshape(basis * inputs, outputs) + coefficients @ bias
    each = (x @ _beside(weight)).view(x.shape[0], basis, outputs)
    mixed: Tensor = (coefficients[:, :, None] * each).sum(1) + coefficients @ bias
    return mixed


def _beside(weight: Tensor) -> Tensor:
    """The basis matrices next to each other, `[inputs, basis * outputs]`."""
    basis, inputs, outputs = weight.shape
    return weight.transpose(0, 1).reshape(inputs, basis * outputs)


def _chunks(rows: int, numbers: int, device: torch.device) -> Iterator[slice]:
    """Slices of the rows, each with at most the allowed numbers where a row has `numbers`."""
    most = _CPU_NUMBERS if device.type == "cpu" else _OTHER_NUMBERS
    size = max(64, most // max(1, numbers))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


class _Mix(torch.autograd.Function):
    """`mix` with its own backward pass, which computes only the gradients that somebody wants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, coefficients, weight, bias)
        basis, inputs, outputs = weight.shape
        result = coefficients @ bias
        # The narrower side is the one that is held once for every basis matrix.
        matrix = weight.reshape(basis * inputs, outputs) if inputs <= outputs else _beside(weight)
        for rows in _chunks(len(x), basis * min(inputs, outputs), x.device):
            if inputs <= outputs:
                result[rows].addmm_(_spread(coefficients[rows], x[rows]), matrix)
            else:
                each = (x[rows] @ matrix).view(-1, basis, outputs)
                result[rows] += _weigh(coefficients[rows], each)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, coefficients, weight, bias = ctx.saved_tensors
        for_x, for_coefficients, for_weight, for_bias = ctx.needs_input_grad
        with torch.autocast(x.device.type, enabled=False):
            dy = gradients[0].contiguous()
            narrow_in = weight.shape[1] <= weight.shape[2]
            each = _by_inputs if narrow_in else _by_outputs
            dx, dc, dw = each(x, coefficients, weight, dy, (for_x, for_coefficients, for_weight))
            if dc is not None:
                dc.addmm_(dy, bias.t())
            db = coefficients.t() @ dy if for_bias else None
        return dx, dc, dw, db


Wanted = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _by_inputs(x: Tensor, c: Tensor, weight: Tensor, dy: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of x, coefficients and weight where the inputs are the narrower side."""
    basis, inputs, outputs = weight.shape
    for_x, for_c, for_weight = wanted
    matrix = weight.reshape(basis * inputs, outputs)
    dx = torch.empty_like(x) if for_x else None
    dc = torch.empty_like(c) if for_c else None
    dw = torch.zeros_like(matrix, dtype=sums_dtype(x.dtype)) if for_weight else None
    for rows in _chunks(len(x), basis * inputs, x.device):
        if dw is not None:
            add_product(dw, _spread(c[rows], x[rows]).t(), dy[rows])
        if dx is not None or dc is not None:
            back = (dy[rows] @ matrix.t()).view(-1, basis, inputs)  # serves both
            if dc is not None:
                dc[rows] = _meet(back, x[rows])
            if dx is not None:
                dx[rows] = _weigh(c[rows], back)
    return dx, dc, None if dw is None else dw.view_as(weight).to(weight.dtype)


def _by_outputs(x: Tensor, c: Tensor, weight: Tensor, dy: Tensor, wanted: Wanted) -> Gradients:
    """Gradients of x, coefficients and weight where the outputs are the narrower side."""
    basis, inputs, outputs = weight.shape
    for_x, for_c, for_weight = wanted
    matrix = _beside(weight)
    dx = torch.empty_like(x) if for_x else None
    dc = torch.empty_like(c) if for_c else None
    dw = torch.zeros_like(matrix, dtype=sums_dtype(x.dtype)) if for_weight else None
    for rows in _chunks(len(x), basis * outputs, x.device):
        if dc is not None:
            each = (x[rows] @ matrix).view(-1, basis, outputs)  # cheaper to make again than to keep
            dc[rows] = _meet(each, dy[rows])
        if dx is not None or dw is not None:
            spread = _spread(c[rows], dy[rows])
            if dw is not None:
                add_product(dw, x[rows].t(), spread)
            if dx is not None:
                torch.mm(spread, matrix.t(), out=dx[rows])
    if dw is None:
        return dx, dc, None
    return dx, dc, dw.view(inputs, basis, outputs).transpose(0, 1).to(weight.dtype).contiguous()


def _spread(coefficients: Tensor, x: Tensor) -> Tensor:
    """Every row once for each of its coefficients, times it: `[rows, basis * width]`."""
    return (coefficients[:, :, None] * x[:, None, :]).flatten(1)


def _weigh(coefficients: Tensor, each: Tensor) -> Tensor:
    """Weighed sum over the basis, `[rows, width]`, of `[rows, basis, width]`."""
    if each.shape[2] < 32 and _in_two_passes(each):
        return (each * coefficients[:, :, None]).sum(1)  # a product this thin costs more
    return torch.bmm(coefficients[:, None, :], each).squeeze(1)


def _meet(each: Tensor, other: Tensor) -> Tensor:
    """Inner products `[rows, basis]` of `[rows, basis, width]` with `[rows, width]`."""
    if _in_two_passes(each):
        return (each * other[:, None, :]).sum(2)
    return torch.bmm(each, other[:, :, None]).squeeze(2)


def _in_two_passes(each: Tensor) -> bool:
    """Whether a pass of multiplying and one of adding may replace a product of one row."""
    return each.device.type == "cpu" and each.dtype.itemsize >= 4


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to a total that may have a wider type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
