"""Leaks: a process that uses stores for ever keeps what it had after the first rounds.

Open files, mappings, threads and memory are counted, and the files in the store's folder. A leak of one of
them in each round would be as many as there are rounds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import threading
from pathlib import Path
from typing import NamedTuple

from benchmarks.durability import tiny
from msr_enhance.atomic import TEMPORARY
from msr_enhance.errors import MsrEnhanceError
from msr_enhance.store import sweep
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter

_KILOBYTES = 2048
"""Memory that may come and go; a kilobyte lost in each of a thousand rounds is half of it."""


class _Held(NamedTuple):
    """What a process has, and a folder."""

    files: int
    threads: int
    maps: int
    kilobytes: int
    entries: int
    temporary: int


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Use stores round after round.

    Args:
        folder: Where they are made.
        count: How many rounds are counted; up to 200 come before.
        seed: Not used: every round is the same.

    Returns:
        Figures.

    Raises:
        AssertionError: If something grew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [tiny.numbers(folder / "numbers"), tiny.words(folder / "words")]
    damaged = tiny.numbers(folder / "damaged")
    file = max(damaged.glob("vec-*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    before, sweep.GRACE = sweep.GRACE, -1.0  # type: ignore[misc]
    try:
        for _ in range(min(max(count // 2, 20), 200)):
            _round(paths, damaged)
        first = _held(folder)
        for _ in range(count):
            _round(paths, damaged)
        last = _held(folder)
    finally:
        sweep.GRACE = before  # type: ignore[misc]
    for name, old, new in zip(_Held._fields, first, last, strict=True):
        room = {"kilobytes": _KILOBYTES, "maps": 8}.get(name, 0)
        assert new <= old + room, f"{name}: {old} after the first rounds, {new} after {count} more"
    figures = {f"{name}_more": new - old for name, old, new in zip(_Held._fields, first, last, strict=True)}
    return {"rounds": count, "files_open": last.files, "threads": last.threads, **figures}


def _round(paths: list[Path], damaged: Path) -> None:
    """Open, read and leave each store; write to the first; be refused by a damaged one."""
    for path in paths:
        store = KnowledgeStore.load(path, verify=True)
        for level in store.levels:
            ids = store.ids(level)
            store.vectors(level, ids)
            store.record(level, ids[0])
            with contextlib.suppress(MsrEnhanceError):
                store.vectors(level, ["nobody"])
        pickle.loads(pickle.dumps(store)).newest()
    with contextlib.suppress(MsrEnhanceError):
        KnowledgeStore.load(damaged)
        raise AssertionError("a damaged store was opened")
    with tiny.few(), StoreWriter.open(paths[0], tiny.PROVENANCE) as writer:
        with contextlib.suppress(MsrEnhanceError):
            StoreWriter.open(paths[0], tiny.PROVENANCE)  # somebody else has it
        writer.append("user", [tiny.row(1_000)])
        with contextlib.suppress(MsrEnhanceError):
            writer.append("user", [tiny.row(1_000)])
        writer.drop("user", [1_000])


def _held(folder: Path) -> _Held:
    gc.collect()
    entries = [each.name for path in folder.iterdir() for each in path.iterdir()]
    return _Held(
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(Path("/proc/self/maps").read_text().splitlines()),
        _private_kilobytes(),
        len(entries),
        sum(name.startswith(TEMPORARY) for name in entries),
    )


def _private_kilobytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
