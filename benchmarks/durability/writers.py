"""Several writers of one store: what each was told is there is there, and the slower one is told so.

Two and four processes add rows of their own to one store, once with a lock that works and once on a mount
where `flock` does nothing. A writer that comes second is refused in less than a second; with the lock it is
told who holds the store, without one that its batch was not added. A lock goes away with its process.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from pathlib import Path

from benchmarks.durability.oracle import PROVENANCE, held, opened, row, small
from benchmarks.durability.victims import Victim, all_ended, ended, victim
from msr_enhance.errors import StoreError, StoreLockedError
from msr_enhance.store.writer import StoreWriter

EACH = 10
ADDED, LOCKED, CONFLICT = b".", b"l", b"x"


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Make `count` rounds of two and four writers, with and without a lock."""
    figures: dict[str, int | float] = {"rounds": count, "rows": 0, "locked_out": 0, "conflicts": 0}
    with small(grace=600.0):
        folder.mkdir(exist_ok=True)
        figures["slowest_refusal_ms"] = round(1000 * _one_holds(folder / "held"), 1)
        for number in range(count):
            for writers in (2, 4):
                for lock in (True, False):
                    path = folder / f"{number}-{writers}-{lock}"
                    try:
                        said = _round(path, writers, lock, seed * 1_000_003 + number)
                    except AssertionError as error:
                        what = f"{writers} writers, lock {'works' if lock else 'does nothing'}"
                        raise AssertionError(f"seed {seed}, round {number}, {what}: {error}") from error
                    figures["rows"] += said.count(ADDED)
                    figures["locked_out"] += said.count(LOCKED)
                    figures["conflicts"] += said.count(CONFLICT)
    assert figures["locked_out"], "no writer ever met the lock"
    assert figures["conflicts"], "no two writers ever met without a lock"
    return figures


def _one_holds(path: Path) -> float:
    """Seconds until a second writer is refused; after the first one is killed, it is not."""

    def hold(pipe: int) -> None:
        with opened(path) as writer:
            writer.append("user", [row(0)])
            os.write(pipe, ADDED)
            time.sleep(600)

    child = victim(hold)
    assert os.read(child.pipe, 1) == ADDED
    slowest = 0.0
    for _ in range(5):
        started = time.perf_counter()
        said = _refusal(path)
        slowest = max(slowest, time.perf_counter() - started)
        assert str(child.pid) in said, f"the holder {child.pid} is not named: {said}"
    assert held(path) == {0: "answer 0"}, "a reader needs no lock"
    os.kill(child.pid, signal.SIGKILL)
    ended(child)
    with opened(path) as writer:
        writer.append("user", [row(1)])
    assert slowest < 1, f"the refusal took {slowest:.2f} s"
    return slowest


def _refusal(path: Path) -> str:
    try:
        StoreWriter.open(path, PROVENANCE)
    except StoreLockedError as error:
        return str(error)
    raise AssertionError("a second writer was let in")


def _round(path: Path, writers: int, lock: bool, seed: int) -> bytes:
    with opened(path):
        pass
    children: list[Victim] = []
    for number in range(writers):

        def work(pipe: int, number: int = number) -> None:
            if not lock:
                fcntl.flock = lambda descriptor, what: None  # type: ignore[assignment]
            _add(path, pipe, 100 * number, random.Random(seed + number))

        children.append(victim(work))
    said = b"".join(all_ended(children))
    names = [name for number in range(writers) for name in range(100 * number, 100 * number + EACH)]
    seen = held(path) or {}
    assert seen.keys() == set(names), f"lost: {sorted(set(names) - seen.keys())}"
    assert said.count(ADDED) == len(names)
    assert not (lock and CONFLICT in said), "two writers were in at once, though the lock works"
    assert lock or LOCKED not in said, "there was no lock to meet"
    return said


def _add(path: Path, pipe: int, first: int, draw: random.Random) -> None:
    """Add rows one by one; refused, wait and begin anew."""
    names = list(range(first, first + EACH))
    while names:
        started = time.perf_counter()
        try:
            with opened(path) as writer:
                there = writer.done("user")
                assert there.isdisjoint(names), "told that nothing was added, and it was"
                for _ in range(min(3, len(names))):
                    writer.append("user", [row(names[0])])
                    os.write(pipe, ADDED)
                    del names[0]
                    time.sleep(draw.random() * 0.005)
        except StoreLockedError:
            assert time.perf_counter() - started < 1, "refused too late"
            os.write(pipe, LOCKED)
        except StoreError as error:
            if "another writer" not in str(error):
                raise
            os.write(pipe, CONFLICT)
        time.sleep(draw.random() * 0.02)
