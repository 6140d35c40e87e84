"""Files that no version needs: they stay for a while, and then they go."""

import os

import pytest
from looking import entries, named

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store import sweep
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def sealed(path, provenance, record, runs=1):
    with StoreWriter.open(path, provenance) as writer:
        start = len(writer.done("user"))
        for number in range(start, start + 4 * runs):
            writer.append("user", [record(number)])


def test_replaced_files_stay_for_late_readers(tmp_path, provenance, record, small):
    writer = StoreWriter.open(tmp_path, provenance)
    for number in range(3):
        writer.append("user", [record(number)])
    late, there = KnowledgeStore.load(tmp_path), named(tmp_path)
    writer.release()
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
    writer.release()
    sealed(tmp_path, provenance, record, runs=3)
    with pytest.raises(
        StoreError, match=r"newer ones have replaced that file\. Load the store again"
    ) as told:
        late.text("user", 0)
    assert not isinstance(told.value, StoreCorruptError)
    assert KnowledgeStore.load(tmp_path).text("user", 0) == record(0).text


def test_loading_goes_on_with_the_newest_version(tmp_path, provenance, record, small, no_grace, monkeypatch):
    """Files vanish after a slow reader has read which there are."""
    writer = StoreWriter.open(tmp_path, provenance)
    writer.append("user", [record(0)])
    writer.release()

    def slow(folder):
        found = latest_manifest(folder)
        if found[0].version == 2:
            sealed(tmp_path, provenance, record, runs=3)
        return found

    monkeypatch.setattr("msr_enhance.store.knowledge.latest_manifest", slow)
    assert len(KnowledgeStore.load(tmp_path).ids("user")) == 13


def test_the_version_before_is_whole_whatever_the_time(tmp_path, provenance, record, small, no_grace):
    writer = StoreWriter.open(tmp_path, provenance)
    for number in range(40):
        writer.append("user", [record(number)])
        writer.release()
        writer = StoreWriter.open(tmp_path, provenance)
        before = tmp_path / f"manifest-{writer._manifest.version - 1}.json"
        for version in (before, tmp_path / writer._manifest.name):
            manifest = type(writer._manifest).from_bytes(version.read_bytes(), "here")
            assert all((tmp_path / file.name).exists() for file in manifest.files())


RESTS = (
    *(f"{kind}-{'0' * 32}.safetensors" for kind in ("vec", "txt", "idx", "map")),
    ".tmp-0123456789abcdef",
)
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
    assert [(folder / name).exists() for name in RESTS] == len(RESTS) * [not old]
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


def test_an_index_that_was_replaced_is_removed_in_time(tmp_path, provenance, record, small, monkeypatch):
    """And not before: who reads the version before needs it."""
    late, ids = None, 0
    with StoreWriter.open(tmp_path, provenance) as writer:
        for size in (30, 30, 30, 30):
            monkeypatch.setattr(sweep, "GRACE", -1.0 if ids >= 60 else 600.0)
            writer.append("user", [record(number) for number in range(ids, ids + size)])
            ids += size
            left = set(tmp_path.glob("idx-*"))
            assert tmp_path / writer._manifest.index["user"].file.name in left
            if late:
                assert late.vectors("user", range(late.count("user"))).any()
            late = KnowledgeStore.load(tmp_path)
    assert len(left) == 2, "of this version and the one before"
