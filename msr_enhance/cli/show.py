"""The `show` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msr_enhance.cli.output import emit, show
from msr_enhance.errors import StoreError, UnknownIdError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.summary import summary
from msr_enhance.store.keyed import read_key
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.record import Level, Record


def run(path: Path, *, user: str | None, scenario: str | None, key: Path | None, as_json: bool) -> None:
    """Show a store, or one record of it."""
    if user is not None and scenario is not None:
        raise StoreError("--user and --scenario were both given; write one of them.")
    store = KnowledgeStore.load(path, key=read_key(key) if key else None)
    if user is not None:
        _record(store.record("user", as_id(store, "user", user, key is not None)), as_json)
    elif scenario is not None:
        _record(store.record("scenario", as_id(store, "scenario", scenario, key is not None)), as_json)
    else:
        _overview(store, as_json)


def as_id(store: KnowledgeStore, level: Level, text: str, with_key: bool) -> int | str:
    """An id as the store types it; of keyed ids, the id itself where the key was given, else its hash."""
    manifest = Version.of(store).manifest
    keyed = manifest.keyed.get(level)
    kind = keyed.id_type if keyed and with_key else manifest.id_type.get(level)
    if kind != "int":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise UnknownIdError(f"The {level} ids of this store are whole numbers; seen {text!r}.") from error


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
    version = Version.of(store)
    manifest, made = version.manifest, store.provenance
    levels: dict[str, dict[str, Any]] = {}
    for level in store.levels:
        keyed = manifest.keyed.get(level)
        levels[level] = {
            **summary(version, level)._asdict(),
            "dim": store.dim(level),
            "shape": list(store.shape(level)),
            "id_type": manifest.id_type[level],
            "keyed": bool(keyed),
        }
    files = {file.name: file.bytes for file in manifest.files()}
    size, transforms = sum(files.values()), made.identity.get("transforms", [])
    if as_json:
        emit(
            {
                "store": str(store.path.resolve()),
                "version": store.version,
                "fingerprint": store.fingerprint,
                "dtype": store.dtype,
                "files": len(files),
                "bytes": size,
                "transforms": transforms,
                "levels": levels,
                "identity": made.identity,
                "window": made.window,
                "facts": made.facts,
            }
        )
        return
    show(f"store: {store.path}   version {store.version}   {store.fingerprint[:12]}")
    for name, facts in levels.items():
        _level(name, facts)
    show(f"on disk: {size:,} bytes in {len(files):,} files, vectors as {store.dtype}")
    for step in transforms:
        said = ", ".join(f"{name} {value}" for name, value in step.items() if name != "kind")
        show(f"changed: {step.get('kind')}{f' ({said})' if said else ''}")
    llm = made.identity.get("llm")
    for name, value in llm.items() if isinstance(llm, dict) else [("llm", llm)]:
        show(f"{name}: {value}")
    show(f"history: {made.identity.get('history')} most recent positives per scenario")
    window = made.window
    cutoffs = window.get("cutoffs")
    cut = f"before {cutoffs}" if cutoffs else f"with {window.get('rows')} rows named by their digest"
    show(f"window: protocol={window.get('protocol')}, split={window.get('split')}, prompts end {cut}")
    show(f"split: {made.facts.get('split')}")


def _level(level: str, facts: dict[str, Any]) -> None:
    said = ", ".join(f"{count:,} {status}" for status, count in facts["status"].items())
    show(f"{level}: {facts['rows']:,} rows ({said}), vectors of {_numbers(facts['shape'])}")
    more = [f"{facts['shards']:,} shards"]
    more += [f"{facts['dead']:,} dropped rows still on disk"] if facts["dead"] else []
    more += [f"{facts['without_texts']:,} rows without texts"] if facts["without_texts"] else []
    more += [f"{facts['indexed']:,} ids in the index"] if facts["indexed"] is not None else ["no index yet"]
    more += ["ids are keyed hashes"] if facts["keyed"] else []
    show(f"  {', '.join(more)}")
