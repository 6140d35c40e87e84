"""Making: the weights of every distinct key are made once and applied to that key's rows together.

`W_u = sum_k c_uk A_k`, then `y_n = x_n W_u + b_u` for the rows of u (design notes, section 4). Weights are
made for a chunk of keys at a time and thrown away; groups of one size share one product, without padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from msr_enhance.meta.groups import Groups, Run
from msr_enhance.meta.mix import add_product, sums_dtype

# Keeping made weights for the backward pass costs a way to memory and back, making them again one
# product for each basis matrix: keep up to this many numbers a basis matrix, and in all.
_KEPT_NUMBERS_EACH = 2**17
_KEPT_NUMBERS = 2**23
# Numbers of the weights of a chunk: on a CPU they should stay in cache between making and using, but where
# the basis matrices are larger than that, reading them once a chunk must be shared by more keys.
_CPU_NUMBERS = 2**18
_CPU_NUMBERS_LARGE = 2**21
_OTHER_NUMBERS = 2**26


def crossover(rho: float, rank: int) -> bool:
    """Whether making weights trains faster than mixing outputs, on one CPU thread.

    Mixing costs about `r` products a row, making about `r` products a key and a few small ones a row. The
    two met, within a tenth, at 8.0, 4.7, 2.6, 1.8 and 1.5 rows a key for r = 4, 8, 16, 32 and 64, whatever
    the widths (16 to 64 hidden) and whether or not z is trained.

    Args:
        rho: Rows a distinct key, on average.
        rank: Numbers of a condition.
    """
    return rank > 0 and rho >= 1 + 28 / rank


def gen(x: Tensor, coefficients: Tensor, weight: Tensor, bias: Tensor, groups: Groups) -> Tensor:
    """Result `[batch, outputs]`, in the order of x, of each key's own layer.

    Args:
        x: `[batch, inputs]`, rows group by group, from `groups.sort`.
        coefficients: `[distinct, basis]`, how much of each basis layer a key takes.
        weight: `[basis, inputs, outputs]`.
        bias: `[basis, outputs]`.
        groups: The keys of the rows.

    Raises:
        ValueError: x or the coefficients have another length than the groups say.
    """
    if len(x) != groups.rows or len(coefficients) != len(groups):
        raise ValueError(
            f"x has {len(x)} rows and z has {len(coefficients)}; allowed: the {groups.rows} rows of the "
            f"batch, as groups.sort gives them, and one row of z for each of its {len(groups)} distinct keys."
        )
    made: Tensor = _Gen.apply(x, coefficients, weight, bias, groups)  # type: ignore[no-untyped-call]
    return made


class _Gen(torch.autograd.Function):
    """`gen` with its own backward pass, which computes only the gradients that somebody wants."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, coefficients: Tensor, weight: Tensor, bias: Tensor, groups: Groups
    ) -> Tensor:
        basis, inputs, outputs = weight.shape
        flat, ordered = weight.reshape(basis, -1), _ordered(coefficients, groups)
        biases = ordered @ bias
        result = x.new_empty(len(x), outputs)
        most = min(_KEPT_NUMBERS, _KEPT_NUMBERS_EACH * basis)
        keep = ctx.needs_input_grad[0] and len(groups) * inputs * outputs <= most
        kept = x.new_empty(len(groups) if keep else 0, inputs, outputs)
        for first, last, runs in groups.chunks(_keys_a_chunk(weight)):
            if keep:
                made = kept[first:last]
                torch.mm(ordered[first:last], flat, out=made.view(-1, inputs * outputs))
            else:
                made = (ordered[first:last] @ flat).view(-1, inputs, outputs)
            factors = (biases[first:last, None], made)
            for own_bias, own, rows, out in zip(
                *(_each_run(each, runs) for each in factors),
                _blocks(x, runs),
                _blocks(result, runs),
                strict=True,
            ):
                torch.baddbmm(own_bias, rows, own, out=out)
        ctx.groups = groups
        ctx.save_for_backward(x, coefficients, weight, bias, kept)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, coefficients, weight, bias, kept = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            return *_gradients(
                ctx.groups, ctx.needs_input_grad, x, coefficients, weight, bias, kept, gradients[0]
            ), None


def _gradients(
    groups: Groups,
    wanted: tuple[bool, ...],
    x: Tensor,
    coefficients: Tensor,
    weight: Tensor,
    bias: Tensor,
    kept: Tensor,
    gradient: Tensor,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, coefficients, weight and bias, None where nobody wants one."""
    for_x, for_c, for_weight, for_bias = wanted[:4]
    basis, inputs, outputs = weight.shape
    flat, ordered = weight.reshape(basis, -1), _ordered(coefficients, groups)
    dy = gradient.contiguous()
    dx = torch.empty_like(x) if for_x else None
    dc = torch.empty_like(ordered) if for_c else None
    dw = torch.zeros_like(flat, dtype=sums_dtype(x.dtype)) if for_weight else None
    dbiases = groups.sums(dy)
    for first, last, runs in groups.chunks(_keys_a_chunk(weight)):
        blocks = _blocks(dy, runs)
        if dx is not None:
            made = kept[first:last] if len(kept) else (ordered[first:last] @ flat).view(-1, inputs, outputs)
            turned = _each_run(made.transpose(1, 2), runs)
            for block, own, out in zip(blocks, turned, _blocks(dx, runs), strict=True):
                torch.bmm(block, own, out=out)
        if dw is None and dc is None:
            continue
        dmade = x.new_empty(last - first, inputs, outputs)
        for rows, block, out in zip(_blocks(x, runs), blocks, _each_run(dmade, runs), strict=True):
            torch.bmm(rows.transpose(1, 2), block, out=out)
        dmade = dmade.view(-1, inputs * outputs)
        if dw is not None:
            add_product(dw, ordered[first:last].t(), dmade)
        if dc is not None:  # a product with few rows is a fifth faster than one with few columns
            dc[first:last] = (flat @ dmade.t()).t()
    if dc is not None:
        dc.addmm_(dbiases, bias.t())
        if groups.by_size is not None:
            dc = torch.empty_like(dc).index_copy_(0, groups.by_size, dc)
    return (
        dx,
        dc,
        None if dw is None else dw.view_as(weight).to(weight.dtype),
        ordered.t() @ dbiases if for_bias else None,
    )


def _ordered(coefficients: Tensor, groups: Groups) -> Tensor:
    """The coefficients in the order of the runs."""
    return coefficients if groups.by_size is None else coefficients.index_select(0, groups.by_size)


def _keys_a_chunk(weight: Tensor) -> int:
    most = _OTHER_NUMBERS
    if weight.device.type == "cpu":
        most = max(_CPU_NUMBERS, min(_CPU_NUMBERS_LARGE, weight.numel()))
    return max(1, most // max(1, weight[0].numel()))


def _each_run(groups: Tensor, runs: list[Run]) -> tuple[Tensor, ...]:
    """What belongs to the groups of a chunk, `[groups, ...]`, run by run."""
    parts: tuple[Tensor, ...] = torch.split(groups, [run.last - run.first for run in runs])
    return parts


def _blocks(x: Tensor, runs: list[Run]) -> list[Tensor]:
    """Of all rows those of each run, by group: `[groups, size, width]`."""
    counts = [run.size * (run.last - run.first) for run in runs]
    parts = torch.split(x.narrow(0, runs[0].row, sum(counts)), counts)
    return [part.view(-1, run.size, x.shape[1]) for part, run in zip(parts, runs, strict=True)]
