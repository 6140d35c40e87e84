"""How a backbone is enhanced, as data: what `enhance()` was told, what it found out, and what is saved."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Place
from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.table import Unknown

# Two levels at the bottom run scenario first, then user (`notes/mission.md`, ambiguity 13).
LEVELS: Final = ("scenario", "user")
PLACEMENT: Final[dict[str, Place | None]] = {"user": "bottom", "scenario": "parallel"}
UNKNOWN: Final[dict[str, Unknown]] = {"user": "zero", "scenario": "error"}


class Recipe(BaseModel):
    """Everything about an enhanced model that is neither weights, nor knowledge, nor the backbone.

    Attributes:
        tap: Where the embedding is, as it was written.
        keys: Where each level's keys are; None where a function finds them, which cannot be saved.
        vectors: The same for levels whose vectors come with the batch.
        output: What the backbone returns, a part for each score.
        placement: Place of each placed level.
        unknown: What is done with unknown keys.
        positions: Levels whose keys are positions in a vocabulary.
        learned: Levels whose vectors are trained.
        few: Levels whose keys have weights of their own.
        width: Of the tapped embedding, flattened.
        tasks: Scores of a row.
        meta: The generated layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tap: str
    keys: dict[str, str | int | None]
    vectors: dict[str, str | int | None] = Field(default_factory=dict)
    output: tuple[str, ...]
    placement: dict[str, Place]
    unknown: dict[str, Unknown]
    positions: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()
    few: tuple[str, ...] = ()
    width: int
    tasks: int
    meta: MetaConfig


def placed(placement: dict[str, Place | None]) -> dict[str, Place]:
    """The levels that stand somewhere, in the order they run at the bottom.

    Raises:
        EnhanceError: A level or a place that there is not, or no level at all.
    """
    for level, place in placement.items():
        if level not in LEVELS:
            raise EnhanceError(not_one_of("level", level, LEVELS, "Write placement={'user': 'bottom'}."))
        if place not in ("bottom", "parallel", None):
            raise EnhanceError(not_one_of(f"placement of {level}", place, ("bottom", "parallel", None)))
    found = {level: place for level in LEVELS if (place := placement.get(level)) is not None}
    if not found:
        raise EnhanceError("placement places no level; write for example placement={'user': 'bottom'}.")
    return found


def policies(unknown: dict[str, Unknown]) -> dict[str, Unknown]:
    """What is done with unknown keys of each level, the defaults filled in.

    Raises:
        EnhanceError: A level or a policy that there is not.
    """
    for level, policy in unknown.items():
        if level not in LEVELS:
            raise EnhanceError(not_one_of("level", level, LEVELS, "Write unknown={'user': 'zero'}."))
        if policy not in ("zero", "learned", "error"):
            raise EnhanceError(not_one_of(f"unknown of {level}", policy, ("zero", "learned", "error")))
    return {**UNKNOWN, **unknown}
