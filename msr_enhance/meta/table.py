"""The vectors a branch reads: a frozen table of knowledge, or a trained one (the `learned` control)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.held import Held
from msr_enhance.meta.statistics import RawVectors, Statistics

Unknown = Literal["zero", "learned", "error"]


class VectorTable(Held):
    """A level's knowledge by row, as its `Statistics` make it; row -1 is unknown.

    The state holds the statistics and what was learned, never the knowledge: that is in the store.

    Args:
        raw: The vectors of the keys. None for a table without rows: vectors come with the batch.
        statistics: How they are read.
        learned: Start from these vectors and train them.
        unknown: What an unknown key reads: ``zero``, or a ``learned`` vector. (``error`` is the caller's.)

    Attributes:
        absent: `[keys + 1]` bool, True for a key without a vector, and for -1.

    Shape:
        keys `[batch]` int, or raw vectors `[batch, dim]` float → `[batch, kept]`.
    """

    held: ClassVar[tuple[str, ...]] = ("rows", "absent")
    exact: ClassVar[tuple[str, ...]] = ("mean", "basis")
    mean: Tensor
    basis: Tensor | None
    rows: Tensor
    absent: Tensor
    trained: nn.Parameter | None
    stranger: nn.Parameter | None

    def __init__(
        self,
        raw: RawVectors | None,
        statistics: Statistics,
        *,
        learned: bool = False,
        unknown: Unknown = "zero",
    ) -> None:
        super().__init__()
        self._raw, self.size = raw, statistics.size
        self.register_buffer("mean", statistics.mean)
        self.register_buffer("basis", statistics.basis)
        kept = statistics.mean if statistics.basis is None else statistics.basis[0]
        # A checkpoint holds what was learned, the store holds the knowledge.
        self.rows = torch.zeros(1, len(kept), device="cpu")
        self.absent = torch.ones(1, dtype=torch.bool, device="cpu")
        self.trained = None
        self.stranger = nn.Parameter(torch.zeros(len(kept))) if unknown == "learned" else None
        self._fill()
        if learned:
            # At length 1, whatever the gain: vectors that are trained move at a rate of their own.
            self.trained = nn.Parameter(self.rows[:-1] / statistics.gain)
            self.rows = self.rows[-1:]

    def _fill(self) -> None:
        """Read the rows again, through the statistics as they are now."""
        if self._raw is None:
            return
        device, dtype = self.rows.device, self.rows.dtype
        statistics, rows, absent = self.statistics_on("cpu"), [], []
        for _, block in self._raw.blocks():
            rows.append(statistics.apply(block))
            absent.append(~block.any(dim=1))
        # A row of zeros at the end is what -1 reads.
        rows.append(torch.zeros(1, self.kept, device="cpu"))
        absent.append(torch.ones(1, dtype=torch.bool, device="cpu"))
        self.rows, self.absent = torch.cat(rows).to(device, dtype), torch.cat(absent).to(device)

    def statistics_on(self, device: str) -> Statistics:
        """The statistics, in float32."""
        basis = None if self.basis is None else self.basis.to(device, torch.float32)
        return Statistics(self.mean.to(device, torch.float32), basis)

    def _gain(self) -> Tensor:
        return Statistics(self.mean, self.basis).gain

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        held = state_dict.get(f"{prefix}mean")
        if held is not None and held.shape != self.mean.shape:
            raise EnhanceError(
                f"These weights were trained on vectors of {held.numel()} numbers, and this store's have "
                f"{self.dim}; allowed: a store of the same model. Load the one they were trained with."
            )
        before = self.mean.clone(), None if self.basis is None else self.basis.clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)
        same = torch.equal(self.mean, before[0])
        if self.basis is not None and before[1] is not None:
            same = same and torch.equal(self.basis, before[1])
        if self.trained is None and not same:
            # The layers must read vectors the way they were read when the layers were trained.
            self._fill()

    @property
    def keys(self) -> int:
        """Number of keys."""
        return len(self.absent) - 1

    @property
    def dim(self) -> int:
        """Numbers of a raw vector."""
        return int(self.mean.shape[0])

    @property
    def kept(self) -> int:
        """Numbers that a branch reads."""
        return int(self.rows.shape[1])

    def forward(self, keys: Tensor) -> Tensor:
        """What the branch reads, `[batch, kept]`; see Shape."""
        if keys.is_floating_point():
            # A vector less its mean is mostly what half precision has rounded away: not in that type.
            whole = keys.to(torch.promote_types(keys.dtype, torch.float32))
            known = Statistics(self.mean, self.basis).to(whole.dtype).apply(whole)
            strange = ~keys.any(dim=1)
        elif self.trained is None:
            known, strange = self.here("rows", keys)[keys], self.here("absent", keys)[keys]
        else:
            strange = self.here("absent", keys)[keys]
            known = torch.where(strange[:, None], 0.0, self.trained[keys.clamp(min=0)] * self._gain())
        if self.stranger is None:
            return known
        return torch.where(strange[:, None], self.stranger.to(known.dtype), known)
