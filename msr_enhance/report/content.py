"""Content: everything that a page says, as one JSON object."""

from __future__ import annotations

from typing import Any

import numpy as np

from msr_enhance.report.overview import ARMS, everything, levels, lines
from msr_enhance.report.people import cut, number, people
from msr_enhance.report.rows import Rows
from msr_enhance.report.similarity import cosines
from msr_enhance.report.source import Source
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.run import Run, RunRow

SCENARIOS = 40
"""Scenarios that the heat map has room for."""
EXPLANATIONS = 60
"""Scores taken apart that a page holds."""


def content(source: Source, *, users: int, points: int, texts: bool) -> dict[str, Any]:
    """Everything that a page says.

    Args:
        source: The store and the run.
        users: At most so many prompts and answers.
        points: At most so many users.
        texts: False leaves out prompts, answers and ids.

    Returns:
        Plain JSON, without NaN.

    Raises:
        StoreCorruptError: A row is not what was written.
    """
    store, run = source.store, source.run
    comparison = run.comparison if run else None
    found: dict[str, Any] = {
        "name": source.name,
        "kind": "store" if run is None else "run",
        "missing": list(source.missing),
        "texts": texts,
        "embedded": 0,
        "explained": _explained(run, set()) if texts else 0,
        "store": None,
        "comparison": comparison.model_dump(mode="json") if comparison else None,
        "arms": ARMS,
        "curves": run.curves.model_dump() if run else None,
        "explanations": _explanations(run, texts=texts),
        "scenarios": None,
        "users": None,
        "outliers": [],
    }
    if store is None:
        return found
    found["store"] = {
        "levels": levels(store),
        "lines": lines(store, comparison),
        "everything": everything(store),
    }
    if "scenario" in store.levels:
        found["scenarios"] = _scenarios(store, texts=texts)
    if "user" in store.levels:
        made = people(Rows(store, "user", points), users if texts else 0, private=not texts)
        found |= {"users": made.users, "outliers": made.outliers, "embedded": made.embedded}
        if texts:
            found["explained"] = _explained(run, {made.users["ids"][int(at)] for at in made.users["texts"]})
    return found


def _scenarios(store: KnowledgeStore, *, texts: bool) -> dict[str, Any]:
    """Scenario vectors compared, and what the model said of each scenario."""
    rows = Rows(store, "scenario", SCENARIOS)
    said = dict(rows.texts(np.arange(len(rows)))) if texts else {}
    known = rows.known
    blocks = [np.empty((0, rows.shape[-1]), np.float32), *rows.vectors(known)()]
    vectors = np.concatenate(blocks)
    statuses = store.statuses("scenario")
    by_id = dict(zip(store.ids("scenario"), statuses, strict=True))
    return {
        "total": rows.total,
        "names": [str(rows.ids[at]) for at in known.tolist()],
        "raw": cosines(vectors),
        "centred": cosines(vectors, centred=True) if len(known) > 2 else None,
        "norms": [number(float(norm)) for norm in np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))],
        "rows": [
            {
                "name": str(name),
                "status": by_id[name],
                "tokens": rows.tokens[at].tolist(),
                "prompt": cut(said[at].prompt) if at in said else None,
                "answer": cut(said[at].answer) if at in said else None,
            }
            for at, name in enumerate(rows.ids)
        ],
    }


def _explanations(run: Run | None, *, texts: bool) -> dict[str, Any] | None:
    if run is None or not run.explanations:
        return None
    some = [_explanation(one, texts=texts) for one in run.explanations[:EXPLANATIONS]]
    return {"total": len(run.explanations), "rows": some}


def _explained(run: Run | None, there: set[str]) -> int:
    """Users whose answer is in an explanation and nowhere else on the page."""
    rows = run.explanations[:EXPLANATIONS] if run else []
    said = {str(row.user) for row in rows for part in row.parts if part.name == "user" and part.text}
    return len(said - there)


def _explanation(one: RunRow, *, texts: bool) -> dict[str, Any]:
    found: dict[str, Any] = one.model_dump(mode="json")
    found |= {"user": str(one.user), "item": str(one.item)}
    for part in found["parts"]:
        part["key"] = None if part["key"] is None else str(part["key"])
        part["text"] = None if part["text"] is None else cut(part["text"])
    if not texts:
        found |= {"user": None, "item": None}
        for part in found["parts"]:
            part |= {"key": None, "text": None}
    return found
