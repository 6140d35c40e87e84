"""What hostile reviewers found, one promise each."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import os
import signal
import threading
import time
from enum import Enum

import numpy as np
import pytest

from msr_enhance.errors import StoreError, StoreIOError, StoreLockedError, UnknownIdError
from msr_enhance.store import entry, seal, writer
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.merge import merge
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def of(**facts):
    return Provenance(identity={"model": "tiny"}, window={}, facts=facts)


def test_texts_full_of_braces_are_kept(tmp_path, record):
    with StoreWriter.open(tmp_path / "s", of(note="{}[],{" * 5000)) as made:
        made.append("user", [record(1)])
    assert KnowledgeStore.load(tmp_path / "s", verify=True).count("user") == 1


@pytest.mark.parametrize("facts", [{"many": [[i] for i in range(4000)]}, {"many": [1] * 60_000}])
def test_a_version_that_nobody_could_read_is_never_written(tmp_path, record, facts):
    with StoreWriter.open(tmp_path / "s", of()) as made:
        made.append("user", [record(1)])
    with (
        StoreWriter.open(tmp_path / "s", of(**facts)) as made,
        pytest.raises(StoreError, match="nobody could read"),
    ):
        made.append("user", [record(2)])
    assert KnowledgeStore.load(tmp_path / "s", verify=True).ids("user") == [1]
    with pytest.raises(StoreError, match="nobody could read"):
        StoreWriter.open(tmp_path / "new", of(**facts))
    assert not list((tmp_path / "new").glob("manifest-*"))


def test_stores_to_merge_may_come_from_a_generator(tmp_path, part, record):
    part(0, [1, 2]), part(1, [3])
    assert merge(tmp_path.glob("part-*"), tmp_path / "out").count("user") == 3
    with pytest.raises(StoreError, match="one store; write a list"):
        merge(str(tmp_path / "part-0"), tmp_path / "other")
    with StoreWriter.open(tmp_path / "more", latest_manifest(tmp_path / "part-0")[0].provenance) as made:
        made.adopt(path for path in tmp_path.glob("part-*"))
        assert len(made.done("user")) == 3


def test_threads_cannot_add_an_id_twice(tmp_path, record):
    with StoreWriter.open(tmp_path / "s", of()) as made:
        for base in range(0, 200, 10):
            told = []

            def add(name, base=base, told=told):
                try:
                    made.append("user", [record(base), record(base + name)])
                    told.append(name)
                except StoreError:
                    pass

            threads = [threading.Thread(target=add, args=(name,)) for name in (1, 2, 3)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            assert len(told) == 1
    assert KnowledgeStore.load(tmp_path / "s").count("user") == 40


@pytest.mark.parametrize("change", ["append", "drop"])
def test_a_writer_that_was_interrupted_after_its_commit_stops(tmp_path, record, monkeypatch, change):
    made = StoreWriter.open(tmp_path / "s", of())
    made.append("user", [record(1), record(2)])
    real = writer.commit

    def interrupted(*given):
        real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.append("user", [record(3)]) if change == "append" else made.drop("user", [1])
    monkeypatch.undo()
    with pytest.raises(StoreError, match="Open the store again"):
        made.append("user", [record(3)])
    made.close()
    with StoreWriter.open(tmp_path / "s", of()) as again:
        assert again.done("user") == ({1, 2, 3} if change == "append" else {2})


def test_a_disk_that_refuses_at_the_very_end_is_told_as_such(tmp_path, record, monkeypatch):
    made = StoreWriter.open(tmp_path / "s", of())
    calls, real = [], os.fsync

    def failing(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if calls[-1] == str(tmp_path / "s") and (tmp_path / "s" / "manifest-2.json").exists():
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StoreIOError, match="may count or not"):
        made.append("user", [record(1)])
    monkeypatch.undo()
    with pytest.raises(StoreError, match="Open the store again"):
        made.append("user", [record(2)])


@pytest.mark.parametrize("facts", [[1], None, "x", 5, {"a": {"b": [[]] * 1}}, "deep"])
def test_facts_that_would_not_read_back_are_refused(tmp_path, record, facts):
    deep = {}
    for _ in range(40):
        deep = {"a": deep}
    given = deep if facts == "deep" else facts
    with StoreWriter.open(tmp_path / "s", of()) as made:
        if isinstance(given, dict) and given is not deep:
            made.append("user", [record(1, facts=given)])
            assert KnowledgeStore.load(tmp_path / "s").record("user", 1).facts == given
        else:
            with pytest.raises(StoreError, match="facts"):
                made.append("user", [record(1, facts=given)])


@pytest.mark.parametrize(
    "ids",
    [
        *(b"A7", "alice", bytearray(b"A"), memoryview(b"A"), 5, None, np.array(5), datetime.date.today()),
        *(np.array([1, 2], "datetime64[ns]"), np.array([1], "timedelta64[ns]")),
    ],
    ids=range(10),
)
def test_what_would_be_taken_apart_into_other_ids_is_refused(folder, provenance, ids):
    store = KnowledgeStore.load(folder)
    for level in ("user", "scenario"):
        with pytest.raises(UnknownIdError, match="write a list of ids"):
            store.vectors(level, ids, unknown="zero")
    with StoreWriter.open(folder, provenance) as made, pytest.raises(StoreError):
        made.drop("user", ids)


def test_ids_may_come_as_whatever_holds_them(folder):
    pandas = pytest.importorskip("pandas")
    store, wanted = KnowledgeStore.load(folder), [7, -3, 1]
    right = store.vectors("user", wanted)
    for ids in (
        pandas.Series(wanted, index=[5, 6, 9]),
        iter(wanted),
        tuple(wanted),
        np.array(wanted, np.int16),
    ):
        assert np.array_equal(store.vectors("user", ids), right)
    with pytest.raises(UnknownIdError, match=r"ids are not in .*: 12"):
        store.vectors("user", pandas.Series([7, 12], index=[3, 4]))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": None},
        {"text": 5},
        {"prompt_tokens": None},
        {"answer_tokens": 1.5},
        {"vector": [[1], [1, 2]]},
        {"vector": ["a", "b", "c"]},
        {"vector": np.ones(3, complex)},
    ],
    ids=range(7),
)
def test_fields_of_another_type_are_refused(tmp_path, record, fields):
    with StoreWriter.open(tmp_path / "s", of()) as made, pytest.raises(StoreError):
        made.append("user", [record(1, **fields)])


def test_a_huge_number_and_an_enumeration_as_ids(tmp_path, record):
    class Kind(str, Enum):  # noqa: UP042  # a StrEnum is its text; this is not
        A = "a"

    with StoreWriter.open(tmp_path / "s", of()) as made:
        with pytest.raises(StoreError, match="cannot be an id"):
            made.append("user", [dataclasses.replace(record(1), id=10**5000)])
        made.append("scenario", [record("b"), record(Kind.A)])
    store = KnowledgeStore.load(tmp_path / "s")
    assert store.ids("scenario") == ["b", "a"]
    assert store.vectors("scenario", [Kind.A]).any()


def test_a_forked_child_may_look_up_while_threads_do(folder):
    store = KnowledgeStore.load(folder)
    store._counting.acquire()  # as a thread has it at the moment of the fork
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        store.vectors("user", [7])
        os._exit(0)
    store._counting.release()
    assert os.waitpid(child, 0)[1] == 0


def test_a_writer_that_was_forked_and_closed_lets_others_in(tmp_path, record):
    made = StoreWriter.open(tmp_path / "s", of())
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        with pytest.raises(StoreLockedError):
            StoreWriter.open(tmp_path / "s", of())
        made.close()
        StoreWriter.open(tmp_path / "s", of()).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert fcntl  # the lock is the kernel's


def test_a_store_that_was_replaced_is_seen_though_its_number_is_the_same(tmp_path, record):
    for name, text in (("a", "old"), ("b", "new")):
        with StoreWriter.open(tmp_path / name, of()) as made:
            made.append("user", [record(1, text=text)])
    (tmp_path / "current").symlink_to("a")
    store = KnowledgeStore.load(tmp_path / "current")
    assert store.newest() is store
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("b")
    assert store.newest().text("user", 1) == "new"


def test_many_rows_are_dropped_in_several_tombstones(tmp_path, record, monkeypatch):
    monkeypatch.setattr(entry, "MOST_ROWS", 4)
    monkeypatch.setattr(seal, "MOST_ROWS", 4)
    with StoreWriter.open(tmp_path / "s", of()) as made:
        made.append("user", [record(name) for name in range(20)])
        made.drop("user", range(0, 20, 2))
        assert sorted(made.done("user")) == list(range(1, 20, 2))
    store = KnowledgeStore.load(tmp_path / "s", verify=True)
    assert sorted(store.ids("user")) == list(range(1, 20, 2))
    assert sum(isinstance(one, entry.Tombstone) for one in store._manifest.shards) == 3


def test_what_the_caller_changes_later_does_not_change_the_store(tmp_path, record):
    made_of = of()
    with StoreWriter.open(tmp_path / "s", made_of) as made:
        made_of.identity["model"] = "other"
        made.append("user", [record(1)])
    assert KnowledgeStore.load(tmp_path / "s").provenance.identity == {"model": "tiny"}
