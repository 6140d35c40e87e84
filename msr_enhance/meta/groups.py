"""Rows of a batch grouped by key, and the order in which groups of one size share a product."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """Neighbouring groups of one size.

    Attributes:
        first: Place of the first group.
        last: Place after the last group.
        size: Rows of each group.
        row: Place of the first group's first row.
    """

    first: int
    last: int
    size: int
    row: int


class Groups:
    """Rows of a batch grouped by key.

    Everything that layers need is worked out here once. On a GPU that is the only wait for the device.

    Args:
        keys: `[batch]` int, the key of each row.

    Attributes:
        distinct: `[distinct]`, the keys, ascending.
        of_row: `[batch]`, each row's place in `distinct`.
        sizes: `[distinct]`, how many rows each key has.
        order: `[batch]`, the rows group by group; rows of one group stay in their order. Groups of one
            size stand together, except where the rows come sorted by key and moving them gains little.
        rho: Rows a key, on average; 0 for an empty batch.
        runs: Neighbouring groups of one size, in `order`.
        by_size: `[distinct]`, places in `distinct` in the order of the runs; None where that is ascending.
    """

    def __init__(self, keys: Tensor) -> None:
        self._rows = len(keys)
        self._in_order = bool((keys[1:] >= keys[:-1]).all())
        ordered, self.order = (keys, _count(keys)) if self._in_order else torch.sort(keys, stable=True)
        self.distinct, place, self.sizes = torch.unique_consecutive(
            ordered, return_inverse=True, return_counts=True
        )
        self.of_row = place if self._in_order else place[_inverse(self.order)]
        self.rho = len(keys) / max(1, len(self.distinct))
        self.by_size: Tensor | None = None
        sizes: list[int] = self.sizes.tolist()
        # A run is a product to launch. Ordering by size gives the fewest, and costs nothing where rows must
        # move anyway; rows that stand in order move only to save many.
        runs = sum(1 for _ in groupby(sizes))
        if runs > len(set(sizes)) + (8 if self._in_order else 0):
            self.by_size = torch.sort(self.sizes, stable=True).indices
            self.order = self.order[self._places(self.by_size)]
            self._in_order = False
            sizes.sort()
        self.runs = _runs(sizes)
        self._back = _inverse(self.order)

    def __len__(self) -> int:
        return len(self.distinct)

    @property
    def rows(self) -> int:
        """Number of rows of the batch."""
        return self._rows

    def sort(self, x: Tensor) -> Tensor:
        """Rows `[batch, ...]` group by group, in `order`; x itself where they already are."""
        return x if self._in_order else _permuted(x, self.order, self._back)

    def restore(self, x: Tensor) -> Tensor:
        """Undo `sort`."""
        return x if self._in_order else _permuted(x, self._back, self.order)

    def sums(self, x: Tensor) -> Tensor:
        """Sums over each group `[distinct, ...]`, in the order of the runs, of rows in `order`."""
        # Adding by row numbers has no fixed order on a GPU, and rounds every sum of a half-precision one.
        if x.device.type != "cpu" or x.dtype.itemsize < 4:
            parts = torch.split(x, [run.size * (run.last - run.first) for run in self.runs])
            summed = [
                part.view(run.last - run.first, run.size, *x.shape[1:]).sum(1)
                for run, part in zip(self.runs, parts, strict=True)
            ]
            return torch.cat(summed) if summed else x.new_zeros(0, *x.shape[1:])
        sizes = self.sizes if self.by_size is None else self.sizes[self.by_size]
        of_row = torch.repeat_interleave(sizes, output_size=self._rows)
        return x.new_zeros(len(self), *x.shape[1:]).index_add_(0, of_row, x)

    def _places(self, groups: Tensor) -> Tensor:
        """Where rows that stand key by key stand group by group, `[batch]`."""
        sizes, starts = self.sizes[groups], (self.sizes.cumsum(0) - self.sizes)[groups]
        shift = starts - (sizes.cumsum(0) - sizes)
        places: Tensor = _count(self.order) + shift.repeat_interleave(sizes, output_size=self._rows)
        return places

    def chunks(self, most: int) -> Iterator[tuple[int, int, list[Run]]]:
        """The first group, the one after the last, and the runs of chunks of at most `most` groups."""
        held: list[Run] = []
        start = 0
        for first, last, size, row in self.runs:
            while first < last:
                end = min(last, start + most)
                held.append(Run(first, end, size, row))
                row += size * (end - first)
                first = end
                if end == start + most:
                    yield start, end, held
                    start, held = end, []
        if held:
            yield start, held[-1].last, held


def _runs(sizes: list[int]) -> list[Run]:
    runs: list[Run] = []
    first = row = 0
    for size, same in groupby(sizes):
        last = first + len(list(same))
        runs.append(Run(first, last, size, row))
        row += size * (last - first)
        first = last
    return runs


def _count(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _inverse(order: Tensor) -> Tensor:
    back = torch.empty_like(order)
    back[order] = _count(order)
    return back


def _permuted(x: Tensor, order: Tensor, back: Tensor) -> Tensor:
    permuted: Tensor = _Permute.apply(x, order, back)  # type: ignore[no-untyped-call]
    return permuted


class _Permute(torch.autograd.Function):
    """Rows in another order; the gradient is the way back, not a sum, whose order varies on GPUs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order, back)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        order, back = ctx.saved_tensors
        return _permuted(gradients[0], back, order), None, None
