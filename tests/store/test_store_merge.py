"""Stores of several workers become one: every row once, in one commit, whatever happens meanwhile."""

import errno
import os

import numpy as np
import pytest
from looking import contents, entries, rows

from msr_enhance.errors import StoreError
from msr_enhance.store import seal
from msr_enhance.store.entry import Shard
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.merge import join, merge
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def test_all_rows_of_all_stores(part, tmp_path, provenance):
    parts = [part(0, range(0, 5)), part(1, range(5, 9)), part(2, [])]
    before = [contents(path) for path in parts]
    store = merge(parts, tmp_path / "out")
    assert rows(store.path) == rows(parts[0]) | rows(parts[1])
    assert rows(store.path, "scenario") == rows(parts[0], "scenario")
    assert store.provenance.identity == provenance.identity
    assert [contents(path) for path in parts] == before
    StoreWriter.open(store.path, provenance)
    again = merge(list(map(str, parts)), str(tmp_path / "again"))
    assert {n: d for n, d in contents(again.path).items() if "manifest" not in n} == {
        n: d for n, d in contents(store.path).items() if "manifest" not in n
    }


def test_files_are_shared_where_there_are_hard_links_and_copied_elsewhere(part, tmp_path, monkeypatch):
    parts = [part(0, [1]), part(1, [2])]
    shared = merge(parts, tmp_path / "shared")
    assert all(path.stat().st_nlink == 2 for path in shared.path.glob("*.safetensors"))
    real = os.link

    def across_disks(source, target, **more):
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, "another disk")
        return real(source, target, **more)

    monkeypatch.setattr(os, "link", across_disks)
    copied = merge(parts, tmp_path / "copied")
    assert all(path.stat().st_nlink == 1 for path in copied.path.glob("*.safetensors"))
    assert rows(copied.path) == rows(shared.path)


def test_the_sources_may_go(part, tmp_path):
    parts = [part(0, [1]), part(1, [2])]
    store = merge(parts, tmp_path / "out")
    for path in parts:
        for file in path.iterdir():
            file.unlink()
    assert rows(store.path).keys() == {1, 2}


def test_a_merge_may_be_made_again_and_grow(part, tmp_path):
    parts = [part(0, [1, 2]), part(1, [3])]
    first = merge(parts, tmp_path / "out")
    assert merge(parts, tmp_path / "out").fingerprint == first.fingerprint
    more = merge([*parts, part(2, [4, 5])], tmp_path / "out")
    assert rows(more.path).keys() == {1, 2, 3, 4, 5}
    assert more.provenance == first.provenance
    assert more.version == first.version + 1
    assert merge([first.path], first.path).fingerprint == more.fingerprint


def test_a_killed_merge_left_an_empty_store(part, tmp_path, provenance):
    parts = [part(0, [1, 2]), part(1, [3])]
    StoreWriter.open(tmp_path / "out", provenance)
    assert rows(merge(parts, tmp_path / "out").path).keys() == {1, 2, 3}


def test_dropped_rows_are_not_adopted(part, tmp_path, provenance, record):
    parts = [part(0, range(5)), part(1, range(5, 9))]
    writer = StoreWriter.open(parts[1], provenance)
    writer.drop("user", [6, 7])
    writer.append("user", [record(7, text="again")])
    writer.append("user", [record(20, text="never"), record(21)])
    writer.drop("user", [20])
    store = merge(parts, tmp_path / "out")
    assert rows(store.path) == rows(parts[0]) | rows(parts[1])
    assert all(isinstance(entry, Shard) for entry in latest_manifest(store.path)[0].shards)
    assert not any(b"never" in data for data in contents(store.path).values())


def test_a_row_dropped_in_one_store_may_come_from_another(part, tmp_path, provenance, record):
    """The older row of the same id must not come back, nor the tombstone cover the new one."""
    parts = [part(0, range(5)), part(1, [])]
    StoreWriter.open(parts[0], provenance).drop("user", [3])
    StoreWriter.open(parts[1], provenance).append("user", [record(3, text="moved")])
    assert rows(merge(parts, tmp_path / "out").path)[3]["text"] == "moved"
    writer = StoreWriter.open(parts[0], provenance)
    writer.adopt([KnowledgeStore.load(parts[1])])
    assert rows(parts[0])[3]["text"] == "moved"
    assert writer.done("user") == {0, 1, 2, 3, 4}


def test_a_loaded_store_is_adopted_at_the_version_it_shows(part, tmp_path, provenance, record):
    source = part(1, [1, 2])
    loaded = KnowledgeStore.load(source)
    StoreWriter.open(source, provenance).append("user", [record(3)])
    writer = StoreWriter.open(tmp_path / "out", provenance)
    writer.adopt([loaded])
    assert rows(writer.path).keys() == {1, 2}
    writer.append("user", [record(3)])
    assert rows(writer.path).keys() == {1, 2, 3}


@pytest.mark.parametrize("seed", range(4))
def test_many_small_shards_are_sealed_on_the_way(part, tmp_path, provenance, monkeypatch, seed):
    monkeypatch.setattr(seal, "RUN", 4)
    monkeypatch.setattr(seal, "FULL", 24)
    draw = np.random.default_rng(seed)
    parts, start = [], 0
    for number in range(7):
        count = int(draw.integers(0, 40))
        parts.append(part(number, range(start, start + count)))
        if count > 3:
            StoreWriter.open(parts[-1], provenance).drop("user", [start, start + 2])
        start += count
    store = merge(parts, tmp_path / "out")
    expected = {}
    for path in parts:
        expected |= rows(path) if "user" in KnowledgeStore.load(path).levels else {}
    assert rows(store.path) == expected
    assert len(entries(store.path)) <= len(expected) // 12 + 3 * 4
    assert StoreWriter.open(store.path, provenance).done("user") == expected.keys()


def test_rests_of_many_stores_are_sealed_like_batches(part, tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "RUN", 4)
    parts = [part(number, range(10 * number, 10 * number + 7)) for number in range(3)]
    store = merge(parts, tmp_path / "out")
    assert [entry.rows for entry in entries(store.path)] == [7, 7, 7]


def test_large_shards_do_not_keep_small_ones_apart(tmp_path, provenance, record, monkeypatch):
    monkeypatch.setattr(seal, "RUN", 4)
    monkeypatch.setattr(seal, "FULL", 24)
    parts = []
    for start in (0, 100):
        writer = StoreWriter.open(tmp_path / str(start), provenance)
        for first, size in ((0, 13), (13, 1), (14, 1)):
            writer.append("user", [record(start + first + number) for number in range(size)])
        parts.append(writer.path)
    store = merge(parts, tmp_path / "out")
    assert [entry.rows for entry in entries(store.path)] == [13, 13, 4]


def test_joining_reads_no_vectors(part, tmp_path, monkeypatch):
    """A store of 25 million users does not fit in memory."""

    def never(*args, **more):
        raise AssertionError("vectors were read")

    parts = [part(0, [1]), part(1, [2])]
    for module in ("seal", "level"):
        monkeypatch.setattr(f"msr_enhance.store.{module}.read_vectors", never)
    writer = join(parts, tmp_path / "out")
    assert writer.statuses() == {"user": {"ok": 2}, "scenario": {"ok": 1}}
    monkeypatch.undo()
    assert rows(tmp_path / "out").keys() == {1, 2}


def test_a_writer_goes_on_after_adopting(part, tmp_path, provenance, record):
    writer = StoreWriter.open(tmp_path / "out", provenance)
    writer.append("user", [record(100)])
    writer.adopt([part(0, [1, 2]), part(1, [3])])
    assert writer.done("user") == {100, 1, 2, 3}
    with pytest.raises(StoreError, match="already: 2"):
        writer.append("user", [record(2)])
    writer.drop("user", [2])
    writer.append("user", [record(2, text="new")])
    assert rows(writer.path)[2]["text"] == "new"


def test_without_texts(part, tmp_path):
    source = part(1, [1, 2])
    KnowledgeStore.load(source).save(tmp_path / "bare", texts=False)
    store = merge([tmp_path / "bare", part(0, [3])], tmp_path / "out")
    assert store.text("user", 3)
    with pytest.raises(StoreError, match="saved without texts"):
        store.text("user", 1)


def test_identities_with_the_same_rows_but_other_facts_are_one(part, tmp_path, provenance):
    parts = [part(0, [1]), part(1, [2])]
    assert KnowledgeStore.load(parts[0]).provenance.facts != KnowledgeStore.load(parts[1]).provenance.facts
    merged = merge(parts, tmp_path / "out").provenance
    assert merged == Provenance(identity=provenance.identity, window=provenance.window, facts={"part": 0})
