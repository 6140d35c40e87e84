"""Power loss at every moment of appends, drops, sealing and adoption: acknowledged rows are there after it.

The calls of the real code are recorded. For each moment the states that a power cut may leave are made
(see ``disk.py``) and read by the real reader, every file verified and every row read; a store holds what
was acknowledged, or what the step in flight would have made. Some of the states are also opened for
writing, and the steps go on. The same is done with protocols that each break one promise (``broken.py``):
a simulator that lets one of them pass fails this proof.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from itertools import count as counting
from pathlib import Path

from benchmarks.durability.broken import PROTOCOLS, Log, is_temporary
from benchmarks.durability.calls import WRITES, between
from benchmarks.durability.disk import FOLDER, Disk, Files, Recorder
from benchmarks.durability.oracle import State, Step, carry_out, compact, held, opened, plan, row, small
from msr_enhance.errors import MsrEnhanceError

STEPS = 14
STORE = "store"
KINDS = {"append", "drop", "adopt"} | ({"compact"} if compact else set())
Known = dict[frozenset[tuple[str, bytes]], State | str | None]
"""What was read from a folder, or the error."""

WRITTEN_AGAIN = 10  # one in so many states is also opened for writing


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Record `count` histories and cut their power everywhere.

    The broken protocols are made of the first history; each is left at 25 times `count` bad states.
    """
    figures: dict[str, int | float] = {"histories": count, "cuts": 0, "states": 0, "bad": 0, "reopened": 0}
    with small(full=8):
        for number in range(count):
            place = folder / f"history-{number}"
            place.mkdir(parents=True)
            where = f"seed {seed}, history {number}"
            recorder, states = _history(place, random.Random(seed * 1_000_003 + number))
            known: Known = {}
            run = Cuts(place / "cut", recorder, states, seed, known)
            run.through(recorder.events)
            assert not run.bad, f"{where}: {len(run.bad)} of {run.states} states are bad: {run.bad[:3]}"
            assert run.now == _there(recorder.root), f"{where}: the log does not add up to what is there"
            figures["cuts"] += len(recorder.events)
            figures["states"] += run.states
            figures["reopened"] += run.reopened
            for protocol in PROTOCOLS if number == 0 else ():
                broken = Cuts(place / "cut", recorder, states, seed, known, most_bad=25 * count)
                broken.through(protocol(list(recorder.events)))
                name = protocol.__name__
                assert broken.bad, f"{where}: {name} was not caught in {broken.states} states"
                figures |= {f"{name}_states": broken.states, f"{name}_bad": len(broken.bad)}
            shutil.rmtree(place)
    return figures | {"broken_protocols": len(PROTOCOLS)}


def _history(place: Path, draw: random.Random) -> tuple[Recorder, list[State]]:
    """Make a new store, then random steps; some steps of each kind, and some that seal."""
    root = place / "disk"
    (root / "others").mkdir(parents=True)
    while True:
        steps, states = plan(root / "others", draw, STEPS, sizes=(1, 2), most=10)
        if {step.kind for step in steps} >= KINDS:
            break
    recorder, done = Recorder(root), counting(1)
    with between(recorder.call, WRITES):
        with opened(root / STORE):
            recorder.acknowledge(0)
        carry_out(root / STORE, steps, lambda: recorder.acknowledge(next(done)))
    assert any(event.kind == "gone" and "/vec-" in event.path for event in recorder.events), "nothing sealed"
    return recorder, states


class Cuts:
    """Cuts the power after each event of a log and looks at what is left.

    Attributes:
        states: How many different ones were looked at.
        bad: What was wrong with each that is wrong.
        reopened: How many were also written to.
        now: The disk after the last event.
    """

    def __init__(
        self,
        path: Path,
        recorder: Recorder,
        oracle: Sequence[State],
        seed: int,
        known: Known,
        most_bad: int | None = None,
    ) -> None:
        """Begin.

        Args:
            path: Where folders are made.
            recorder: What was there before the log.
            oracle: What the store holds after each step.
            seed: For what is looked at by lot.
            known: Folders that were read already.
            most_bad: End at so many bad states, and write into none.
        """
        self.states = self.reopened = 0
        self.bad: list[str] = []
        self.now: Files = {}
        self._known = known
        self._path, self._recorder, self._oracle, self._most_bad = path, recorder, oracle, most_bad
        self._draw = random.Random(seed)

    def through(self, log: Log) -> None:
        """Go through a log."""
        disk = Disk(self._recorder, lambda path: path.startswith(STORE) and not is_temporary(path))
        done = -1
        seen: set[tuple[int, frozenset[tuple[str, bytes]]]] = set()
        for number, event in enumerate(log):
            disk.happen(event)
            if event.kind == "acknowledge":
                done = event.file
            for files in disk.after_a_cut(self._draw):
                store = {name: data for name, data in files.items() if name.startswith(STORE)}
                key = done, frozenset(one for one in store.items() if not is_temporary(one[0]))
                if self._most_bad is not None and len(self.bad) >= self._most_bad:
                    return
                if key not in seen:
                    seen.add(key)
                    self._look(store, done, f"cut after event {number} ({event.kind} {event.path})")
        self.now = {path: data for path, data in disk.now().items() if not is_temporary(path)}

    def _look(self, store: Files, done: int, where: str) -> None:
        self.states += 1
        allowed = self._oracle[max(done, 0) : done + 2]
        left = self._read(store)
        if isinstance(left, str):
            self.bad.append(f"{where}: unreadable after {done} steps: {left}")
        elif left not in allowed and not (done < 0 and left is None):
            self.bad.append(f"{where}: {left} after {done} steps")
        elif self._most_bad is None and left is not None and self.states % WRITTEN_AGAIN == 0:
            self._go_on(store, left, where)

    def _read(self, store: Files) -> State | str | None:
        """What the reader makes of a folder, or its error; each folder is read once."""
        key = frozenset(one for one in store.items() if not is_temporary(one[0]))
        if key not in self._known:
            _make(self._path, store)
            try:
                self._known[key] = held(self._path / STORE)
            except (MsrEnhanceError, AssertionError) as error:
                self._known[key] = str(error)
        return self._known[key]

    def _go_on(self, store: Files, left: State, where: str) -> None:
        """Write more into what is left, as the next run would: the rest of the old one is in its way."""
        self.reopened += 1
        _make(self._path, store)
        more = [Step("append", [row(10_000 + number)]) for number in range(3)]
        try:
            carry_out(self._path / STORE, more)
            assert held(self._path / STORE) == left | {10_000 + n: f"answer {10_000 + n}" for n in range(3)}
        except (MsrEnhanceError, AssertionError) as error:
            self.bad.append(f"{where}: cannot be written to: {error}")


def _make(path: Path, store: Files) -> None:
    """Put a folder on the real disk."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name in sorted(store):
        if store[name] == FOLDER:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(store[name])


def _there(root: Path) -> Files:
    return {
        str(path.relative_to(root)): FOLDER if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
        if not is_temporary(str(path))
    }
