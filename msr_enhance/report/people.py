"""People: the users of a page, column by column, and the texts of some of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.report.facts import history, said
from msr_enhance.report.outliers import Kind, is_refusal, kinds
from msr_enhance.report.projection import project
from msr_enhance.report.rows import Rows, spread
from msr_enhance.store.record import STATUSES

_LABELS = 200
LONGEST = 20_000
"""Characters of a prompt or an answer that a page holds."""
_SHORT = 160


class People(NamedTuple):
    """The users of a page.

    Attributes:
        users: For the page: ids, places on the map, columns, texts.
        outliers: For the page: kinds of outliers.
        embedded: How many prompts and answers are on the page.
    """

    users: dict[str, Any]
    outliers: list[dict[str, Any]]
    embedded: int


def people(rows: Rows, texts: int, *, private: bool) -> People:
    """Everything that a page says of users.

    Args:
        rows: The users.
        texts: At most so many prompts and answers.
        private: Leave out prompts, answers, reasons and ids.

    Returns:
        The users.

    Raises:
        StoreCorruptError: A row is not what was written.
    """
    count, known = len(rows), rows.known
    facts = _Facts(count)
    for at, found in rows.texts(np.arange(count)):
        facts.add(at, found.answer, found.facts)
    plane = project(rows.vectors(known), len(known), rows.shape[-1])
    kept = kinds(rows.status, known, plane.norms, facts.digests, facts.reasons, facts.refusals)
    chosen = _chosen(rows, kept, min(texts, count)) if facts.any and not private else np.empty(0, np.int64)
    shown: dict[str, dict[str, Any]] = {}
    for at, found in rows.texts(chosen):
        shown[str(at)] = {
            "prompt": cut(found.prompt),
            "answer": cut(found.answer),
            "history": history(found.facts),
            "reason": cut(facts.reasons[at]),
        }
    users = {
        "total": rows.total,
        "ids": None if private else [str(name) for name in rows.ids],
        "count": count,
        "x": _placed(count, known, plane.points[:, 0]),
        "y": _placed(count, known, plane.points[:, 1]),
        "share": [round(value, 4) for value in plane.share],
        "layers": rows.shape[0] if len(rows.shape) > 1 else 1,
        "columns": facts.columns(rows, known, plane.norms),
        "texts": shown,
        "stored": facts.any,
        "longest": LONGEST,
    }
    return People(users, [_named(kind, count, shown, private=private) for kind in kept], len(shown))


def cut(text: str) -> str:
    """A text of at most `LONGEST` characters, and how many are left out."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {len(text) - LONGEST:,} characters more"


class _Facts:
    """What is kept of each user's texts, while they are read."""

    def __init__(self, count: int) -> None:
        self.any = False
        self.shown, self.total = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.category, self.scenario, self.reasons = [""] * count, [""] * count, [""] * count
        self.digests, self.refusals = [b""] * count, list[int]()

    def add(self, at: int, answer: str, facts: dict[str, Any]) -> None:
        self.any = True
        short = said(facts)
        self.shown[at], self.total[at] = short.shown, short.total
        self.category[at], self.scenario[at], self.reasons[at] = short.category, short.scenario, short.reason
        if answer.strip():
            self.digests[at] = hashlib.blake2b(answer.encode(), digest_size=16).digest()
            if is_refusal(answer):
                self.refusals.append(at)

    def columns(
        self, rows: Rows, known: npt.NDArray[np.int64], norms: npt.NDArray[np.float64]
    ) -> list[dict[str, Any]]:
        """Columns that users are coloured and ordered by; those that say nothing are left out."""
        count = len(rows)
        found = [_labels("Status", [STATUSES[code] for code in rows.status.tolist()])]
        if any(self.category):
            found.insert(0, _labels("Top category", self.category))
        if any(self.scenario):
            found.append(_labels("Dominant scenario", self.scenario))
        norm = np.full(count, np.nan)
        norm[known] = norms
        found.append(_numbers("Vector norm", norm))
        if self.any:
            found.append(_numbers("Events shown", self.shown))
            if (self.total != self.shown).any():
                found.append(_numbers("Events in all", self.total))
        if rows.tokens.any():
            found.append(_numbers("Prompt tokens", rows.tokens[:, 0]))
            found.append(_numbers("Answer tokens", rows.tokens[:, 1]))
        if any(self.digests):
            often = Counter(self.digests[at] for at in known.tolist())
            times = np.array([often[digest] if digest else 0 for digest in self.digests], np.int64)
            found.append(_numbers("Times the answer occurs", times))
        return found


def _labels(name: str, values: Sequence[str]) -> dict[str, Any]:
    """A column of names: those that occur most first."""
    counts = Counter(value for value in values if value)
    labels = sorted(counts, key=lambda label: (-counts[label], label))[:_LABELS]
    code = {label: at for at, label in enumerate(labels)}
    return {
        "name": name,
        "kind": "names",
        "labels": [label[:_SHORT] for label in labels],
        "codes": [code.get(value, -1) for value in values],
        "others": len(counts) - len(labels),
    }


def _numbers(name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "kind": "numbers", "values": [number(value) for value in values.tolist()]}


def number(value: float) -> float | int | None:
    """A number in five figures, None for what is none."""
    if isinstance(value, int):
        return value
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _placed(
    count: int, known: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> list[float | int | None]:
    found: list[float | int | None] = [None] * count
    # A coordinate that is rounding differs from machine to machine, and a page should not.
    least = float(np.abs(values).max(initial=0.0)) * 1e-9
    for at, value in zip(known.tolist(), values.tolist(), strict=True):
        found[at] = number(value) if abs(value) > least else 0
    return found


def _chosen(rows: Rows, kept: Sequence[Kind], texts: int) -> npt.NDArray[np.int64]:
    """Whose texts a page holds: the examples of outliers, then users spread evenly."""
    examples = [at for kind in kept for at in [*kind.rows[:5], *(group[2] for group in kind.groups[:5])]]
    wanted = list(dict.fromkeys([*examples, *spread(len(rows), texts).tolist()]))[:texts]
    return np.array(sorted(wanted), np.int64)


def _named(kind: Kind, count: int, shown: dict[str, dict[str, Any]], *, private: bool) -> dict[str, Any]:
    """A kind for the page; its shared answers have their text where the page holds it anyway."""
    if private:
        return kind._replace(groups=[]).as_json(count)
    groups = []
    for text, often, at in kind.groups[:5]:
        said = shown[str(at)]["answer"] if kind.key == "repeated" and str(at) in shown else text
        groups.append((said[:_SHORT], often, at))
    return kind._replace(groups=groups).as_json(count)
