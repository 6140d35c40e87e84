"""Whose rows a batch holds; keys that are unknown are counted, and refused where they must not be."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError, not_one_of
from msr_enhance.meta.held import tracing
from msr_enhance.wrap.embedding import described
from msr_enhance.wrap.index import KeyIndex
from msr_enhance.wrap.recipe import Recipe

_counting = threading.Lock()


def _renew() -> None:
    """In a forked process: a lock that another thread held then is never given back there."""
    global _counting
    _counting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


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
        who, strange = self._looked_up(level, found, roll)
        return self._admitted(level, found, who, strange)

    def given(self, level: str, rows: Any, roll: Roll) -> Tensor:
        """As `forward`, for rows of the table instead of keys, -1 for an unknown one (or for vectors).

        Raises:
            EnhanceError: Not rows, or not vectors of that width.
            UnknownIdError: Unknown rows where that is an error, or rows beyond the table.
        """
        if level in self.recipe.vectors:
            return self(level, rows, roll)  # type: ignore[no-any-return]
        whole = isinstance(rows, Tensor) and not rows.is_floating_point() and not rows.is_complex()
        if not whole or rows.dtype is torch.bool or rows.dim() != 1:
            raise EnhanceError(
                f"rows of {level} are {described(rows)}; allowed: an integer tensor [batch], or [1] for all, "
                f"as rows_of({level!r}, keys) gives it."
            )
        who, keys = rows.long(), roll.absent.shape[0] - 1
        if (
            who.shape[0] == 1
            and who.device.type == "cpu"
            and roll.absent.device.type == "cpu"
            and not tracing()
        ):
            return self._one(level, rows, who, roll)
        if tracing() or who.device.type != "cpu":  # nobody can look: what is no row is nobody's
            who = torch.where((who < 0) | (who >= keys), -1, who)
        elif who.numel():
            low, high = (int(value) for value in who.aminmax())
            if low < -1 or high >= keys:
                raise self._beyond(level, low if low < -1 else high, keys)
        return self._admitted(level, rows, who, roll.absent[who.to(roll.absent.device)])

    def _one(self, level: str, rows: Tensor, who: Tensor, roll: Roll) -> Tensor:
        """`given` for one user's request, where every operation on a tensor counts."""
        row, keys = int(who), roll.absent.shape[0] - 1
        if row < -1 or row >= keys:
            raise self._beyond(level, row, keys)
        if bool(roll.absent[row]):
            if self.recipe.unknown[level] == "error":
                raise self._stranger(level, rows, roll.absent[who])
            with _counting:
                self._unknown[level] = self._unknown[level] + 1
        return who

    def _beyond(self, level: str, row: int, keys: int) -> UnknownIdError:
        return UnknownIdError(
            f"{level} row {row} is not in a table of {keys}; allowed: 0 to {keys - 1}, or -1 for nobody, as "
            f"rows_of({level!r}, keys) gives it."
        )

    def found(self, level: str, found: Any, roll: Roll) -> Tensor:
        """As `forward`, without counting."""
        who, strange = self._looked_up(level, found, roll)
        self._refuse(level, found, strange)
        return who

    def _looked_up(self, level: str, found: Any, roll: Roll) -> tuple[Tensor, Tensor]:
        """Rows or vectors, and `[batch]` bool, which of them are unknown."""
        if level in self.recipe.vectors:
            right = isinstance(found, Tensor) and found.is_floating_point()
            if not right or found.shape[1:] != (roll.dim,):
                raise EnhanceError(
                    f"{level} vectors are {described(found)}; allowed: a floating tensor [batch, {roll.dim}]."
                )
            return found, ~found.any(dim=1)
        who: Tensor = self.index[level](found)
        return who, roll.absent[who.to(roll.absent.device)]

    def _admitted(self, level: str, found: Any, who: Tensor, strange: Tensor) -> Tensor:
        """The same rows, once unknown ones are refused or counted."""
        if torch.compiler.is_exporting():
            return who
        if torch.compiler.is_compiling():
            self._unknown[level] = self._unknown[level] + strange.sum()
            return who
        self._refuse(level, found, strange)
        with _counting:  # or two threads would count one of their calls
            self._unknown[level] = self._unknown[level] + strange.sum()
        return who

    def _refuse(self, level: str, found: Any, strange: Tensor) -> None:
        if self.recipe.unknown[level] == "error" and bool(strange.any()):
            raise self._stranger(level, found, strange)

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
