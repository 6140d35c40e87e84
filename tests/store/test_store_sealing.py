"""Small batches: few shards whatever their size, the same files however a run was cut, nothing left lying."""

import os
import random

import numpy as np
import pytest

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store import seal, sweep
from msr_enhance.store.entry import Shard
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import latest_manifest
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def small(monkeypatch):
    """Runs of 4 and shards of 24 rows instead of 64 and 32,768."""
    monkeypatch.setattr(seal, "RUN", 4)
    monkeypatch.setattr(seal, "FULL", 24)


@pytest.fixture
def no_grace(monkeypatch):
    monkeypatch.setattr(sweep, "GRACE", -1.0)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """What is durable is not looked at here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def entries(path, level="user"):
    return latest_manifest(path)[0].entries(level)


def named(path):
    """The files of the newest version, by name."""
    return {file.name: (path / file.name).read_bytes() for file in latest_manifest(path)[0].files()}


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
def test_five_thousand_single_rows(tmp_path, provenance, record):
    """With the real sizes: 23 shards, and a manifest of kilobytes."""
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


# Sweeping


def sealed(path, provenance, record, runs=1):
    writer = StoreWriter.open(path, provenance)
    start = len(writer.done("user"))
    for number in range(start, start + 4 * runs):
        writer.append("user", [record(number)])
    return writer


def test_replaced_files_stay_for_late_readers(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path, provenance)
    for number in range(3):
        writer.append("user", [record(number)])
    late, there = KnowledgeStore.load(tmp_path), named(tmp_path)
    sealed(tmp_path, provenance, record, runs=3)
    assert not there.keys() & named(tmp_path).keys()
    assert all((tmp_path / name).read_bytes() == data for name, data in there.items())
    assert [late.text("user", number) for number in range(3)] == [record(n).text for n in range(3)]


def test_the_time_of_a_replaced_file_begins_when_it_is_replaced(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path, provenance)
    for number in range(3):
        writer.append("user", [record(number)])
    old = list(tmp_path.glob("*.safetensors"))
    for path in old:
        os.utime(path, (0, 0))
    writer.append("user", [record(3)])
    assert len(entries(tmp_path)) == 1
    assert all(path.stat().st_mtime > 0 for path in old)


def test_a_reader_that_is_too_late_is_told_to_load_again(tmp_path, provenance, record, small, no_grace):
    writer = StoreWriter.open(tmp_path, provenance)
    writer.append("user", [record(0)])
    late = KnowledgeStore.load(tmp_path)
    sealed(tmp_path, provenance, record, runs=3)
    with pytest.raises(
        StoreError, match=r"newer ones have replaced that file\. Load the store again"
    ) as told:
        late.text("user", 0)
    assert not isinstance(told.value, StoreCorruptError)
    assert KnowledgeStore.load(tmp_path).text("user", 0) == record(0).text


def test_the_version_before_is_whole_whatever_the_time(tmp_path, provenance, record, small, no_grace):
    writer = StoreWriter.open(tmp_path, provenance)
    for number in range(40):
        writer.append("user", [record(number)])
        StoreWriter.open(tmp_path, provenance)
        before = tmp_path / f"manifest-{writer._manifest.version - 1}.json"
        for version in (before, tmp_path / writer._manifest.name):
            manifest = type(writer._manifest).from_bytes(version.read_bytes(), "here")
            assert all((tmp_path / file.name).exists() for file in manifest.files())


RESTS = ("vec-" + "0" * 32 + ".safetensors", "txt-" + "a" * 32 + ".safetensors", ".tmp-0123456789abcdef")
OTHERS = ("README.md", "vec-0.safetensors", "VEC-" + "0" * 32 + ".safetensors", "manifest.json", "tmp-1")


@pytest.mark.parametrize("old", [True, False])
def test_rests_of_an_ended_run_are_removed_when_they_are_old(folder, provenance, monkeypatch, old):
    before = named(folder)
    for name in (*RESTS, *OTHERS):
        (folder / name).write_bytes(b"rest")
    (folder / ("del-" + "0" * 32 + ".safetensors")).mkdir()
    (folder / ("del-" + "1" * 32 + ".safetensors")).symlink_to(folder / "README.md")
    if old:
        monkeypatch.setattr(sweep, "GRACE", -1.0)
    StoreWriter.open(folder, provenance)
    assert [(folder / name).exists() for name in RESTS] == 3 * [not old]
    assert all((folder / name).exists() for name in OTHERS)
    assert len(list(folder.glob("del-*"))) == 2, "what is no file is not ours"
    assert named(folder) == before


def test_a_hard_link_is_as_young_as_the_link(folder, provenance, tmp_path, monkeypatch):
    source = tmp_path / "old"
    source.write_bytes(b"of another store")
    os.utime(source, (0, 0))
    os.link(source, folder / RESTS[0])
    StoreWriter.open(folder, provenance)
    assert (folder / RESTS[0]).exists()


def test_a_damaged_version_before_stops_the_sweep(folder, provenance, no_grace):
    (folder / "manifest-3.json").write_bytes(b"damaged")
    (folder / RESTS[0]).write_bytes(b"rest")
    StoreWriter.open(folder, provenance)
    assert (folder / RESTS[0]).exists()


def test_versions_that_a_killed_run_left_are_removed(folder, provenance):
    (folder / "manifest-2.json").write_bytes((folder / "manifest-3.json").read_bytes())
    StoreWriter.open(folder, provenance)
    assert sorted(path.name for path in folder.glob("manifest*")) == ["manifest-3.json", "manifest-4.json"]
