"""Forgetting: no row, no list, no index and no byte of the forgotten users is left in the folder."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from damage import flip, held, shards
from killing import killed_at
from looking import rows

from msr_enhance.errors import StoreError, StoreLockedError, UnknownIdError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care import needles
from msr_enhance.store.care.block import Change
from msr_enhance.store.care.compact import compact
from msr_enhance.store.care.forget import forget
from msr_enhance.store.care.needles import Needles
from msr_enhance.store.care.repair import repair
from msr_enhance.store.care.rewrite import rewrite_store
from msr_enhance.store.care.verify import verify
from msr_enhance.store.entry import Keyed
from msr_enhance.store.keyed import key_check, keyed_id
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest, read_manifest
from msr_enhance.store.writer import StoreWriter


def everything(path):
    """All bytes of a folder, also of folders in it."""
    return b"\0\0\0\0".join(file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file())


def secrets(record, name):
    """What only the row of one user has."""
    row = record(name)
    return [row.vector.tobytes(), row.prompt.encode() + row.text.encode()]


@pytest.mark.parametrize("kind", [int, str])
def test_no_byte_of_a_forgotten_user_is_left_and_no_other_row_is_touched(used, kind, record):
    path = used(kind)
    before = rows(path)
    names = [name for name in (-20, 17, 54, 62) if name in before] or [f"user {n}" for n in (-20, 17, 54, 62)]
    names = [name for name in names if name in before]
    known = [name for name in names if before[name]["status"] == "ok"]
    assert all(secret in everything(path) for name in known for secret in secrets(record, name))
    files = {shard.vectors.name for shard in shards(path)}
    done = forget(path, {"user": names})
    left = everything(path)
    for name in known:
        for secret in secrets(record, name):
            assert secret not in left
        if kind is str:
            assert name.encode() + b"user " not in left
    assert rows(path) == {name: row for name, row in before.items() if name not in names}
    assert done.ids == {"user": len(names)}
    assert done.rows["user"] >= len(names)  # with those in files that were replaced just now
    assert done.absence.left == {}
    assert done.absence.looked_for > 0
    assert files & {shard.vectors.name for shard in shards(path)}  # not all was written anew
    report = verify(path)
    assert not report.findings
    assert not report.waiting
    newest = latest_manifest(path)[0]
    below, _ = read_manifest(path, newest.version - 1)
    assert len(list(path.glob("manifest-*"))) == 2
    assert list(below.files()) == list(newest.files())


def test_rows_that_were_dropped_before_are_erased_too(used, provenance, record):
    path = used()
    with StoreWriter.open(path, provenance) as writer:
        writer.drop("user", [60])
        writer.release()
    assert record(60).prompt.encode() in everything(path)
    done = forget(path, {"user": [60]})
    assert done.ids == {"user": 1}
    assert record(60).prompt.encode() + record(60).text.encode() not in everything(path)
    assert record(60).vector.tobytes() not in everything(path)
    with StoreWriter.open(path, provenance) as writer:
        assert 60 not in writer.done("user")


def test_unknown_ids_change_nothing_unless_they_may_be_missing(used):
    path = used()
    compact(path, at_once=True)
    before = held(path)
    with pytest.raises(UnknownIdError, match=r"2 user ids: 900, 901\. Nothing was changed"):
        forget(path, {"user": [60, 900, 901]})
    with pytest.raises(UnknownIdError, match=r"Write int\(id\)"):
        forget(path, {"user": ["60"]})
    for given in (b"AB", "60", bytearray(b"A"), memoryview(b"A"), 60):
        with pytest.raises(StoreError, match="write a list of ids"):
            forget(path, {"user": given})
    for nothing in ({}, {"user": []}, {"user": iter(()), "scenario": ()}):
        with pytest.raises(StoreError, match="nothing to forget was given, and nothing was changed"):
            forget(path, nothing)
    assert held(path) == before
    done = forget(path, {"user": [60, 900]}, missing_ok=True)
    assert done.missing == {"user": [900]}
    assert 60 not in rows(path)


def test_what_earlier_runs_and_repairs_left_is_removed(used, record):
    path = used()
    (path / "damaged").mkdir()
    (path / "damaged" / shards(path)[0].vectors.name).write_bytes(record(60).vector.tobytes())
    (path / ".tmp-1").write_bytes(record(60).vector.tobytes())
    forget(path, {"user": [60]})
    assert not (path / "damaged").exists()
    assert not (path / ".tmp-1").exists()
    assert record(60).vector.tobytes() not in everything(path)


def left_behind(path, provenance, record):
    """Drop user 60, write the store anew and once more: no version names the row, and its bytes are there."""
    with StoreWriter.open(path, provenance) as writer:
        writer.drop("user", [60])
    compact(path)
    with StoreWriter.open(path, provenance) as writer:
        writer.append("user", [record(1000)])
        writer.append("user", [record(1001)])
    assert record(60).prompt.encode() + record(60).text.encode() in everything(path)


def test_a_row_in_a_file_that_no_version_names_is_found_and_erased(used, provenance, record):
    path = used()
    left_behind(path, provenance, record)
    before = rows(path)
    done = forget(path, {"user": [60]})
    assert done.ids == {"user": 1}
    assert done.rows["user"] >= 1
    assert done.absence.looked_for > 0
    for secret in secrets(record, 60):
        assert secret not in everything(path)
    assert rows(path) == before
    assert not verify(path).findings


@pytest.mark.parametrize("asked", [[900], [900, 1000]])
def test_what_no_version_names_goes_even_where_an_id_is_missing(used, provenance, record, asked):
    path = used()
    left_behind(path, provenance, record)
    before, manifests = rows(path), {each.name for each in path.glob("manifest-*")}
    with pytest.raises(UnknownIdError, match=r"900\. No row was changed; \d+ files that no version needs"):
        forget(path, {"user": asked})
    assert record(60).prompt.encode() + record(60).text.encode() not in everything(path)
    assert rows(path) == before
    assert {each.name for each in path.glob("manifest-*")} == manifests
    assert not verify(path).waiting


def test_one_damaged_manifest_costs_nothing_after_a_row_was_forgotten(used, record):
    path = used()
    forget(path, {"user": [60]})
    before = rows(path)
    flip(path / latest_manifest(path)[0].name, 100)
    done = repair(path)
    assert (done.lost, done.unnamed) == ({}, {})
    assert rows(path) == before
    version = latest_manifest(path)[0].version
    forget(path, {"user": [60]}, missing_ok=True)
    forget(path, {"user": [60]}, missing_ok=True)
    assert latest_manifest(path)[0].version <= version + 1  # no commit where the one below is the same


def test_a_foreign_file_that_still_holds_the_row_is_named(used, record):
    path = used()
    text = "a prompt that only this user had"
    with StoreWriter.open(path, KnowledgeStore.load(path).provenance) as writer:
        writer.append("user", [record(700, prompt=text)])
    (path / "export.jsonl").write_text(f'{{"prompt": "{text}"}}')
    done = forget(path, {"user": [700]})
    assert done.absence.left == {"export.jsonl": 1}


def test_what_somebody_else_has_too_stays_and_is_counted(used, record, provenance):
    path = used()
    same = "the very same answer for two users"
    with StoreWriter.open(path, provenance) as writer:
        twin = record(1)
        writer.append("user", [record(800, text=same, vector=twin.vector), record(801, text=same)])
    done = forget(path, {"user": [800]})
    assert done.absence.left == {}
    assert done.absence.shared >= 1
    assert done.absence.skipped > 0  # a vector of 12 bytes
    assert KnowledgeStore.load(path).text("user", 801) == same


def test_a_whole_level_may_be_forgotten(used):
    path = used()
    forget(path, {"scenario": ["Toys", "Schön 😀"]})
    assert KnowledgeStore.load(path).levels == ("user",)
    assert "Schön".encode() not in everything(path)
    assert not verify(path).findings


def test_forgetting_waits_for_no_writer(used, provenance):
    path = used()
    with StoreWriter.open(path, provenance), pytest.raises(StoreLockedError):
        forget(path, {"user": [60]})
    old = KnowledgeStore.load(path)
    forget(path, {"user": [60]})
    with pytest.raises(StoreError):
        old.vectors("user", [60])
    assert 60 not in old.newest().ids("user")


def test_killed_at_any_call_a_user_is_forgotten_by_the_same_call(used, tmp_path, record):
    base = used()
    before = rows(base)
    secret = record(60).prompt.encode() + record(60).text.encode()
    kills = 0
    for number in range(0, 1000, 3):
        path = tmp_path / "victim"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base, path)

        killed = killed_at(number, lambda path=path: forget(path, {"user": [60]}))
        if secret in everything(path):
            forget(path, {"user": [60]})  # it is known which call is to be made again
        else:
            forget(path, {"user": [60]}, missing_ok=True)
        assert secret not in everything(path)
        assert rows(path) == {name: row for name, row in before.items() if name != 60}
        assert not verify(path).findings
        assert not verify(path).waiting
        if not killed:
            break
        kills += 1
    assert kills > 10


def test_the_search_finds_every_byte_string_wherever_it_lies(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    path = tmp_path / "file"
    for _ in range(150):
        monkeypatch.setattr(needles, "_PIECE", int(draw.choice([64, 100, 256, 1000])))
        wanted = [draw.bytes(int(draw.integers(16, 90))) for _ in range(int(draw.integers(1, 6)))]
        data = bytearray(draw.bytes(int(draw.integers(0, 3000))))
        for needle in wanted * 2:
            if len(data) > len(needle):
                at = int(draw.integers(0, len(data) - len(needle)))
                data[at : at + len(needle)] = needle
        path.write_bytes(data)
        there = []
        for needle in wanted:
            at = data.find(needle)
            while at >= 0:
                there.append((at, needle))
                at = data.find(needle, at + 1)
        found = list(Needles(wanted, bytes(data[:200])).search(path))
        assert sorted(found) == sorted(there)


def test_many_byte_strings_that_are_alike_cost_no_more_than_others(tmp_path):
    def seconds(wanted, data):
        (tmp_path / "file").write_bytes(data)
        started = time.process_time()
        found = Needles(wanted).search(tmp_path / "file")
        assert {needle for _, needle in found} == set(wanted)
        return time.process_time() - started

    draw = np.random.default_rng(0)
    words = [b"Matrix", b"Alien", b"Heat", b"Jaws"]
    alike = [b"This user liked " + b", ".join(draw.choice(words, 60).tolist()) for _ in range(8000)]
    others = [draw.bytes(len(each)) for each in alike]
    # Looked up one by one where their four bytes are, those alike took fifty times as long.
    assert seconds(alike, b"\n".join(alike)) < 10 * seconds(others, b"\n".join(others)) + 0.5


def test_of_keyed_ids_the_key_or_the_hashes_are_given(used, tmp_path):
    version, key = Version.of(used()), bytes(range(32))
    (tmp_path / "keyed").mkdir()
    change = Change(rename=lambda ids: [keyed_id(key, name) for name in ids], id_type="str")
    parts = rewrite_store(version, tmp_path / "keyed", changes={"user": change})
    keyed = {"user": Keyed(id_type="int", check=key_check(key))}
    new = version.manifest.model_copy(update=vars(parts) | {"keyed": keyed})
    (tmp_path / "keyed" / new.name).write_bytes(new.to_bytes())
    with pytest.raises(StoreError, match="not keyed with this key"):
        forget(tmp_path / "keyed", {"user": [60]}, key=bytes(32))
    with pytest.raises(StoreError, match="not keyed with this key"):
        forget(version.files.folder, {"user": [60]}, key=key)
    forget(tmp_path / "keyed", {"user": [60], "scenario": ["Toys"]}, key=key)
    forget(tmp_path / "keyed", {"user": [keyed_id(key, 61)]})
    left = KnowledgeStore.load(tmp_path / "keyed", key=key)
    assert left.ids("scenario") == ["Schön 😀"]
    assert not {keyed_id(key, 60), keyed_id(key, 61)} & set(left.ids("user"))
    assert left.count("user") == 71
    assert not verify(tmp_path / "keyed").findings
