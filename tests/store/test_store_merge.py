"""Stores of several workers become one: every row once, in one commit, whatever happens meanwhile."""

import errno
import os

import numpy as np
import pytest

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIdentityError
from msr_enhance.store import seal
from msr_enhance.store.entry import Shard
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance, latest_manifest
from msr_enhance.store.merge import join, merge
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def part(tmp_path, provenance, record):
    """Make a store `part-<n>` of some users; part 0 has the scenarios."""

    def make(number, ids, **changes):
        given = provenance.model_copy(update={"facts": {"part": number}, **changes})
        writer = StoreWriter.open(tmp_path / f"part-{number}", given)
        for name in ids:
            writer.append("user", [record(name)])
        if number == 0:
            writer.append("scenario", [record("Toys", dim=5)])
        return writer.path

    return make


def rows(path, level="user"):
    store = KnowledgeStore.load(path)
    seen = {name: store.record(level, name) for name in store.ids(level)}
    vectors = store.vectors(level, list(seen))
    np.testing.assert_array_equal(vectors, [row.vector for row in seen.values()])
    return {name: {**vars(row), "vector": row.vector.tolist()} for name, row in seen.items()}


def contents(path):
    return {each.name: each.read_bytes() for each in path.iterdir()}


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
    entries = latest_manifest(store.path)[0].entries("user")
    assert len(entries) <= len(expected) // 12 + 3 * 4
    assert StoreWriter.open(store.path, provenance).done("user") == expected.keys()


def test_rests_of_many_stores_are_sealed_like_batches(part, tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "RUN", 4)
    parts = [part(number, range(10 * number, 10 * number + 7)) for number in range(3)]
    store = merge(parts, tmp_path / "out")
    assert [entry.rows for entry in latest_manifest(store.path)[0].entries("user")] == [7, 7, 7]


# What is refused


def test_an_id_in_two_stores_is_refused(part, tmp_path, provenance):
    parts = [part(0, range(20)), part(1, range(8, 30))]
    with pytest.raises(StoreError, match=r"12 ids of .*part-1 .*: user 8, .*user 17, …\..*no id in common"):
        merge(parts, tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()
    with pytest.raises(StoreError, match="2 ids"):
        merge([part(2, [50, 51]), part(3, [50, 51])], tmp_path / "other")


def test_a_store_that_grew_since_it_was_merged_is_refused(part, tmp_path, provenance, record):
    parts = [part(0, [1]), part(1, [2])]
    before = merge(parts, tmp_path / "out").fingerprint
    StoreWriter.open(parts[1], provenance).append("user", [record(3)])
    with pytest.raises(StoreError, match=r"1 ids of .*part-1.*: user 2\..*into a new folder"):
        merge(parts, tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").fingerprint == before
    assert rows(merge(parts, tmp_path / "new").path).keys() == {1, 2, 3}


def test_other_rows_for_the_same_ids_are_refused(part, tmp_path, provenance, record):
    source = part(1, [])
    writer = StoreWriter.open(source, provenance)
    writer.append("user", [record(1), record(2, "failed")])
    merge([source], tmp_path / "out")
    writer.drop("user", [2])
    writer.append("user", [record(2)])
    with pytest.raises(StoreError, match=r"other rows for 1 ids .*user 2 \(failed there, ok now\)"):
        merge([source], tmp_path / "out")


def test_stores_of_another_identity_or_window_are_refused_by_field(part, tmp_path):
    here = part(0, [1])
    for number, changes, says in (
        (1, {"identity": {"model": {"id": "large"}}}, r"identity\.model\.id: 'tiny' .*'large' now"),
        (2, {"window": {"protocol": "paper"}}, r"window\.protocol"),
    ):
        with pytest.raises(StoreIdentityError, match=says):
            merge([here, part(number, [2], **changes)], tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()
    assert rows(merge([tmp_path / "part-2"], tmp_path / "out").path).keys() == {2}, "it held nothing"


@pytest.mark.parametrize(
    ("dtype", "row", "says"),
    [
        ("float16", {}, r"dtype: float32 in .*float16 in .*part"),
        ("float32", {"dim": 4}, r"shape of user: \(3,\) in .*\(4,\) in"),
        ("float32", {"dim": (1, 3)}, r"shape of user: \(3,\) in .*\(1, 3\) in"),
        ("float32", {"name": "2"}, "id type of user: int in .*str in"),
    ],
)
def test_rows_of_another_kind_are_refused(part, tmp_path, provenance, record, dtype, row, says):
    writer = StoreWriter.open(tmp_path / "part-x", provenance, dtype)
    writer.append("user", [record(**{"name": 2, **row})])
    with pytest.raises(StoreError, match=says):
        merge([part(0, [1]), writer.path], tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()


@pytest.mark.parametrize("kind", ["vec", "txt"])
def test_a_damaged_source_is_refused(part, tmp_path, kind):
    parts = [part(0, [1]), part(1, [2])]
    path = next(parts[1].glob(f"{kind}-*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError):
        merge(parts, tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()


def test_no_source_and_no_store(part, tmp_path):
    with pytest.raises(StoreError, match="no store was given"):
        merge([], tmp_path / "out")
    with pytest.raises(StoreError, match="is not a folder"):
        merge([part(0, [1]), tmp_path / "gone"], tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        merge([tmp_path / "part-0"], tmp_path / "full")


def test_joining_reads_no_vectors(part, tmp_path, monkeypatch):
    """A store of 25 million users does not fit in memory."""

    def never(*args, **more):
        raise AssertionError("vectors were decoded")

    parts = [part(0, [1]), part(1, [2])]
    for module in ("seal", "knowledge"):
        monkeypatch.setattr(f"msr_enhance.store.{module}.decode_vectors", never)
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
