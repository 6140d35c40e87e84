"""The `show` command."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from msr_enhance.cli.output import emit, show
from msr_enhance.errors import StoreError, UnknownIdError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.record import Record


def run(path: Path, *, user: str | None, scenario: str | None, as_json: bool) -> None:
    """Show a store, or one record of it."""
    store = KnowledgeStore.load(path)
    if user is not None and scenario is not None:
        raise StoreError("--user and --scenario were both given; write one of them.")
    if user is not None:
        _record(store.record("user", _as_id(store, user)), as_json)
    elif scenario is not None:
        _record(store.record("scenario", scenario), as_json)
    else:
        _overview(store, as_json)


def _as_id(store: KnowledgeStore, text: str) -> int | str:
    """The id as the store types it."""
    ids = store.ids("user")
    if not ids or isinstance(ids[0], str):
        return text
    try:
        return int(text)
    except ValueError as error:
        raise UnknownIdError(
            f"The store's user ids are whole numbers (first: {ids[:3]}); seen {text!r}."
        ) from error


def _record(record: Record, as_json: bool) -> None:
    data: dict[str, Any] = {
        "id": record.id,
        "status": record.status,
        "facts": record.facts,
        "prompt": record.prompt,
        "text": record.text,
        "prompt_tokens": record.prompt_tokens,
        "answer_tokens": record.answer_tokens,
        "norm": ((record.vector.astype(float) ** 2).sum(axis=-1) ** 0.5).tolist(),
    }
    if as_json:
        emit({**data, "vector": record.vector.tolist()})
        return
    norms = ", ".join(f"{norm:.3f}" for norm in np.atleast_1d(data["norm"]))
    show(f"id: {record.id}   status: {record.status}   vector: {_numbers(record.vector.shape)}, norm {norms}")
    for name, value in record.facts.items():
        show(f"{name}: {value}")
    show(f"\nprompt ({record.prompt_tokens} tokens):\n{record.prompt or '(none)'}")
    show(f"\nanswer ({record.answer_tokens} tokens):\n{record.text or '(none)'}")


def _numbers(shape: tuple[int, ...]) -> str:
    """``4 numbers``, or ``3 layers of 4 numbers``."""
    layers = f"{shape[0]} layers of " if len(shape) > 1 else ""
    return f"{layers}{shape[-1]} numbers"


def _overview(store: KnowledgeStore, as_json: bool) -> None:
    levels: dict[str, dict[str, Any]] = {
        level: {
            "rows": len(store.ids(level)),
            "dim": store.dim(level),
            "shape": list(store.shape(level)),
            "status": dict(Counter(store.statuses(level))),
        }
        for level in store.levels
    }
    made = store.provenance
    if as_json:
        emit(
            {
                "store": str(store.path.resolve()),
                "version": store.version,
                "fingerprint": store.fingerprint,
                "levels": levels,
                "identity": made.identity,
                "window": made.window,
                "facts": made.facts,
            }
        )
        return
    show(f"store: {store.path}   version {store.version}   {store.fingerprint[:12]}")
    for level, facts in levels.items():
        said = ", ".join(f"{count:,} {status}" for status, count in facts["status"].items())
        show(f"{level}: {facts['rows']:,} rows ({said}), vectors of {_numbers(facts['shape'])}")
    llm = made.identity.get("llm")
    for name, value in llm.items() if isinstance(llm, dict) else [("llm", llm)]:
        show(f"{name}: {value}")
    show(f"history: {made.identity.get('history')} most recent positives per scenario")
    window = made.window
    cutoffs = window.get("cutoffs")
    cut = f"before {cutoffs}" if cutoffs else f"with {window.get('rows')} rows named by their digest"
    show(f"window: protocol={window.get('protocol')}, split={window.get('split')}, prompts end {cut}")
    show(f"split: {made.facts.get('split')}")
