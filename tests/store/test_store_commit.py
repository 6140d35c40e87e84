"""One commit: of several writers one wins, readers see whole versions, a fault loses nothing."""

import errno
import itertools
import os
import shutil
import threading

import pytest

from msr_enhance.errors import StoreError
from msr_enhance.store import seal
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter


@pytest.mark.parametrize("commits", [1, 2, 5])
def test_of_two_writers_the_slower_is_told(folder, provenance, record, commits, no_locks):
    slow, fast = StoreWriter.open(folder, provenance), StoreWriter.open(folder, provenance)
    for number in range(commits):  # after two, the version that the slow one would write is free again
        fast.append("user", [record(100 + number)])
    before, versions = KnowledgeStore.load(folder), sorted(folder.glob("manifest-*"))
    with pytest.raises(StoreError, match="another writer"):
        slow.append("user", [record(500)])
    after = KnowledgeStore.load(folder)
    assert sorted(folder.glob("manifest-*")) == versions
    assert (after.fingerprint, after.ids("user")) == (before.fingerprint, before.ids("user"))
    fast.append("user", [record(501)])
    assert KnowledgeStore.load(folder).ids("user")[-1] == 501


def test_a_writer_that_is_followed_at_once_has_not_lost(folder, provenance, record, no_locks, monkeypatch):
    """Another opens the version just made and adds to it before we have looked around."""
    writer, link = StoreWriter.open(folder, provenance), os.link

    def followed(*args, **more):
        link(*args, **more)
        monkeypatch.setattr(os, "link", link)
        StoreWriter.open(folder, provenance).append("user", [record(501)])

    monkeypatch.setattr(os, "link", followed)
    writer.append("user", [record(500)])
    assert KnowledgeStore.load(folder).ids("user")[-2:] == [500, 501]
    with pytest.raises(StoreError, match="another writer"):
        writer.append("user", [record(502)])


def test_a_file_that_somebody_removed_is_noticed_before_it_counts(folder, provenance, record, monkeypatch):
    before = KnowledgeStore.load(folder).fingerprint
    old, writer = set(folder.iterdir()), StoreWriter.open(folder, provenance)

    def removed(*args):
        next(path for path in folder.glob("vec-*") if path not in old).unlink()
        return seal.added(*args)

    monkeypatch.setattr("msr_enhance.store.writer.added", removed)
    with pytest.raises(StoreError, match="is missing"):
        writer.append("user", [record(500)])
    assert KnowledgeStore.load(folder).fingerprint == before


def test_readers_see_whole_versions_while_a_writer_works(tmp_path, provenance, record):
    writer = StoreWriter.open(tmp_path, provenance)
    seen, over = [], threading.Event()

    def read():
        while not over.is_set():
            store = KnowledgeStore.load(tmp_path)
            seen.append(len(store.ids("user")) if store.levels else 0)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        writer.append("user", [record(2 * number), record(2 * number + 1)])
    over.set()
    reader.join()
    assert seen == sorted(seen)
    assert all(count % 2 == 0 for count in seen)
    assert len(seen) > 5


NEEDED = ("open", "write", "fsync", "fstat", "rename", "link", "unlink")


@pytest.mark.parametrize("run", [64, 3], ids=["plain", "sealing"])
@pytest.mark.parametrize("call", [*NEEDED, "utime", "stat", "preadv"])
def test_a_fault_at_any_call_loses_nothing_acknowledged(
    folder, tmp_path, provenance, record, call, run, monkeypatch
):
    """Fail call 1, 2, 3 … of a commit until it has no such call, then open again and go on."""
    monkeypatch.setattr(seal, "RUN", run)
    real = getattr(os, call)
    for number in itertools.count():
        place = tmp_path / f"{call}-{number}"
        shutil.copytree(folder, place)
        writer, calls = StoreWriter.open(place, provenance), itertools.count()

        def fault(*args, calls=calls, number=number, **kwargs):
            if next(calls) == number:
                raise OSError(errno.EIO, "injected")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fault)
            try:
                writer.append("user", [record(50), record(51)])
            except StoreError:
                pass
            else:
                if next(calls) <= number:
                    break
        writer.release()
        if call != "unlink":
            assert not list(place.glob(".tmp-*"))
        again = StoreWriter.open(place, provenance)
        assert again.done("user") - {50, 51} == {7, -3, 2**63 - 1, 0, 1}
        again.append("user", [record(n) for n in (50, 51, 52) if n not in again.done("user")])
        assert KnowledgeStore.load(place).ids("user")[-3:] == [50, 51, 52]
    assert number >= 1 or (call not in NEEDED and run == 64)
