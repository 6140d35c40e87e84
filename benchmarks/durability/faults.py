"""Every call to the file system refused once, and for good: the store is as before or as after, never less.

Of each kind of work the n-th call fails with EIO, ENOSPC or EACCES, once or from there on; or a write takes
half of what it was given, and the next one as well or ENOSPC. Then the disk is well again. Only errors of
the library come out; a reader sees the rows of before or of after; the same writer goes on or refuses; a
new one makes the change if it is still to be made; and the folder ends as if nothing had failed. Files
that are open stay none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.durability.calls import READS, WRITES, between
from benchmarks.durability.oracle import (
    State,
    Step,
    carry_out,
    compact,
    ending,
    held,
    opened,
    row,
    same,
    settle,
    small,
    state_of,
    take,
)
from msr_enhance.errors import MsrEnhanceError
from msr_enhance.store.knowledge import KnowledgeStore

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
SHORT, SHORT_THEN_FULL = -1, -2  # a write that takes half; the next one takes half too, or nothing


class Work(NamedTuple):
    """Something a store is asked to do.

    Attributes:
        name: What.
        step: The change; None for work that changes nothing.
        base: The store it begins with; None for none.
        opening: Whether opening the writer is part of it.
    """

    name: str
    step: Step | None
    base: Path | None
    opening: bool = False


class Trial(NamedTuple):
    """One fault: which work, at which call, which error, and whether it stays."""

    work: Work
    number: int
    error: int
    stays: bool


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Make each fault there is, or `count` of them by lot."""
    with small(full=8):
        works = _works(folder)
        calls = {f"{work.name}_calls": _calls(folder / "count", work)[0] for work in works}
        assert calls["seal_calls"] > calls["append_calls"], "nothing was sealed"
        ends = {work.name: _end(folder / "whole", work) for work in works}
        trials = [trial for work in works for trial in _trials(folder / "count", work)]
        drawn = random.Random(seed).sample(trials, min(count, len(trials)))
        figures: dict[str, int | float] = {"faults": len(drawn), "of": len(trials), "raised": 0}
        for trial in drawn:
            where = f"{trial.work.name}, call {trial.number}, " + (
                errno.errorcode.get(trial.error, "short write") + (", for good" if trial.stays else ", once")
            )
            try:
                figures["raised"] += _tried(folder / "tried", trial, *ends[trial.work.name])
            except Exception as error:
                raise AssertionError(f"seed {seed}: {where}: {type(error).__name__}: {error}") from error
    return figures | calls


def _works(folder: Path) -> list[Work]:
    folder.mkdir(exist_ok=True)
    rows = [Step("append", [row(name)]) for name in range(6)]
    carry_out(folder / "small", rows[:2])
    carry_out(folder / "ready", [*rows, Step("drop", [1])])  # the next entry has a run sealed
    carry_out(folder / "other", [Step("append", [row(100)]), Step("append", [row(101), row(102)])])
    carry_out(folder / "other", [Step("drop", [101])])
    shutil.copytree(folder / "ready", folder / "untidy")
    (folder / "untidy" / ".tmp-0123456789abcdef").write_bytes(b"of an ended run")
    (folder / "untidy" / f"vec-{'0' * 32}.safetensors").write_bytes(b"of an ended run")
    more, base = Step("append", [row(50), row(51)]), folder / "small"
    works = [
        Work("create", Step("append", [row(50)]), None, opening=True),
        Work("append", more, base),
        Work("seal", more, folder / "ready"),
        Work("drop", Step("drop", [0]), base),
        Work("adopt", Step("adopt", [folder / "other"]), base),
        Work("recover", more, folder / "untidy", opening=True),
        Work("read", None, folder / "ready"),
    ]
    return works + ([Work("compact", Step("compact", []), folder / "ready", opening=True)] if compact else [])


def _end(path: Path, work: Work) -> tuple[State | None, State | None, dict[str, Any]]:
    """What work begins and ends with when nothing fails."""
    _begin(path, work)
    old = held(path)
    if work.step:
        carry_out(path, [work.step])
    return old, held(path), _settled(path)


def _trials(path: Path, work: Work) -> list[Trial]:
    calls, writes = _calls(path, work)
    plain = [
        Trial(work, number, error, stays)
        for number in range(1, calls + 1)
        for error in ERRORS
        for stays in (False, True)
    ]
    short = [(SHORT, False), (SHORT, True), (SHORT_THEN_FULL, True)]
    return plain + [Trial(work, number, *way) for number in range(1, writes + 1) for way in short]


def _calls(path: Path, work: Work) -> tuple[int, int]:
    """How many calls work makes when nothing fails, and how many of them write."""
    fault = Fault(0, 0, False)
    _begin(path, work)
    _do(path, work, fault)
    assert fault.calls > 3
    return fault.calls, fault.writes


def _begin(path: Path, work: Work) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if work.base:
        shutil.copytree(work.base, path)


class Fault:
    """A disk that refuses the n-th call, or the n-th write where writes are to be short."""

    def __init__(self, number: int, error: int, stays: bool) -> None:
        self.calls = self.writes = 0
        self._number, self._error, self._stays = number, error, stays

    def call(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], words: dict[str, Any]) -> Any:
        """Make a call, or refuse it."""
        self.calls += 1
        self.writes += name == "write"
        now = self.calls if self._error > 0 else self.writes
        due = self._number > 0 and (now == self._number or (self._stays and now > self._number))
        if not due or (self._error < 0 and name != "write"):
            return real(*args, **words)
        if self._error == SHORT or (self._error == SHORT_THEN_FULL and now == self._number):
            return real(args[0], args[1][: max(1, len(args[1]) // 2)])
        if name == "close":  # the descriptor is gone all the same
            real(*args, **words)
        error = self._error if self._error > 0 else errno.ENOSPC
        raise OSError(error, os.strerror(error))


def _do(path: Path, work: Work, fault: Fault) -> None:
    """Do the work on a disk with a fault; a writer that was opened before tries again on a sound one."""
    if work.step is None or work.opening:
        with between(fault.call, WRITES + READS):
            if work.step:
                carry_out(path, [work.step])
            else:
                state_of(KnowledgeStore.load(path, verify=True))
        return
    with opened(path) as writer:
        try:
            with between(fault.call, WRITES + READS):
                take(writer, work.step)
        except MsrEnhanceError:
            with contextlib.suppress(MsrEnhanceError):
                take(writer, work.step)
            raise


def _tried(path: Path, trial: Trial, old: State | None, new: State | None, end: dict[str, Any]) -> bool:
    """Whether an error came out."""
    work = trial.work
    _begin(path, work)
    files, raised = os.listdir("/proc/self/fd"), False
    try:
        _do(path, work, Fault(trial.number, trial.error, trial.stays))
    except MsrEnhanceError:
        raised = True
    assert os.listdir("/proc/self/fd") == files, "a file stayed open"
    seen = held(path)
    if raised:
        assert seen in (old, new) or (old is None and seen == {}), f"{seen} is neither {old} nor {new}"
    else:
        assert seen == new, f"{seen} was acknowledged, not {new}"
    if work.step and (seen != new or old == new):
        carry_out(path, [work.step])
    assert held(path) == new, "the same work on a sound disk ends otherwise"
    same(_settled(path), end)
    return raised


def _settled(path: Path) -> dict[str, Any]:
    """The folder once two more rows were added and writers have swept it."""
    carry_out(path, [Step("append", [row(900)]), Step("append", [row(901)])])
    settle(path)
    return ending(path)
