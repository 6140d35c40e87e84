"""Small batches: few shards whatever their size, and the same files however a run was cut."""

import os
import random

import numpy as np
import pytest
from looking import entries, named

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store import seal
from msr_enhance.store.entry import Shard
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def assert_holds(path, expected, level="user"):
    """The store holds exactly these records, in this order."""
    store = KnowledgeStore.load(path)
    if not expected:
        assert level not in store.levels
        return
    assert store.ids(level) == [record.id for record in expected]
    np.testing.assert_array_equal(store.vectors(level, store.ids(level)), [r.vector for r in expected])
    for record in expected:
        assert {**vars(store.record(level, record.id)), "vector": 0} == {**vars(record), "vector": 0}


def bound(rows, run, full):
    """More shards than this there never are: each full one has over half of `full` rows."""
    tiers = 1 + int(np.ceil(np.log(max(rows, 2)) / np.log(run)))
    return rows // (full // 2) + (run - 1) * tiers


@pytest.mark.parametrize("size", [1, 2, 5, 7, 13, 30])
def test_shards_stay_few_and_every_row_is_read(tmp_path, provenance, record, small, no_grace, size):
    writer = StoreWriter.open(tmp_path, provenance)
    rows = [record(number) for number in range(200)]
    for start in range(0, 200, size):
        writer.append("user", rows[start : start + size])
        found = entries(tmp_path)
        assert len(found) <= bound(start + size, 4, 24)
        assert all(entry.rows <= max(24, size) for entry in found)
    assert_holds(tmp_path, rows)
    left = {path.name for path in tmp_path.glob("*.safetensors")}
    assert len(left - named(tmp_path).keys()) <= 2 * bound(200, 4, 24), "what was replaced is removed"


@pytest.mark.parametrize(
    ("sizes", "shards"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([1, 1, 1, 1], [4]),
        ([4, 1, 1, 1], [7]),
        ([1] * 7, [4, 1, 1, 1]),
        ([1] * 16, [16]),
        ([2] * 11, [8, 8, 2, 2, 2]),
        ([2] * 12, [24]),
        ([12, 12], [24]),
        ([12, 11], [12, 11]),
        ([12, 11, 2], [23, 2]),
        ([1, 1, 13], [2, 13]),
        ([13, 1, 1, 13, 1], [13, 2, 13, 1]),
        ([24, 24, 1], [24, 24, 1]),
        ([100, 1, 1, 1, 1], [100, 4]),
    ],
)
def test_what_is_sealed_when(tmp_path, provenance, record, small, sizes, shards):
    """Runs of 4 become one; over 24 rows never lie together, and over 12 are left alone."""
    writer, start = StoreWriter.open(tmp_path, provenance), 0
    for size in sizes:
        writer.append("user", [record(number) for number in range(start, start + size)])
        start += size
    assert [entry.rows for entry in entries(tmp_path)] == shards
    assert_holds(tmp_path, [record(number) for number in range(start)])


@pytest.mark.slow
def test_five_thousand_single_rows(tmp_path, provenance, record, monkeypatch):
    """With the real sizes: 23 shards, and a manifest of kilobytes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    writer = StoreWriter.open(tmp_path, provenance)
    rows = [record(number) for number in range(5000)]
    most = 0
    for row in rows:
        writer.append("user", [row])
        most = max(most, len(writer._manifest.shards))
    assert most <= bound(5000, 64, 32_768)
    assert [entry.rows for entry in entries(tmp_path)] == [4096] + 14 * [64] + 8 * [1]
    assert max(path.stat().st_size for path in tmp_path.glob("manifest-*")) < 64 << 10
    assert_holds(tmp_path, rows)


def test_batches_of_a_model_become_full_shards(tmp_path, provenance, record, monkeypatch):
    monkeypatch.setattr(seal, "FULL", 512)
    writer = StoreWriter.open(tmp_path, provenance)
    rows = [record(number, dim=2) for number in range(8 * 70)]
    for start in range(0, len(rows), 8):
        writer.append("user", rows[start : start + 8])
    assert [entry.rows for entry in entries(tmp_path)] == [512] + 6 * [8]
    assert_holds(tmp_path, rows)


def play(path, provenance, record, seed, reopen):
    """Random appends, drops and appends of what was dropped; yields the records that should be there."""
    draw = random.Random(seed)
    writer, truth, known = StoreWriter.open(path, provenance), {}, 0
    for _ in range(60):
        if truth and draw.random() < 0.4:
            chosen = draw.sample(list(truth), draw.randint(1, min(len(truth), draw.choice([1, 3, 30]))))
            writer.drop("user", chosen)
            for name in chosen:
                del truth[name]
        else:
            count = draw.choice([1, 1, 2, 7, 14, 30])
            back = [name for name in range(known) if name not in truth and draw.random() < 0.2][:count]
            ids = [*back, *range(known, known + count - len(back))]
            known += count - len(back)
            rows = [
                record(name, draw.choice(["ok", "failed", "truncated"]), text=str(draw.random()))
                for name in ids
            ]
            writer.append("user", rows)
            truth.update(zip(ids, rows, strict=True))
        if reopen:
            writer.release()
            writer = StoreWriter.open(path, provenance)
            assert writer.done("user") == truth.keys()
        yield list(truth.values())


@pytest.mark.parametrize("seed", range(6))
def test_any_appends_and_drops_read_like_a_dictionary(tmp_path, provenance, record, small, no_grace, seed):
    for step, truth in enumerate(play(tmp_path, provenance, record, seed, reopen=False)):
        if step % 4 == 0:
            assert_holds(tmp_path, truth)
    assert_holds(tmp_path, truth)
    rows = sum(entry.rows for entry in entries(tmp_path) if isinstance(entry, Shard))
    assert len(entries(tmp_path)) <= 3 * bound(rows, 4, 24)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_resumed_at_every_step_makes_the_same_files(tmp_path, provenance, record, small, seed):
    for place, reopen in (("whole", False), ("cut", True)):
        for _ in play(tmp_path / place, provenance, record, seed, reopen):
            pass
    assert entries(tmp_path / "whole") == entries(tmp_path / "cut")
    assert named(tmp_path / "whole") == named(tmp_path / "cut")


def test_dropped_rows_and_their_tombstones_vanish(tmp_path, provenance, record, small, no_grace):
    writer = StoreWriter.open(tmp_path, provenance)
    writer.append("user", [record(1, text="the secret"), record(2)])
    writer.drop("user", [1])
    for number in range(3, 6):
        writer.append("user", [record(number)])
    for number in range(10, 14):  # so that what was replaced is no longer in the version before
        writer.append("user", [record(number)])
    assert all(isinstance(entry, Shard) for entry in entries(tmp_path))
    assert not any(b"the secret" in path.read_bytes() for path in tmp_path.iterdir())
    assert KnowledgeStore.load(tmp_path).ids("user") == [2, 3, 4, 5, 10, 11, 12, 13]


def test_a_tombstone_stays_while_a_full_shard_holds_its_row(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path, provenance)
    rows = [record(number) for number in range(20)]
    writer.append("user", rows)  # over half of 24: never touched again
    writer.drop("user", [3])
    again = record(3, text="again")
    for row in (again, *(record(number) for number in range(100, 106))):
        writer.append("user", [row])
        writer.append("scenario", [record(f"s{row.id}")])
    assert [type(entry).__name__ for entry in entries(tmp_path)[:2]] == ["Shard", "Tombstone"]
    rest = [record(number) for number in range(100, 106)]
    assert_holds(tmp_path, [*rows[:3], *rows[4:], again, *rest])


def test_everything_dropped_leaves_no_level(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path, provenance)
    for number in range(4):
        writer.append("user", [record(number, dim=3)])
        writer.drop("user", [number])
    assert entries(tmp_path) == []
    assert KnowledgeStore.load(tmp_path).levels == ()
    writer.append("user", [record("a", dim=5)])
    assert_holds(tmp_path, [record("a", dim=5)])


def test_one_drop_at_a_time_does_not_pile_up(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path, provenance)
    writer.append("user", [record(number) for number in range(80)])
    for number in range(70):
        writer.drop("user", [number])
        assert len(entries(tmp_path)) <= 1 + 3 * 4
    assert_holds(tmp_path, [record(number) for number in range(70, 80)])


def test_rows_with_texts_and_without_are_never_mixed(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path / "store", provenance)
    for number in range(3):
        writer.append("user", [record(number)])
    KnowledgeStore.load(writer.path).save(tmp_path / "bare", texts=False)
    writer = StoreWriter.open(tmp_path / "bare", provenance)
    for number in range(3, 12):
        writer.append("user", [record(number)])
    store = KnowledgeStore.load(tmp_path / "bare")
    assert store.ids("user") == list(range(12))
    with pytest.raises(StoreError, match="saved without texts"):
        store.text("user", 2)
    assert store.text("user", 3) == record(3).text
    assert len(entries(tmp_path / "bare")) <= 3 + 2 * 4


def test_damage_is_never_copied_into_a_new_shard(tmp_path, provenance, record, small):
    for kind in ("vec", "txt"):
        writer = StoreWriter.open(tmp_path / kind, provenance)
        for number in range(3):
            writer.append("user", [record(number)])
        path = next(writer.path.glob(f"{kind}-*"))
        data = bytearray(path.read_bytes())
        data[-4] ^= 1  # in a vector or a text, where it goes unseen
        path.write_bytes(data)
        before = latest_manifest(writer.path)[1]
        with pytest.raises(StoreCorruptError, match=r"SHA-256|not as it was written"):
            writer.append("user", [record(3)])
        assert latest_manifest(writer.path)[1] == before
