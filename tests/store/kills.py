"""A program that kills writers with SIGKILL and looks at what they left: `kills.py FOLDER WHAT NUMBER`.

It forks its victims, so that a kill costs milliseconds, and keeps what the store should hold outside of
them. It prints one JSON object, and ends with a traceback where a promise is broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from msr_enhance.errors import StoreError
from msr_enhance.store import seal, sweep
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.merge import join
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(identity={"model": "tiny"}, window={})
Step = tuple[str, list[Any]]


def row(name: int, text: str = "") -> Record:
    vector = np.full(3, name + 1, np.float32)
    return Record(name, "ok", f"prompt of {name}", text or f"answer {name}", {}, 1, 1, vector)


def held(path: Path) -> dict[Any, str]:
    """What a reader sees: every file is verified, and every row read."""
    store = KnowledgeStore.load(path)
    if "user" not in store.levels:
        return {}
    ids = store.ids("user")
    assert (store.vectors("user", ids)[:, 0] == np.array(ids) + 1).all()
    return {name: store.text("user", name) for name in ids}


def files(path: Path) -> tuple[Any, dict[str, bytes]]:
    """Shard list and file set of the newest version."""
    manifest = latest_manifest(path)[0]
    return manifest.shards, {file.name: (path / file.name).read_bytes() for file in manifest.files()}


def victim(work: Callable[[int], None]) -> tuple[int, int]:
    """Run work in a process of its own, which writes a byte to a pipe for whatever it acknowledges."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        code = 1
        try:
            work(writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return child, reader


def ended(child: int, reader: int) -> tuple[bool, bytes]:
    """Whether the victim was killed, and what it had acknowledged."""
    _, status = os.waitpid(child, 0)
    acknowledged = b""
    while piece := os.read(reader, 1 << 16):
        acknowledged += piece
    os.close(reader)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the victim failed by itself"
    return os.WIFSIGNALED(status), acknowledged


def plan(folder: Path, draw: random.Random, length: int) -> tuple[list[Step], list[dict[Any, str]]]:
    """Random steps, and what the store holds after each."""
    steps: list[Step] = []
    states: list[dict[Any, str]] = [{}]
    top = 0
    for number in range(length):
        state = dict(states[-1])
        kind = draw.choices(["append", "drop", "again", "adopt"], [6, 2, 2, 1])[0]
        if kind == "append" or len(state) < 5:
            given: list[Any] = [row(top + place) for place in range(draw.choice([1, 2, 5, 13]))]
            kind, top = "append", top + len(given)
        elif kind == "drop":
            given = draw.sample(list(state), draw.randint(1, 4))
        elif kind == "again":
            given = [row(name, f"again {number}") for name in range(top) if name not in state][:3]
            kind = "append"
        else:
            given = [folder / f"other-{number}"]
            other = StoreWriter.open(given[0], PROVENANCE)
            rows = [row(top + place) for place in range(draw.choice([2, 13]))]
            top += len(rows)
            for one in rows:
                other.append("user", [one])
            state |= {one.id: one.text for one in rows}
        if kind == "append":
            state |= {one.id: one.text for one in given}
        elif kind == "drop":
            state = {name: text for name, text in state.items() if name not in given}
        if given:
            steps.append((kind, given))
            states.append(state)
    return steps, states


def take(writer: StoreWriter, step: Step) -> None:
    kind, given = step
    if kind == "append":
        writer.append("user", given)
    elif kind == "drop":
        writer.drop("user", given)
    else:
        writer.adopt(given)


def at_random(folder: Path, seed: int) -> dict[str, int]:
    """Kill runs at random moments, 40 times in all."""
    kills = runs = 0
    while kills < 40:
        (folder / str(runs)).mkdir()
        kills += one_run(folder / str(runs), 100 * seed + runs)
        runs += 1
    return {"kills": kills, "runs": runs}


def one_run(folder: Path, seed: int) -> int:
    """Kill a run at random moments; nothing acknowledged is lost, and it ends like one without kills."""
    draw = random.Random(seed)
    steps, states = plan(folder, draw, 40)
    whole, path = folder / "whole", folder / "killed"
    writer = StoreWriter.open(whole, PROVENANCE)
    started = time.perf_counter()
    for step in steps:
        take(writer, step)
    pace = (time.perf_counter() - started) / len(steps)
    done = kills = 0
    while done < len(steps):

        def work(pipe: int, start: int = done) -> None:
            writer = StoreWriter.open(path, PROVENANCE)
            for step in steps[start:]:
                take(writer, step)
                os.write(pipe, b".")

        child, reader = victim(work)
        time.sleep(pace + draw.expovariate(1 / (2 * pace)))
        os.kill(child, signal.SIGKILL)
        killed, acknowledged = ended(child, reader)
        kills += killed
        if not path.exists() or not list(path.glob("manifest-*")):
            assert not acknowledged
            continue
        seen = held(path)
        least = done + len(acknowledged)
        possible = [place for place in range(least, min(least + 2, len(states))) if states[place] == seen]
        assert possible, f"{len(acknowledged)} acknowledged after {done}, and the store has {sorted(seen)}"
        done = possible[0]
    assert files(path) == files(whole)
    return kills


def at_calls(folder: Path, stride: int) -> dict[str, int]:
    """Kill a commit of each kind before every `stride`-th call to the file system: it leaves old or new."""
    base = folder / "base"
    writer = StoreWriter.open(base, PROVENANCE)
    for name in range(10):
        writer.append("user", [row(name)])
    writer.drop("user", [1, 8])
    parts = []
    for number in (1, 2):
        parts.append(folder / f"part-{number}")
        part = StoreWriter.open(parts[-1], PROVENANCE)
        for name in range(100 * number, 100 * number + 5):
            part.append("user", [row(name)])
        part.drop("user", [100 * number + 4])

    def adding(path: Path) -> None:
        StoreWriter.open(path, PROVENANCE).append("user", [row(50), row(51)])

    def dropping(path: Path) -> None:
        StoreWriter.open(path, PROVENANCE).drop("user", [2, 3])

    def merging(path: Path) -> None:
        join(parts, path)

    kills = 0
    for kind, start in ((adding, base), (dropping, base), (merging, base), (merging, None)):
        whole = folder / f"{kind.__name__}-{bool(start)}"
        if start:
            shutil.copytree(start, whole)
        old = held(start) if start else {}
        kind(whole)
        new = held(whole)
        assert old != new
        for number in range(0, 10_000, stride):
            path = folder / "victim"
            shutil.rmtree(path, ignore_errors=True)
            if start:
                shutil.copytree(start, path)

            def work(pipe: int, number: int = number, path: Path = path, kind: Any = kind) -> None:
                die_at(number)
                kind(path)
                os.write(pipe, b".")

            killed, acknowledged = ended(*victim(work))
            if not killed:
                assert acknowledged
                break
            kills += 1
            there = path.exists() and list(path.glob("manifest-*"))
            seen = held(path) if there else {}
            assert seen in (old, new), f"{kind.__name__} killed at call {number}: {seen}"
            if seen == old or kind is merging:  # a merge that had succeeded may be made again too
                kind(path)
            assert held(path) == new
            assert files(path) == files(whole)
        assert number > 10
    return {"kills": kills}


def die_at(number: int) -> None:
    """Kill this process at its nth call; a write is left half done."""
    calls = 0

    def counted(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > number:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    for name in ("open", "write", "fsync", "close", "rename", "link", "unlink", "utime", "mkdir"):
        setattr(os, name, counted(name, getattr(os, name)))


def writers(folder: Path, seed: int) -> dict[str, int]:
    """Four writers without a lock: every acknowledged row is there, and losers are told."""
    path, count, each = folder / "shared", 4, 12
    StoreWriter.open(path, PROVENANCE)

    def work(pipe: int, first: int) -> None:
        draw = random.Random(seed + first)
        writer = StoreWriter.open(path, PROVENANCE)
        for name in range(first, first + each):
            while True:
                try:
                    writer.append("user", [row(name)])
                    break
                except StoreError as error:
                    if "another writer" not in str(error):
                        raise
                    os.write(pipe, b"x")
                    time.sleep(draw.random() * 0.03)
                    writer = StoreWriter.open(path, PROVENANCE)
                    if name in writer.done("user"):
                        raise AssertionError("told that nothing was added, and it was") from error
            os.write(pipe, b".")
            time.sleep(draw.random() * 0.02)

    children = [victim(lambda pipe, first=100 * n: work(pipe, first)) for n in range(count)]
    told = b"".join(ended(*child)[1] for child in children)
    expected = {name for n in range(count) for name in range(100 * n, 100 * n + each)}
    assert held(path).keys() == expected
    assert told.count(b".") == count * each
    return {"rows": len(expected), "conflicts": told.count(b"x")}


if __name__ == "__main__":
    place, what, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    seal.RUN, seal.FULL = 4, 40  # type: ignore[misc]  # a run is short, so that sealing is hit often
    if what != "writers":
        sweep.GRACE = -1.0  # type: ignore[misc]  # there is one writer, and no late reader
    with contextlib.redirect_stdout(sys.stderr):
        found = {"at_random": at_random, "at_calls": at_calls, "writers": writers}[what](place, number)
    json.dump(found, sys.stdout)
