# ruff: noqa: D102 - the name of a rule says what it does
"""A machine that does anything to a store in any order, and a dictionary that says what it should hold.

Rows are appended, dropped, written again and refused; stores are adopted, merged, copied, compacted and
forgotten; runs are killed before any call to the file system; files that nobody asked for appear; readers of
any age read on.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from benchmarks.durability import tiny
from benchmarks.durability.kept import Kept, Model
from msr_enhance.errors import StoreError
from msr_enhance.store.care.compact import compact
from msr_enhance.store.care.forget import forget
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.merge import merge
from msr_enhance.store.numbers import DTYPES
from msr_enhance.store.record import LEVELS, Level, Record
from msr_enhance.store.versions import highest_version
from msr_enhance.store.writer import StoreWriter

_STEPS = 30
_MOST = 40  # rows of a level; with more, looking at them all takes too long
_DIES = st.one_of(st.none(), st.none(), st.integers(0, 40), st.integers(0, 90))
"""Before which call the process dies, None or a number that is never reached for not at all."""


class _Reader(NamedTuple):
    store: KnowledgeStore
    model: Model


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Run machines.

    Args:
        folder: Where their stores lie.
        count: How many machines.
        seed: Of what they do.

    Returns:
        Figures.

    Raises:
        AssertionError: If a store differs from its dictionary; has the shortest steps that lead there.
    """
    folder.mkdir(parents=True, exist_ok=True)

    class Machine(StoreMachine):
        place = folder
        done: ClassVar[Counter[str]] = Counter()

    how = settings(
        max_examples=count,
        stateful_step_count=_STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # making a failure shorter takes minutes, and its steps are printed
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(with_seed(seed)(Machine), settings=how)
    except Exception as error:
        steps = "\n".join(getattr(error, "__notes__", []))
        raise AssertionError(f"{error!r} after\n{steps}") from error
    return dict(sorted(Machine.done.items()))


class StoreMachine(Kept):
    """Anything, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[_Reader] = []

    @initialize(dtype=st.sampled_from(DTYPES), grace=st.sampled_from([-1.0, -1.0, 600.0]))
    def created(self, dtype: Any, grace: float) -> None:
        self.begin(dtype, grace)

    @rule(level=st.sampled_from(LEVELS), rows=st.sampled_from([1, 1, 2, 3, 8]), dies=_DIES)
    def append(self, level: Level, rows: int, dies: int | None) -> None:
        if len(self.model[level]) > _MOST:
            rows = 1
        self.appended(level, [self.new(level) for _ in range(rows)], dies)

    @precondition(lambda self: any(self.dropped.values()))
    @rule(rows=st.integers(1, 3), dies=_DIES)
    def again(self, rows: int, dies: int | None) -> None:
        level = next(level for level in LEVELS if self.dropped[level])
        names = list(self.dropped[level])[:rows]
        self.appended(level, [self.row(name) for name in names], dies)

    @precondition(lambda self: any(self.model.values()))
    @rule(draw=st.randoms(use_true_random=False), share=st.sampled_from([0.1, 0.3, 1.0]), dies=_DIES)
    def drop(self, draw: Any, share: float, dies: int | None) -> None:
        level = draw.choice([level for level in LEVELS if self.model[level]])
        names = draw.sample(list(self.model[level]), max(1, int(share * len(self.model[level]))))
        after = self._without(level, names)
        self.change("drop", lambda: self.writer().drop(level, names), after, dies)

    @rule(rows=st.integers(1, 8), merged=st.booleans(), dies=_DIES)
    def adopt(self, rows: int, merged: bool, dies: int | None) -> None:
        path = Path(tempfile.mkdtemp(dir=self.folder))
        brought = {level: [self.new(level) for _ in range(rows)] for level in LEVELS[: 1 + rows % 2]}
        with StoreWriter.open(path, tiny.PROVENANCE, self.dtype) as other:
            for level, records in brought.items():
                other.append(level, records)
        after = {
            level: held | {row.id: tiny.plain(row) for row in brought.get(level, ())}
            for level, held in self.model.items()
        }
        if merged:
            self.let_go()
            self.change("merge", lambda: merge([path], self.path), after, dies)
        else:
            self.change("adopt", lambda: self.writer().adopt([path]), after, dies)

    @precondition(lambda self: any(self.model.values()))
    @rule(draw=st.randoms(use_true_random=False), dies=_DIES)
    def forget(self, draw: Any, dies: int | None) -> None:
        level = draw.choice([level for level in LEVELS if self.model[level]])
        names = draw.sample(list(self.model[level]), 1)
        after = self._without(level, names)
        self.let_go()
        self.change("forget", lambda: forget(self.path, {level: names}), after, dies)

    @rule(dies=_DIES)
    def compact(self, dies: int | None) -> None:
        self.let_go()
        self.change("compact", lambda: compact(self.path), self.model, dies)

    @rule(dies=_DIES)
    def close(self, dies: int | None) -> None:
        self.change("close", lambda: self.writer().close(), self.model, dies)
        self.let_go()
        self.open()

    @rule(how=st.integers(0, 7))
    def refused(self, how: int) -> None:
        level: Level = "user"
        there = next(iter(self.model[level]), None)
        good = self.altered(self.new(level), status="ok")
        bad: list[Record] = [
            self.altered(good, id="seven"),
            self.altered(good, id=2**63),
            self.altered(good, vector=np.zeros((2, 2, 2), np.float32)),
            self.altered(good, vector=np.array([np.nan, 1, 1], np.float32)),
            self.altered(good, prompt="\ud800"),
            self.altered(good, facts={"x": float("inf")}),
            good if there is None else self.altered(good, id=there),
        ]
        version = highest_version(self.path)
        kind = level if how != 7 else "nobody"
        records = [self.new(level), bad[how % 7], *([bad[how % 7]] if there is None else [])]
        if how == 0 and there is None:
            records = [self.altered(good, id=1.5)]
        try:
            self.writer().append(kind, records)  # type: ignore[arg-type]
        except StoreError:
            self.done["refused"] += 1
        else:
            raise AssertionError("rows that no store takes were taken")
        try:
            self.writer().drop(level, [good.id])
        except StoreError:
            pass
        else:
            raise AssertionError("a row was dropped that is not there")
        assert highest_version(self.path) == version, "something was committed"

    @rule()
    def reopen(self) -> None:
        self.let_go()
        self.open()

    @rule(
        name=st.sampled_from(
            [".tmp-0123", "vec-" + "0" * 32 + ".safetensors", "notes.txt", "manifest-x.json"]
        )
    )
    def strange_file(self, name: str) -> None:
        (self.path / name).write_bytes(b"not ours")
        if name[0] in "nm":
            self.strange.append(self.path / name)

    @rule()
    def reader(self) -> None:
        self._readers = [*self._readers[-2:], _Reader(KnowledgeStore.load(self.path), self.copied())]

    @precondition(lambda self: self._readers)
    @rule(which=st.integers(0, 2), through=st.sampled_from(["itself", "pickle", "save", "newest"]))
    def read(self, which: int, through: str) -> None:
        store, model = self._readers[which % len(self._readers)]
        if through == "newest":
            return self.same(store.newest(), self.model)
        try:
            if through == "pickle":
                store = pickle.loads(pickle.dumps(store))
            if through == "save":
                target = self.folder / "copy"
                shutil.rmtree(target, ignore_errors=True)
                store.save(target)
                store = KnowledgeStore.load(target, verify=True)
            self.same(store, model)
            self.done["old_reads"] += 1
        except StoreError:
            newer = highest_version(self.path) > store.version
            assert newer, "a reader of the newest version was refused"
            self.done["old_reads_refused"] += 1

    def _without(self, level: Level, names: list[int | str]) -> Model:
        return {**self.model, level: {k: v for k, v in self.model[level].items() if k not in names}}
