"""Compacting: the same rows in fewer bytes, in order; nothing is lost however it ends."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from damage import flip, held, shards, vector_at
from killing import killed_at
from looking import entries, rows

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIdentityError, StoreLockedError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change
from msr_enhance.store.care.compact import compact
from msr_enhance.store.care.repair import repair
from msr_enhance.store.care.rewrite import rewrite_store
from msr_enhance.store.care.verify import verify
from msr_enhance.store.entry import Shard
from msr_enhance.store.index import keys_of
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


@pytest.mark.parametrize("kind", [int, str])
def test_a_compacted_store_has_the_same_rows_in_the_order_of_their_keys_and_no_others(used, kind):
    path = used(kind)
    before = rows(path), rows(path, "scenario")
    done = compact(path)
    assert (rows(path), rows(path, "scenario")) == (before[0], before[1])
    ids = KnowledgeStore.load(path, verify=True).ids("user")
    keys = list(map(tuple, keys_of("int" if kind is int else "str", ids).tolist()))
    assert keys == sorted(keys)
    if kind is int:
        assert ids == sorted(ids)
    assert [entry.rows for entry in entries(path)] == [24, 24, 24, 1]
    assert all(isinstance(entry, Shard) for entry in entries(path))
    assert done.rows == {"user": 73, "scenario": 2}
    assert done.removed == 20
    assert done.bytes_after < done.bytes_before
    assert not verify(path).findings
    assert verify(path).dead == 0


def test_a_store_that_is_compact_is_left_alone(used):
    path = used()
    assert compact(path).changed
    before = held(path)
    assert not compact(path).changed
    assert held(path) == before


def test_readers_of_the_version_before_go_on_for_a_while_and_then_their_files_are_gone(used, monkeypatch):
    path = used()
    old = KnowledgeStore.load(path)
    ids = old.ids("user")
    seen = old.vectors("user", ids)
    compact(path)
    np.testing.assert_array_equal(old.vectors("user", ids), seen)
    monkeypatch.setattr("msr_enhance.store.sweep.GRACE", -1.0)
    with StoreWriter.open(path, old.provenance) as writer:
        writer.drop("scenario", ["Toys"])
        writer.append("scenario", [])
    with StoreWriter.open(path, old.provenance):
        pass
    assert not verify(path).waiting


def test_at_once_no_byte_of_a_dropped_row_is_left_and_one_damaged_manifest_costs_nothing(
    used, record, provenance
):
    path = used()
    with StoreWriter.open(path, provenance) as writer:
        writer.drop("user", [60])
        writer.release()
    secret, before = record(60).prompt.encode() + record(60).text.encode(), rows(path)

    def everything():
        return b"\0".join(held(path).values())

    compact(path)
    assert secret in everything()  # for readers of the version before
    done = compact(path, at_once=True)
    assert (done.changed, done.version) == (False, latest_manifest(path)[0].version)
    assert done.erased > 0
    assert secret not in everything()
    assert not verify(path).waiting
    assert not verify(path).findings
    assert rows(path) == before
    flip(path / latest_manifest(path)[0].name, 100)
    assert repair(path).lost == {}
    assert rows(path) == before
    with pytest.raises(StoreError, match="without --out"):
        compact(path, path.parent / "new", at_once=True)


def test_a_compacted_store_takes_rows_as_before(used, record, provenance):
    path = used()
    compact(path)
    before = rows(path)
    with StoreWriter.open(path, provenance) as writer:
        for name in range(1000, 1040):
            writer.append("user", [record(name)])
    assert rows(path).keys() == before.keys() | set(range(1000, 1040))
    assert not verify(path).findings


def test_a_store_without_texts_stays_so_and_a_mixed_one_keeps_what_it_has(used, provenance, record, tmp_path):
    KnowledgeStore.load(used()).save(tmp_path / "bare", texts=False)
    with StoreWriter.open(tmp_path / "bare", provenance) as writer:
        writer.append("user", [record(500)])
    compact(tmp_path / "bare")
    store = KnowledgeStore.load(tmp_path / "bare")
    assert store.text("user", 500) == record(500).text
    with pytest.raises(StoreError, match="saved without texts"):
        store.text("user", store.ids("user")[0] if store.ids("user")[0] != 500 else store.ids("user")[1])
    assert store.count("user") == 74
    assert not verify(tmp_path / "bare").findings


def test_a_copy_leaves_the_store_as_it_is_and_is_recorded_where_numbers_changed(used, tmp_path, provenance):
    path = used()
    before = held(path)
    compact(path, tmp_path / "same")
    assert rows(tmp_path / "same") == rows(path)
    assert KnowledgeStore.load(tmp_path / "same").provenance == provenance
    done = compact(path, tmp_path / "half", "float16")
    assert held(path) == before
    half, whole = KnowledgeStore.load(tmp_path / "half"), KnowledgeStore.load(path)
    ids = whole.ids("user")
    np.testing.assert_array_equal(half.vectors("user", ids), whole.vectors("user", ids).astype(np.float16))
    assert half.provenance.identity["transforms"] == [{"kind": "dtype", "from": "float32", "to": "float16"}]
    assert half.text("user", ids[0]) == whole.text("user", ids[0])
    assert done.rows == {"user": 73, "scenario": 2}
    with pytest.raises(StoreIdentityError, match="transforms"):
        StoreWriter.open(tmp_path / "half", provenance)


def test_what_cannot_be_compacted_is_said_and_leaves_nothing(used, tmp_path, provenance, monkeypatch, record):
    path = used()
    before = held(path)
    with pytest.raises(StoreError, match="--out NEW with --dtype float16"):
        compact(path, dtype="float16")
    with pytest.raises(StoreError, match="dtype 'int4' is not known"):
        compact(path, tmp_path / "new", "int4")
    with pytest.raises(StoreError, match="holds 'manifest-"):
        compact(path, path)
    with StoreWriter.open(path, provenance), pytest.raises(StoreLockedError, match="another writer"):
        compact(path)
    large = record(1, vector=np.full(3, 1e30, np.float32))
    with StoreWriter.open(tmp_path / "large", provenance) as writer:
        writer.append("user", [large])
    with pytest.raises(StoreError, match="user 1 is not finite as float16"):
        compact(tmp_path / "large", tmp_path / "new", "float16")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["lock"]
    usage = shutil.disk_usage(path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"needs [\d,]+ bytes .* 1,000 are free"):
        compact(path)
    assert held(path) == before


def test_damage_is_never_copied(used):
    path = used()
    flip(path / shards(path)[0].vectors.name, vector_at(path, shards(path)[0], 3))
    before = held(path)
    with pytest.raises(StoreCorruptError, match="store repair"):
        compact(path)
    assert held(path) == before


def test_rows_may_be_left_out_renamed_and_changed_on_the_way(used, tmp_path):
    path = used()
    version = Version.of(path)
    (tmp_path / "new").mkdir()
    change = Change(
        keep=lambda ids: np.array([name >= 0 for name in ids], bool),
        rename=lambda ids: [f"u{name}" for name in ids],
        id_type="str",
        convert=lambda some: some[:, :2] + np.float32(1),
        shape=(2,),
    )
    parts = rewrite_store(version, tmp_path / "new", changes={"user": change}, texts=False)
    new = version.manifest.model_copy(update=vars(parts))
    (tmp_path / "new" / new.name).write_bytes(new.to_bytes())
    found, old = KnowledgeStore.load(tmp_path / "new", verify=True), rows(path)
    left = {name: row for name, row in old.items() if name >= 0}
    assert set(found.ids("user")) == {f"u{name}" for name in left}
    for name, row in left.items():
        known = np.float32(row["vector"][:2]) + 1 if row["status"] == "ok" else np.zeros(2)
        np.testing.assert_array_equal(found.vectors("user", [f"u{name}"])[0], known)
    assert parts.id_type == {"user": "str", "scenario": "str"}


def test_killed_at_any_call_a_store_is_as_before_or_compact(used, tmp_path):
    base = used()
    before = rows(base)
    kills = 0
    for number in range(0, 1000, 3):
        path = tmp_path / "victim"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base, path)

        killed = killed_at(number, lambda path=path: compact(path))
        assert rows(path) == before
        assert latest_manifest(path)[0].version - latest_manifest(base)[0].version in (0, 1)
        compact(path)
        assert rows(path) == before
        assert not verify(path).findings
        if not killed:
            break
        kills += 1
    assert kills > 10


def test_a_copy_that_was_killed_is_made_again(used, tmp_path):
    base, out = used(), tmp_path / "out"

    assert killed_at(25, lambda: compact(base, out))
    assert not list(out.glob("manifest-*"))
    assert list(out.iterdir())
    compact(base, out)
    assert rows(out) == rows(base)
    assert not verify(out).waiting
