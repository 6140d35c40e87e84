"""The parts of a score as a little table with bars; needs no torch, so kept explanations are shown fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msr_enhance.prompts.template import clean_text

_HALF = 16
"""Characters of the longest bar."""


class Shown(Protocol):
    """One part of a score, fresh or read from a run."""

    @property
    def name(self) -> str:
        """``backbone``, or the level."""

    @property
    def logit(self) -> float:
        """What it adds."""

    @property
    def key(self) -> int | str | None:
        """Whose layers they were."""

    @property
    def known(self) -> bool:
        """Whether there was knowledge."""

    @property
    def text(self) -> str | None:
        """The stored answer."""

    @property
    def alpha(self) -> float | None:
        """Mixing weight of parallel layers."""


def drawn(parts: Sequence[Shown], logit: float, probability: float) -> str:
    """The parts under each other, then the score, then what the language model had said.

    A bar to the right of ``|`` pushes the score up, one to the left pulls it down; the longest stands for
    the largest number of the table. Texts and keys are shown in one line, without control characters.

    Args:
        parts: In the order in which they are added.
        logit: Their sum.
        probability: Its sigmoid.
    """
    largest = max(abs(value) for value in (logit, *(part.logit for part in parts)))
    cells = [("part", "key", "alpha", "logit", "")]
    for part in parts:
        key = "" if part.key is None else clean_text(str(part.key), 40)
        if not part.known:
            key = f"{key} (unknown)".strip()
        alpha = "" if part.alpha is None else f"{part.alpha:.3f}"
        cells.append((part.name, key, alpha, f"{part.logit:+.4f}", _bar(part.logit, largest)))
    cells.append(("score", "", "", f"{logit:+.4f}", _bar(logit, largest)))
    wide = [max(len(row[place]) for row in cells) for place in range(4)]
    lines = [
        f"{name:<{wide[0]}}  {key:<{wide[1]}}  {alpha:>{wide[2]}}  {value:>{wide[3]}}  {bar}".rstrip()
        for name, key, alpha, value, bar in cells
    ]
    lines[-1] += f"  probability {probability:.4f}"
    lines += [f"{part.name}: {clean_text(part.text)}" for part in parts if part.text]
    return "\n".join(lines)


def _bar(value: float, largest: float) -> str:
    length = round(_HALF * (abs(value) / largest)) if largest else 0
    return f"{'-' * length if value < 0 else '':>{_HALF}}|{'+' * length if value > 0 else ''}"
