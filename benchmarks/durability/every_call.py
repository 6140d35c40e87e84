"""kill -9 before every single call to the file system of each kind of commit: it leaves old or new.

The call that dies is a write left half done, or has not begun. Afterwards the same command is run again,
and the folder is compared with one that was never interrupted.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.durability.calls import WRITES, between
from benchmarks.durability.oracle import Step, carry_out, compact, ending, held, row, same, settle, small
from benchmarks.durability.victims import ended, victim
from msr_enhance.store.merge import join


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Kill each kind of commit before every `count`-th call, beginning with call `seed` modulo `count`."""
    with small(full=8):
        base, parts = _stores(folder)
        kinds: dict[str, tuple[Path | None, Callable[[Path], object]]] = {
            "append": (base, lambda path: carry_out(path, [Step("append", [row(50), row(51)])])),
            "drop": (base, lambda path: carry_out(path, [Step("drop", [2, 3])])),
            "create": (None, lambda path: carry_out(path, [Step("append", [row(50)])])),
            "merge": (None, lambda path: join(parts, path)),
            "merge_into": (base, lambda path: join(parts, path)),
            "compact": (base, compact),
        }
        kills = {name: _every(folder / name, *kind, seed % count, count) for name, kind in kinds.items()}
    return {"kills": sum(kills.values()), **kills}


def _stores(folder: Path) -> tuple[Path, list[Path]]:
    """A store with sealed shards and tombstones, one append short of sealing; and two to merge into it."""
    rows = [Step("append", [row(name)]) for name in range(10)]
    carry_out(folder / "base", [*rows, Step("drop", [1, 8])])
    parts = [folder / "part-1", folder / "part-2"]
    for first, part in zip((100, 200), parts, strict=True):
        given = [Step("append", [row(name)]) for name in range(first, first + 5)]
        carry_out(part, [*given, Step("drop", [first + 4])])
    return folder / "base", parts


def _every(folder: Path, base: Path | None, commit: Callable[[Path], object], first: int, stride: int) -> int:
    whole, path = folder / "whole", folder / "killed"
    folder.mkdir()
    if base:
        shutil.copytree(base, whole)
    old = held(whole)
    commit(whole)
    new = held(whole)
    end = _settled(whole)
    kills, number = 0, first
    while True:
        shutil.rmtree(path, ignore_errors=True)
        if base:
            shutil.copytree(base, path)

        def work(pipe: int, number: int = number) -> None:
            with between(_dying_at(number), WRITES):
                commit(path)
            os.write(pipe, b".")

        killed, acknowledged = ended(victim(work))
        if not killed:
            assert acknowledged
            break
        seen, where = held(path), f"{folder.name} killed at call {number}"
        # A store without rows is where a new one begins; the same command goes on from there.
        assert seen in (old, new) or (base is None and seen == {}), f"{where}: {seen}"
        if seen != new or old == new:
            commit(path)
        assert held(path) == new, f"{where}: run again, it ends otherwise"
        same(_settled(path), end)
        kills, number = kills + 1, number + stride
    assert kills > 10 // stride, f"{folder.name}: only {kills} calls were seen"
    return kills


def _settled(path: Path) -> dict[str, Any]:
    settle(path)
    return ending(path)


def _dying_at(number: int) -> Callable[..., Any]:
    calls = 0

    def call(name: str, real: Callable[..., Any], args: tuple[Any, ...], words: dict[str, Any]) -> Any:
        nonlocal calls
        if calls == number:
            if name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return real(*args, **words)

    return call
