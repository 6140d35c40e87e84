"""The vectors a branch reads: a frozen table of knowledge, or a trained one (the `learned` control)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError


class VectorTable(nn.Module):
    """Knowledge vectors by row, centred and scaled to norm 1; row -1 is unknown and reads as zero.

    Centring and scaling is the largest single effect measured (raw vectors share one large mean).
    The mean is that of the training keys alone. A single training key is not centred (it would
    vanish), and a zero vector stays zero.

    Args:
        vectors: `[keys, dim]` float, one row a key of the vocabulary.
        known: `[keys]` bool, False where the store holds no vector: such rows read as zero.
        training: `[keys]` bool, the keys the mean is taken over.
        learned: Start from these vectors and train them.

    Attributes:
        known: `[keys]` bool, on the CPU.

    Shape:
        keys `[batch]` int → `[batch, dim]`.
    """

    mean: Tensor
    rows: Tensor
    norm: Tensor
    trained: nn.Parameter | None

    def __init__(self, vectors: Tensor, known: Tensor, training: Tensor, *, learned: bool = False) -> None:
        super().__init__()
        vectors = vectors.detach().float()
        basis = vectors[known & training]
        mean = basis.mean(0) if len(basis) > 1 else torch.zeros_like(vectors[0])
        self.register_buffer("mean", mean)
        self.known = known
        self._training = known & training
        scaled, norm = _scaled(torch.where(known[:, None], vectors - mean, 0.0))
        # A row of zeros at the end is what -1 reads.
        rows = torch.cat([scaled, torch.zeros_like(scaled[:1])])
        self.trained = nn.Parameter(scaled.clone()) if learned else None
        # Not persistent: a checkpoint holds what was learned, the store holds the knowledge.
        self.register_buffer("rows", rows[-1:] if learned else rows, persistent=False)
        self.register_buffer("norm", norm, persistent=False)

    @classmethod
    def aligned(
        cls,
        ids: Iterable[Hashable],
        vectors: Tensor,
        order: Iterable[Hashable],
        training: Iterable[Hashable] | None = None,
        *,
        learned: bool = False,
    ) -> VectorTable:
        """A table in the order of a vocabulary.

        Args:
            ids: The id of each vector.
            vectors: `[ids, dim]`; a row of zeros is no knowledge. Those of several layers, `[ids, n_layers,
                dim]`, are set side by side, each layer as long as the model left it.
            order: The id of each table row; one without a vector is unknown.
            training: Ids that the vectors are centred over; by default all.
            learned: Start from these vectors and train them.
        """
        vectors = vectors.flatten(1)
        names, row_of = list(order), {name: row for row, name in enumerate(ids)}
        rows = torch.tensor([row_of.get(name, -1) for name in names])
        known = (rows >= 0) & vectors.any(dim=1)[rows]
        chosen = set(names if training is None else training)
        among = torch.tensor([name in chosen for name in names])
        return cls(torch.where(known[:, None], vectors[rows], 0.0), known, among, learned=learned)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        held = state_dict.get(f"{prefix}mean")
        if held is not None and held.shape != self.mean.shape:
            raise EnhanceError(
                f"These weights were trained on vectors of {held.numel()} numbers, and this store's have "
                f"{self.dim}; allowed: a store of the same model. Load the one they were trained with."
            )
        before = self.mean.clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.trained is None and not torch.equal(self.mean, before):
            # The layers must read vectors centred the way they were when the layers were trained.
            known = self.norm > 0
            raw = self.rows[:-1] * self.norm + before
            scaled, self.norm = _scaled(torch.where(known, raw - self.mean, 0.0))
            self.rows = torch.cat([scaled, torch.zeros_like(scaled[:1])])

    @property
    def keys(self) -> int:
        """Number of keys."""
        return len(self._training)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.mean.shape[0])

    def leading(self, rank: int) -> Tensor:
        """The leading directions of the training keys, `[dim, min(rank, dim)]`, orthonormal columns.

        Directions that the keys do not span complete the basis, so that the shape does not depend on how
        many keys a store holds.
        """
        every = self.trained.detach() if self.trained is not None else self.rows[:-1]
        rows = every[self._training] if bool(self._training.any()) else every
        sample = rows[:: max(1, len(rows) // 20_000)]  # enough to find the directions, bounded work
        keep = min(rank, self.dim)
        if self.dim <= 512:
            values, vectors = torch.linalg.eigh((sample.T @ sample).double())
            vectors = vectors[:, values.argsort(descending=True)]
        else:  # a full decomposition of 4096 x 4096 takes a minute; a randomised one a second
            vectors = torch.svd_lowrank(sample, q=min(keep + 16, *sample.shape), niter=4)[2]
            if vectors.shape[1] < keep:
                vectors = torch.linalg.qr(torch.cat([vectors, torch.randn(self.dim, keep)], dim=1))[0]
        directions: Tensor = vectors[:, :keep].float().contiguous()
        return directions

    def forward(self, keys: Tensor) -> Tensor:
        """Vectors `[batch, dim]` of table rows `[batch]`; -1 gives zeros."""
        if self.trained is None:
            known: Tensor = self.rows[keys]
            return known
        rows: Tensor = self.trained[keys.clamp(min=0)]
        return rows * (keys >= 0)[:, None]


def _scaled(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors `[keys, dim]` at norm 1 (zeros stay zeros), and their norms `[keys, 1]`."""
    norm = vectors.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, vectors / norm.clamp(min=torch.finfo(torch.float32).tiny), 0.0), norm
