"""Whose rows a batch holds; keys that are unknown are counted, and refused where they must not be."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError, not_one_of
from msr_enhance.wrap.embedding import described
from msr_enhance.wrap.index import KeyIndex
from msr_enhance.wrap.recipe import Recipe

_counting = threading.Lock()


class Roll(Protocol):
    """What is known of a level's keys: `absent` `[keys + 1]`, True without a vector; `dim` of raw vectors."""

    @property
    def absent(self) -> Tensor:
        """See above."""

    @property
    def dim(self) -> int:
        """See above."""


class Whose(nn.Module):
    """From what a call holds to rows of the tables.

    Args:
        recipe: Policies, and levels whose vectors come with the batch.
        indexes: By level.
    """

    def __init__(self, recipe: Recipe, indexes: Mapping[str, KeyIndex]) -> None:
        super().__init__()
        self.recipe = recipe
        self.index = nn.ModuleDict(dict(indexes))
        self._unknown = {level: torch.zeros((), dtype=torch.int64) for level in recipe.placement}

    def forward(self, level: str, found: Any, roll: Roll) -> Tensor:
        """Rows of the table `[batch]`, or the batch's own vectors `[batch, dim]`.

        Raises:
            EnhanceError: Not keys, or not vectors of that width.
            UnknownIdError: Unknown keys where that is an error.
        """
        if level in self.recipe.vectors:
            right = isinstance(found, Tensor) and found.is_floating_point()
            if not right or found.shape[1:] != (roll.dim,):
                raise EnhanceError(
                    f"{level} vectors are {described(found)}; allowed: a floating tensor [batch, {roll.dim}]."
                )
            who: Tensor = found
            strange = ~who.any(dim=1)
        else:
            who = self.index[level](found)
            strange = roll.absent[who.to(roll.absent.device)]
        if torch.compiler.is_exporting():
            return who
        if torch.compiler.is_compiling():
            self._unknown[level] = self._unknown[level] + strange.sum()
            return who
        if self.recipe.unknown[level] == "error" and bool(strange.any()):
            raise self._stranger(level, found, strange)
        with _counting:  # or two threads would count one of their calls
            self._unknown[level] = self._unknown[level] + strange.sum()
        return who

    def forget(self) -> None:
        """Count from 0 again."""
        self._unknown = {level: torch.zeros((), dtype=torch.int64) for level in self._unknown}

    def counts(self) -> dict[str, int]:
        """Rows so far whose key (or vector) was unknown, by level."""
        return {level: int(count) for level, count in self._unknown.items()}

    def _stranger(self, level: str, found: Any, strange: Tensor) -> UnknownIdError:
        more = f"Extract the store with them, or write unknown={{{level!r}: 'zero'}}."
        if level not in self.index:
            return UnknownIdError(f"{level} vectors of zeros; allowed: vectors that are not zero. {more}")
        seen = [found[place] for place in strange.nonzero()[:5, 0].tolist()]
        shown = [one.tolist() if isinstance(one, Tensor) else one for one in seen]
        known: Iterable[object] = cast("KeyIndex", self.index[level]).names
        return UnknownIdError(not_one_of(level, shown[0], known, f"Unknown: {shown}. {more}"))
