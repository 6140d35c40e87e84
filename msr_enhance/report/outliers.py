"""Outliers: rows that look unlike the others, or have no knowledge, with a few examples of each kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.store.record import STATUSES

_FAR = 5.0
_EXAMPLES = 5
_REASONS = 5
_NUMBER = re.compile(r"\d[\d,.]*")
_REFUSAL = re.compile(
    r"\s*[\"'*]*(sorry\b|i[’' ]?a?m (very |really )?(sorry|unable)"
    r"|i (can ?not|can[’']t|won[’']t|am not able)\b|unfortunately,? i\b"
    r"|as an? (ai|artificial|language|large)\b"
    r"|抱歉|对不起|很抱歉|我无法|我不能|作为一个?(ai|人工智能|语言模型))",
    re.IGNORECASE,
)


class Kind(NamedTuple):
    """Rows of one kind.

    Attributes:
        key: Its name for the page.
        name: Its name for people.
        what: What makes a row one of them.
        rows: Their positions, the most telling first.
        groups: Texts that they share, or reasons: text, how often, position of the first.
    """

    key: str
    name: str
    what: str
    rows: list[int]
    groups: list[tuple[str, int, int]]

    def as_json(self, listed: int) -> dict[str, Any]:
        """For the page, with a few examples."""
        return {
            "key": self.key,
            "name": self.name,
            "what": self.what,
            "count": len(self.rows),
            "share": len(self.rows) / listed if listed else 0.0,
            "examples": self.rows[:_EXAMPLES],
            "rows": sorted(self.rows),
            "groups": self.groups[:_REASONS],
        }


def is_refusal(answer: str) -> bool:
    """Whether an answer begins as refusals do, in English or Chinese; a guess from its first words."""
    return _REFUSAL.match(answer) is not None


def unusual(norms: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], float, float]:
    """Norms far from the median, by the median absolute deviation.

    Args:
        norms: Of the rows with knowledge ``[rows]``.

    Returns:
        Positions of those more than 5 robust standard deviations away, the farthest first; and the two
        norms between which the others lie.
    """
    if not len(norms):
        return np.empty(0, np.int64), 0.0, 0.0
    middle = float(np.median(norms))
    away = np.abs(norms - middle)
    # Normed states are all of one length but for rounding, and that is no spread to measure with.
    limit = max(_FAR * 1.4826 * float(np.median(away)), 1e-3 * middle)
    order = np.argsort(-away, kind="stable")
    return order[away[order] > limit], middle - limit, middle + limit


def kinds(
    status: npt.NDArray[np.uint8],
    known: npt.NDArray[np.int64],
    norms: npt.NDArray[np.float64],
    digests: Sequence[bytes],
    reasons: Sequence[str],
    refusals: Sequence[int],
) -> list[Kind]:
    """Every kind, also those without rows.

    Args:
        status: Of the rows, positions in ``STATUSES`` ``[rows]``.
        known: Positions of the rows with knowledge ``[known]``.
        norms: Of these ``[known]``.
        digests: Of the answer of each row, empty where it has no text.
        reasons: Of each row's status.
        refusals: Positions of the rows whose answer looks like a refusal.

    Returns:
        The kinds; groups name the rows, their texts are filled in by the caller.
    """
    far, low, high = unusual(norms)
    often = Counter(digests[at] for at in known.tolist() if digests[at])
    repeated = [at for at in known.tolist() if often.get(digests[at], 0) > 1]
    first: dict[bytes, int] = {}
    for at in repeated:
        first.setdefault(digests[at], at)
    groups = [("", often[digest], at) for digest, at in first.items()]
    groups.sort(key=lambda group: (-group[1], group[2]))
    found = [
        Kind(
            "norm",
            "Unusual norm",
            f"More than {_FAR:g} robust standard deviations from the median"
            + (f": outside {low:.4g} to {high:.4g}." if len(norms) else "."),
            known[far].tolist(),
            [],
        ),
        Kind(
            "repeated",
            "Repeated answers",
            f"The same answer, letter by letter, as another user's; different texts: {len(groups):,}.",
            sorted(repeated, key=lambda at: (-often[digests[at]], first[digests[at]], at)),
            groups,
        ),
        Kind(
            "refusal",
            "Refusals",
            "Answers that begin as refusals do, in English or Chinese; a guess from their first words.",
            list(refusals),
            [],
        ),
    ]
    for name, what in (
        ("empty", "Nothing to ask about: no positive event before the cut-off."),
        ("failed", "No answer came, or one that cannot be used. Their vectors are zeros."),
        ("truncated", "The prompt lost its oldest events to fit the model; there is knowledge all the same."),
    ):
        rows = np.flatnonzero(status == STATUSES.index(name)).tolist()
        found.append(Kind(name, name.capitalize(), what, rows, _reasons(rows, reasons)))
    return found


def _reasons(rows: Sequence[int], reasons: Sequence[str]) -> list[tuple[str, int, int]]:
    """Reasons that differ in a number count together."""
    counts, first = Counter[str](), dict[str, int]()
    for at in rows:
        if reasons[at]:
            text = _NUMBER.sub("N", reasons[at])
            counts[text] += 1
            first.setdefault(text, at)
    return [(text, count, first[text]) for text, count in counts.most_common()]
