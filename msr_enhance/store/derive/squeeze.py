"""Smaller vectors: eight bits a number, or fewer numbers, with what that costs measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreError
from msr_enhance.store.frame import Array
from msr_enhance.store.level import LevelReader
from msr_enhance.store.numbers import Dtype, as_float32, as_kept

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SAMPLE: Final = 100_000
"""Rows that components are computed from, at most."""


class Kept:
    """What is left of the vectors, summed up while they are changed.

    Attributes:
        whole: Sum of squares of the vectors as they were, about their offset.
        lost: Sum of squares of what is gone.
    """

    def __init__(self) -> None:
        self.whole = self.lost = 0.0

    @property
    def energy(self) -> float:
        """Share of the squares that is kept, 0 to 1."""
        return 1.0 - self.lost / self.whole if self.whole else 1.0


class ToInt8:
    """Numbers of eight bits with a scale for each dimension.

    One scale for a whole vector would be set by the few dimensions that are a hundred times as large as
    the others, as those of language models are, and leave these nothing.

    Args:
        scale: What each dimension is divided by, ``[width]``.
    """

    def __init__(self, scale: Floats) -> None:
        self.offset, self.matrix = np.empty(0, np.float32), scale
        self.kept = Kept()

    @classmethod
    def fitted(cls, reader: LevelReader) -> ToInt8:
        """The scales that fit a level: the largest number of each dimension becomes 127."""
        largest = np.zeros(reader.layout.width, np.float32)
        for block in reader.known_vectors():
            np.maximum(largest, np.abs(block).max(axis=0), out=largest)
        scale = largest / np.float32(127)
        return cls(np.where(scale > 0, scale, np.float32(1)).astype(np.float32))

    def __call__(self, vectors: Floats) -> Array:
        """Vectors ``[rows, width]`` as int8; a row without knowledge stays zeros."""
        found: Array = np.clip(np.rint(vectors / self.matrix), -127, 127).astype(np.int8)
        _count(self.kept, vectors, found.astype(np.float64) * self.matrix)
        return found


class ToComponents:
    """Principal components: fewer numbers, those in which the rows differ most.

    Args:
        offset: The mean of the rows, ``[width]``.
        matrix: The components, rows of unit length, ``[dim, width]``.
        dtype: How what comes out is kept.
    """

    def __init__(self, offset: Floats, matrix: Floats, dtype: Dtype = "float32") -> None:
        self.offset, self.matrix = offset, matrix
        self._dtype = dtype
        self.kept = Kept()

    @classmethod
    def fitted(cls, reader: LevelReader, dim: int, seed: int, dtype: Dtype) -> ToComponents:
        """The components of a level.

        Args:
            reader: The level.
            dim: How many.
            seed: Of the choice of rows, where there are more than ``SAMPLE``.
            dtype: How what comes out is kept.

        Returns:
            The projection; the sign of each component is the one of its largest number.

        Raises:
            StoreError: If the level has fewer dimensions, or fewer rows with knowledge.
        """
        width = reader.layout.width
        if not 0 < dim < width:
            raise StoreError(
                f"dim is {dim}; the {reader.level} vectors have {width} numbers. Write a smaller one."
            )
        mean, cross, rows = _moments(reader, seed)
        if rows <= dim:
            raise StoreError(
                f"{rows:,} {reader.level} rows have knowledge, too few for {dim} components. Write a smaller "
                "--dim, or another --level."
            )
        values, vectors = np.linalg.eigh(cross)
        top = vectors[:, np.argsort(values)[::-1][:dim]].T
        signs = np.sign(top[np.arange(dim), np.abs(top).argmax(axis=1)])
        return cls(mean.astype(np.float32), (top * signs[:, None]).astype(np.float32), dtype)

    def __call__(self, vectors: Floats) -> Array:
        """Vectors ``[rows, width]`` as they are kept, ``[rows, dim]``; rows without knowledge stay zeros."""
        known = np.any(vectors, axis=1, keepdims=True)
        centred = np.where(known, vectors - self.offset, np.float32(0))
        found = as_kept((centred.astype(np.float64) @ self.matrix.T).astype(np.float32), self._dtype)
        read = as_float32(found, self._dtype)
        _count(self.kept, centred, read.astype(np.float64) @ self.matrix)
        return found


class Fitted(NamedTuple):
    """Moments of the rows of a level: mean ``[width]``, centred products ``[width, width]``, count."""

    mean: Doubles
    cross: Doubles
    rows: int


def _moments(reader: LevelReader, seed: int) -> Fitted:
    """Moments of a level, of rows chosen by chance where there are many."""
    share = min(1.0, SAMPLE / max(reader.count, 1))
    draw, width = np.random.default_rng(seed), reader.layout.width
    total, cross, rows = np.zeros(width), np.zeros((width, width)), 0
    origin: Doubles | None = None
    for block in _sampled(reader.known_vectors(), share, draw):
        wide = block.astype(np.float64)
        # About a row near the mean: squares of large numbers would take the digits of small differences.
        origin = wide.mean(axis=0) if origin is None else origin
        wide -= origin
        total, cross, rows = total + wide.sum(axis=0), cross + wide.T @ wide, rows + len(wide)
    if origin is None:
        return Fitted(total, cross, 0)
    shift = total / rows
    return Fitted(origin + shift, cross - rows * np.outer(shift, shift), rows)


def _sampled(blocks: Iterator[Floats], share: float, draw: np.random.Generator) -> Iterator[Floats]:
    for block in blocks:
        some = block if share == 1.0 else block[draw.random(len(block)) < share]
        if len(some):
            yield some


def _count(kept: Kept, before: Floats, after: Doubles) -> None:
    kept.whole += float(np.square(before, dtype=np.float64).sum())
    kept.lost += float(np.square(before - after).sum())
