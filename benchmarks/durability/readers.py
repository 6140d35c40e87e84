"""Readers during writes: four of them verify in a loop while one process writes and compacts.

Before each commit the writer notes what the store will hold. A reader never sees an error, a version older
than one it saw, or rows that were not noted or come before those it saw. Its store still reads the same a
little later, when newer versions have replaced the files under it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from pathlib import Path

from benchmarks.durability.oracle import State, Step, compact, opened, row, small, state_of, take
from benchmarks.durability.victims import all_ended, victim
from msr_enhance.store.knowledge import KnowledgeStore

READERS = 4
GRACE = 5.0  # seconds, instead of ten minutes, so that files do go away under readers
LENGTH = 40


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Read for `count` seconds."""
    folder.mkdir(exist_ok=True)
    path, notes = folder / "store", folder / "notes"
    with small(grace=GRACE):
        with opened(path) as writer:
            writer.append("user", [row(0)])
        notes.write_text(f"{_digest({0: 'answer 0'})}\n")
        end = time.monotonic() + count
        children = [victim(lambda pipe: _read(path, notes, end, pipe)) for _ in range(READERS)]
        children.append(victim(lambda pipe: _write(path, notes, end, random.Random(seed), pipe)))
        try:
            *said, written = (json.loads(one) for one in all_ended(children))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    reads, versions = sum(one["reads"] for one in said), min(one["versions"] for one in said)
    assert versions > 5, "the readers saw hardly any version"
    return {"seconds": count, "reads": reads, "least_versions_seen": versions, **written}


def _write(path: Path, notes: Path, end: float, draw: random.Random, pipe: int) -> None:
    """Change the store until the time is over; compact between two writers."""
    commits = compactions = 0
    state, top = {0: "answer 0"}, 1
    with notes.open("a", buffering=1) as note:
        while time.monotonic() < end:
            with opened(path) as writer:
                for _ in range(LENGTH):
                    step, state, top = _next(state, top, draw)
                    note.write(f"{_digest(state)}\n")
                    take(writer, step)
                    commits += 1
            compact(path)
            compactions += 1
    os.write(pipe, json.dumps({"commits": commits, "compactions": compactions}).encode())


def _next(state: State, top: int, draw: random.Random) -> tuple[Step, State, int]:
    if len(state) > 100 or (len(state) > 5 and draw.random() < 0.25):
        gone = draw.sample(list(state), max(2, len(state) - 80))
        return Step("drop", gone), {n: text for n, text in state.items() if n not in gone}, top
    more = [row(top + n) for n in range(draw.choice([1, 3, 9]))]
    return Step("append", more), state | {one.id: one.text for one in more}, top + len(more)


def _read(path: Path, notes: Path, end: float, pipe: int) -> None:
    reads = newest = place = 0
    order: dict[str, int] = {}
    seen: set[int] = set()
    with notes.open() as lines:
        while time.monotonic() < end:
            store = KnowledgeStore.load(path, verify=True)
            found = _digest(state_of(store))
            order |= {line.strip(): len(order) + number for number, line in enumerate(lines)}
            assert found in order, f"version {store.version} holds rows that were never all there"
            assert store.version >= newest, f"version {store.version} after {newest}"
            assert order[found] >= place, f"version {store.version} holds rows of before {newest}"
            newest, place = store.version, order[found]
            if reads % 4 == 0:
                time.sleep(0.02)
                assert _digest(state_of(store)) == found, f"version {newest} changed while it was open"
            reads += 1
            seen.add(newest)
    os.write(pipe, json.dumps({"reads": reads, "versions": len(seen)}).encode())


def _digest(state: State) -> str:
    return hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
