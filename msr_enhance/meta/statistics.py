"""How raw vectors become what a branch reads: centred, scaled, turned to their main directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError

_BLOCK = 16_384
_SAMPLE = 20_000  # rows that are enough to find directions


@dataclass(frozen=True)
class _Rows:
    """Reads a tensor in memory."""

    vectors: Tensor

    def __call__(self, start: int, stop: int) -> Tensor:
        return self.vectors[start:stop]


@dataclass(frozen=True)
class RawVectors:
    """Vectors as a language model left them, read when they are needed; a row of zeros is no knowledge.

    Attributes:
        keys: Number of rows.
        dim: Numbers of a vector.
        read: Gives rows `[stop - start, dim]`, float32, on the CPU.
    """

    keys: int
    dim: int
    read: Callable[[int, int], Tensor]

    @classmethod
    def of(cls, vectors: Tensor) -> RawVectors:
        """Those of a tensor `[keys, dim]`."""
        plain = vectors.detach().float().cpu()
        return cls(len(plain), plain.shape[1], _Rows(plain))

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows, some thousands at a time, so that no second copy of a large store is held."""
        for start in range(0, self.keys, _BLOCK):
            stop = min(start + _BLOCK, self.keys)
            yield slice(start, stop), self.read(start, stop)

    def __deepcopy__(self, _: dict[int, Any]) -> RawVectors:
        return self  # immutable, and perhaps a store on disk


@dataclass(frozen=True)
class Statistics:
    """Centre and directions of a level's vectors, part of a trained model: its layers read through them.

    Centring and scaling to norm 1 is the largest single effect measured (raw vectors share one large mean).

    Attributes:
        mean: `[dim]`, the mean of the training keys' vectors.
        basis: `[dim, kept]`, orthogonal columns of one length, the `gain`, the leading direction first; None
            keeps vectors whole.
        size: Length (root mean square over the training keys) of what layers are made from, which only a
            start needs.
    """

    mean: Tensor
    basis: Tensor | None
    size: float = 1.0

    @classmethod
    def of(cls, raw: RawVectors, training: Tensor, keep: int | None, rank: int | None = None) -> Statistics:
        """Those of the training keys.

        A single training key is not centred (it would vanish).

        Args:
            raw: The vectors.
            training: `[keys]` bool, the keys that count; all, where none of them has a vector.
            keep: Directions that are kept, at most `dim`; None keeps vectors whole.
            rank: Leading directions that learning starts with. A step of Adam moves a generated weight by
                its rate times the absolute sum of what the weight is made from, which is smaller for a few
                directions than for a whole vector: the gain makes up for it, so that factored layers learn
                as fast as full ones. (Without it they end lower: `benchmarks/rank.py`.) None: a gain of 1.
        """
        total, count = torch.zeros(raw.dim, dtype=torch.float64), 0
        for rows, block in raw.blocks():
            here = block[training[rows] & block.any(dim=1)]
            total, count = total + here.sum(0, dtype=torch.float64), count + len(here)
        if count == 0:
            raise EnhanceError(
                f"None of the {int(training.sum()):,} training ids (of {raw.keys:,}) has a vector, and the "
                "mean is theirs; allowed: training_ids that the knowledge is about, or none for all."
            )
        mean = (total / count).float() if count > 1 else torch.zeros(raw.dim, device="cpu")
        centred = cls(mean, None)
        if keep is None:
            return centred
        step, sample = max(1, count // _SAMPLE), []
        for rows, block in raw.blocks():
            sample.append(centred.apply(block[training[rows] & block.any(dim=1)][::step]))
        seen = torch.cat(sample)
        basis = _directions(seen, min(keep, raw.dim))
        leading = seen @ basis[:, :rank]
        gain = (
            seen.abs().sum() / leading.abs().sum() if rank is not None and leading.any() else torch.ones(())
        )
        return cls(mean, basis * gain, max(float(leading.norm() * gain) / len(seen) ** 0.5, 1e-6))

    def to(self, dtype: torch.dtype) -> Statistics:
        """The same in another type."""
        return Statistics(
            self.mean.to(dtype), None if self.basis is None else self.basis.to(dtype), self.size
        )

    @property
    def gain(self) -> Tensor:
        """Length of the basis' columns."""
        return self.mean.new_ones(()) if self.basis is None else self.basis[:, 0].norm()

    def apply(self, vectors: Tensor) -> Tensor:
        """What a branch reads `[rows, kept]` of raw vectors `[rows, dim]`; zeros stay zeros."""
        centred = torch.where(vectors.any(dim=1, keepdim=True), vectors - self.mean, 0.0)
        norm = centred.norm(dim=1, keepdim=True)
        scaled = torch.where(norm > 0, centred / norm.clamp(min=torch.finfo(centred.dtype).tiny), 0.0)
        return scaled if self.basis is None else scaled @ self.basis

    def rows(self, raw: RawVectors) -> Tensor:
        """All rows `[keys, kept]`."""
        return torch.cat([self.apply(block) for _, block in raw.blocks()])


def span(raw: RawVectors, training: Tensor) -> int:
    """Number of directions that the training keys' centred vectors span, at least 1."""
    rows = Statistics.of(raw, training, None).rows(raw)[training]
    return max(1, int(torch.linalg.matrix_rank(rows, rtol=1e-5))) if len(rows) else 1


def _directions(sample: Tensor, keep: int) -> Tensor:
    """Leading directions of rows `[rows, dim]`, `[dim, keep]`, orthonormal columns.

    Directions that the rows do not span complete the basis, so that the shape does not depend on how
    many rows there are.
    """
    dim = sample.shape[1]
    if dim <= 512:
        values, vectors = torch.linalg.eigh((sample.T @ sample).double())
        vectors = vectors[:, values.argsort(descending=True)]
    elif len(sample) <= 512:
        vectors = torch.linalg.svd(sample.double(), full_matrices=False).Vh.T[:, :keep]
    else:  # a full decomposition of 4096 x 4096 takes a minute; a randomised one a second
        vectors = torch.svd_lowrank(sample, q=min(keep + 16, *sample.shape), niter=4)[2][:, :keep]
    if vectors.shape[1] < keep:
        more = torch.randn(dim, keep - vectors.shape[1], dtype=vectors.dtype)
        vectors = torch.linalg.qr(torch.cat([vectors, more], dim=1))[0]
    # A direction and its opposite are the same: the sign is fixed, so that machines agree on it.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    signed: Tensor = (vectors * largest.sign())[:, :keep].float().contiguous()
    return signed
