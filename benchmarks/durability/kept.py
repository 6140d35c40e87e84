"""A store and the dictionary that says what it should hold: what the machine's rules are made of."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from hypothesis.stateful import RuleBasedStateMachine

from benchmarks.durability import tiny
from benchmarks.durability.calls import WRITES, between
from msr_enhance.store import sweep
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.numbers import Dtype
from msr_enhance.store.record import LEVELS, STATUSES, Level, Record
from msr_enhance.store.writer import StoreWriter

Model = dict[Level, dict[int | str, tuple[Any, ...]]]
"""Of each level, all that each row holds."""


class Killed(BaseException):
    """The process is gone."""


class Kept(RuleBasedStateMachine):
    """One store, and what it should hold.

    Attributes:
        place: Where stores are made.
        done: What was done how often, by all machines.
    """

    place: ClassVar[Path]
    done: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(tiny.few(6))
        self.folder = Path(tempfile.mkdtemp(dir=self.place))
        self._stack.callback(shutil.rmtree, self.folder)
        self.path = self.folder / "store"
        self.model: Model = {"user": {}, "scenario": {}}
        self.dropped: Model = {"user": {}, "scenario": {}}
        self.strange: list[Path] = []
        self._writer: StoreWriter | None = None
        self._top = 0
        self.done["machines"] += 1

    def begin(self, dtype: Dtype, grace: float) -> None:
        """Make the store."""
        before, sweep.GRACE = sweep.GRACE, grace  # type: ignore[misc]
        self._stack.callback(setattr, sweep, "GRACE", before)
        self.dtype = dtype
        self.open()

    def teardown(self) -> None:
        """Look at the end."""
        with self._stack:
            self.let_go()
            if self.path.exists():
                self.settled(self.model)
                assert all(path.exists() for path in self.strange), "a file of somebody else is gone"

    def appended(self, level: Level, records: list[Record], dies: int | None) -> None:
        """Append rows, or die on the way."""
        after = {**self.model, level: self.model[level] | {row.id: tiny.plain(row) for row in records}}
        self.change("append", lambda: self.writer().append(level, records), after, dies)

    def change(self, name: str, make: Callable[[], object], after: Model, dies: int | None) -> None:
        """Make a change, or die before the n-th call; afterwards the store is as before or as after."""
        writer = self._writer
        try:
            with _dying(dies):
                make()
        except Killed:
            self.done["kills"] += 1
            self.let_go()
            self.settled(self.model, after)
        else:
            self.done[name] += 1
            self._became(after)
            if not writer:
                self.settled(after)
        if not self._writer:
            self.open()
        held = {level: self.writer().done(level) for level in LEVELS}
        assert held == {level: set(rows) for level, rows in self.model.items()}, "the writer has other ids"

    def _became(self, after: Model) -> None:
        for level in LEVELS:
            self.dropped[level] |= self.model[level]
            self.dropped[level] = {k: v for k, v in self.dropped[level].items() if k not in after[level]}
        self.model = after

    def settled(self, *models: Model) -> None:
        """The store is one of these, every byte verified; the dictionary is that one from now on."""
        store = KnowledgeStore.load(self.path, verify=True)
        for model in models:
            if all(set(model[lv]) == (set(store.ids(lv)) if lv in store.levels else set()) for lv in LEVELS):
                self.same(store, model)
                return self._became(model)
        raise AssertionError("the store is neither as before nor as after")

    def same(self, store: KnowledgeStore, model: Model) -> None:
        """The store is what a dictionary says."""
        assert set(store.levels) == {level for level in LEVELS if model[level]}
        for level in store.levels:
            rows = model[level]
            ids = store.ids(level)
            assert len(ids) == store.count(level) == len(rows)
            assert set(ids) == set(rows)
            assert store.statuses(level) == [rows[name][1] for name in ids]
            vectors = store.vectors(level, ids)
            assert [vector.tobytes() for vector in vectors] == [rows[name][-1] for name in ids]
            for name in {*ids[:1], *ids[len(ids) // 2 :: 9], *ids[-1:]}:
                assert tiny.plain(store.record(level, name)) == rows[name]
            other: Any = -1 if level == "user" else "nobody"
            assert not store.vectors(level, [other], unknown="zero").any()
            gone = [name for name in self.dropped[level] if name not in rows]
            assert not store.vectors(level, gone, unknown="zero").any(), "a dropped row is found"
        self.done["reads"] += 1

    def copied(self) -> Model:
        """The dictionary as it is now."""
        return {level: dict(rows) for level, rows in self.model.items()}

    def open(self) -> None:
        """Open the store for writing."""
        self._writer = StoreWriter.open(self.path, tiny.PROVENANCE, self.dtype)

    def let_go(self) -> None:
        """Give the store back as a process does that ends: the index stays as it is."""
        if self._writer:
            self._writer.release()
            self._writer = None

    def writer(self) -> StoreWriter:
        """The open writer."""
        assert self._writer
        return self._writer

    def new(self, level: Level) -> Record:
        """A row of an id that was never there."""
        self._top += 1
        return self.row(self._top if level == "user" else f"s{self._top}")

    def row(self, name: int | str) -> Record:
        """A row of an id, with content that no other has."""
        self._top += 1
        status = STATUSES[self._top % 9 % 4]
        known = status in ("ok", "truncated")
        numbers = [self._top % 200, zlib.crc32(str(name).encode()) % 251, 7] if known else [0, 0, 0]
        text = f"{self._top}"
        return Record(
            name, status, f"p{text}", text * 3, {"n": self._top}, 1, 2, np.array(numbers, np.float32)
        )

    @staticmethod
    def altered(record: Record, **values: Any) -> Record:
        """A row with some fields changed."""
        return Record(**{**vars(record), **values})


@contextlib.contextmanager
def _dying(calls: int | None) -> Iterator[None]:
    """Die before the n-th call that changes something."""
    if calls is None:
        yield
        return
    left = [calls]

    def count(name: str, real: Callable[..., Any], args: tuple[Any, ...], words: dict[str, Any]) -> Any:
        left[0] -= 1
        if left[0] < 0 and name != "close":  # the kernel closes the files of the dead
            raise Killed
        return real(*args, **words)

    # What the lock says of its holder is left out: this process lives on, and would hold the lock for good.
    with between(count, tuple(name for name in WRITES if name not in ("ftruncate", "pwrite"))):
        yield
