"""Repairing: what is good stays, what is lost is named, and a run reads exactly that again."""

from __future__ import annotations

import os
import shutil

import pytest
from damage import empty, flip, gone, held, ids_of, living, shards, text_at, vector_at, zeros
from killing import killed_at
from looking import entries, rows

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.care.hold import Held
from msr_enhance.store.care.repair import repair
from msr_enhance.store.care.verify import verify
from msr_enhance.store.entry import Tombstone
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def check(path, provenance, before, lost):
    """The store is whole, has every row but those, and a run would read exactly these again."""
    assert not verify(path).findings
    assert rows(path) == {name: row for name, row in before.items() if name not in lost}
    with StoreWriter.open(path, provenance) as writer:
        assert before.keys() - writer.done("user") == set(lost)


def test_nothing_is_changed_where_nothing_is_wrong(used):
    path = used()
    before = held(path)
    done = repair(path)
    assert done.damaged == ()
    assert held(path) == before
    assert done.version == latest_manifest(path)[0].version


@pytest.mark.parametrize("kind", [int, str])
def test_one_row_with_a_flipped_bit_is_lost_and_no_other(used, kind, provenance):
    path = used(kind)
    before, shard = rows(path), shards(path)[1]
    live = [row for row, name in enumerate(ids_of(path, shard)) if name in before]
    name = ids_of(path, shard)[live[2]]
    flip(path / shard.vectors.name, vector_at(path, shard, live[2]))
    bad = (path / shard.vectors.name).read_bytes()
    done = repair(path)
    assert done.lost == {"user": [name]}
    assert done.unnamed == {}
    assert [kept.read_bytes() for kept in done.kept] == [bad]
    check(path, provenance, before, [name])


@pytest.mark.parametrize("harm", [empty, gone, zeros])
@pytest.mark.parametrize("which", range(4))
def test_a_lost_vector_file_costs_its_rows_which_the_index_names(used, harm, which, provenance):
    path = used()
    before, shard = rows(path), shards(path)[which]
    lost = living(path, shard)
    covered = which < latest_manifest(path)[0].index["user"].entries
    harm(path / shard.vectors.name)
    done = repair(path)
    check(path, provenance, before, lost)
    if covered:
        assert set(done.lost["user"]) == set(lost)
        assert not done.unnamed
    else:
        assert done.unnamed == {"user": shard.rows}


@pytest.mark.parametrize("harm", [empty, gone])
def test_rows_whose_texts_are_lost_go_or_stay_without_texts_as_one_likes(used, harm, provenance, tmp_path):
    path = used()
    before, shard = rows(path), shards(path)[0]
    lost = living(path, shard)
    harm(path / shard.texts.name)
    shutil.copytree(path, tmp_path / "other")
    assert set(repair(path).lost["user"]) == set(lost)
    check(path, provenance, before, lost)
    done = repair(tmp_path / "other", keep_vectors=True)
    assert done.lost == {}
    assert done.bare == {"user": len(lost)}
    store = KnowledgeStore.load(tmp_path / "other")
    assert store.vectors("user", lost).tolist() == [before[name]["vector"] for name in lost]
    with pytest.raises(StoreError, match="without texts"):
        store.text("user", lost[0])
    assert not verify(tmp_path / "other").findings


def test_one_damaged_text_costs_one_row(used, provenance):
    path = used()
    before, shard = rows(path), shards(path)[0]
    flip(path / shard.texts.name, text_at(shard))
    name = ids_of(path, shard)[0]
    done = repair(path)
    assert done.lost == {"user": [name]} if name in before else done.lost == {}
    check(path, provenance, before, [name] if name in before else [])


@pytest.mark.parametrize("harm", [empty, gone, zeros])
def test_a_damaged_index_is_made_anew_and_costs_nothing(used, harm, provenance):
    path = used()
    before = rows(path)
    harm(path / latest_manifest(path)[0].index["user"].file.name)
    done = repair(path)
    assert done.lost == {}
    check(path, provenance, before, [])


def test_a_header_that_changed_costs_nothing_where_every_row_is_right(used, provenance):
    path = used()
    before, shard = rows(path), shards(path)[0]
    flip(path / shard.texts.name, 20)
    bad = (path / shard.texts.name).read_bytes()
    done = repair(path)
    assert done.lost == {}
    assert done.kept[0].read_bytes() == bad  # the file was written anew under the same name
    check(path, provenance, before, [])


@pytest.mark.parametrize("kind", [int, str])
def test_of_two_rows_with_one_id_that_was_not_dropped_the_newest_counts(tmp_path, provenance, record, kind):
    path = tmp_path / "a"
    for name, numbers in (("a", range(3)), ("b", range(2, 6))):
        with StoreWriter.open(tmp_path / name, provenance) as writer:
            writer.append("user", [record(kind(n), prompt=f"{name} {n}") for n in numbers])
    first, second = latest_manifest(path)[0], latest_manifest(tmp_path / "b")[0]
    for file in second.files():
        shutil.copy(tmp_path / "b" / file.name, path)
    both = {"shards": first.shards + tuple(each.model_copy() for each in second.shards), "index": {}}
    Held.of(path, first).commit(first.model_copy(update=both))
    (found,) = verify(path).findings
    assert "id twice" in found.what
    assert "store repair" in found.help
    done = repair(path)
    assert "1 ids come again" in done.damaged[0].what
    assert done.lost == {}
    assert {name: row["prompt"] for name, row in rows(path).items()} == {
        kind(n): f"{'ab'[n > 1]} {n}" for n in range(6)
    }
    assert not verify(path).findings
    assert repair(path).damaged == ()


def folder_with_a_file(path):
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("somebody's")


def dangling(path):
    path.unlink()
    path.symlink_to("/nonexistent")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("which", ["vectors", "texts"])
@pytest.mark.parametrize("harm", [folder_with_a_file, dangling, pipe])
def test_whatever_stands_under_the_name_of_a_file_is_put_aside(used, provenance, harm, which):
    path = used()
    before, shard = rows(path), shards(path)[0]
    lost, name = living(path, shard), getattr(shard, which).name
    harm(path / name)
    done = repair(path)
    assert set(done.lost["user"]) == set(lost)
    assert os.path.lexists(path / "damaged" / name)
    if harm is folder_with_a_file:
        assert (path / "damaged" / name / "mine").read_text() == "somebody's"
    check(path, provenance, before, lost)
    assert not verify(path).unknown or verify(path).unknown == ("damaged",)


def test_a_damaged_older_manifest_is_put_aside(used):
    path = used()
    version = latest_manifest(path)[0].version
    empty(path / f"manifest-{version - 1}.json")
    done = repair(path)
    assert done.version == version
    assert [each.name for each in done.kept] == [f"manifest-{version - 1}.json"]
    assert not verify(path).findings


def test_a_lost_list_of_dropped_ids_is_made_up_for_by_the_index_or_asked_about(used, provenance, record):
    path = used()
    before, place = rows(path), [isinstance(e, Tombstone) for e in entries(path)].index(True)
    assert place < latest_manifest(path)[0].index["user"].entries
    gone(path / entries(path)[place].ids.name)
    assert repair(path).lost == {}
    check(path, provenance, before, [])
    with StoreWriter.open(path, provenance) as writer:
        writer.drop("user", [60])
        writer.release()
    stone = entries(path)[-1]
    assert isinstance(stone, Tombstone)
    gone(path / stone.ids.name)
    with pytest.raises(StoreCorruptError, match="--bring-back"):
        repair(path)
    assert repair(path, bring_back=True).lost == {}
    check(path, provenance, before, [])


def test_a_dry_run_says_the_same_and_changes_nothing(used):
    path = used()
    flip(path / shards(path)[0].vectors.name, vector_at(path, shards(path)[0], 0))
    (path / shards(path)[2].vectors.name).unlink()
    before = held(path)
    said = repair(path, dry_run=True)
    assert held(path) == before
    done = repair(path)
    assert (said.damaged, said.lost, said.unnamed) == (done.damaged, done.lost, done.unnamed)
    assert not repair(path).damaged


def test_a_disk_that_refuses_is_no_damage(used, monkeypatch):
    path = used()
    real, name = os.open, shards(path)[0].vectors.name

    def refuses(place, *more, **others):
        if str(place).endswith(name):
            raise OSError(5, "Input/output error")
        return real(place, *more, **others)

    before = held(path)
    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(StoreIOError, match="Input/output error"):
        repair(path)
    monkeypatch.undo()
    assert held(path) == before


def test_nothing_to_go_by_is_said(used):
    path = used()
    for manifest in path.glob("manifest-*"):
        empty(manifest)
    with pytest.raises(StoreCorruptError, match="no manifest of 2 can be read"):
        repair(path)


def test_killed_at_any_call_a_repair_is_made_again(used, tmp_path):
    base = used()
    before, shard = rows(base), shards(base)[1]
    row = [name in before for name in ids_of(base, shard)].index(True)
    name = ids_of(base, shard)[row]
    flip(base / shard.vectors.name, vector_at(base, shard, row))
    bad = (base / shard.vectors.name).read_bytes()
    kills = 0
    for number in range(0, 1000, 3):
        path = tmp_path / "victim"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base, path)

        killed = killed_at(number, lambda path=path: repair(path))
        repair(path)
        assert not verify(path).findings
        assert rows(path) == {each: row for each, row in before.items() if each != name}
        kept = [file.read_bytes() for file in path.rglob("*") if file.is_file()]
        assert bad in kept
        if not killed:
            break
        kills += 1
    assert kills > 10
