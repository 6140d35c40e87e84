"""The lock: a second writer is told at once, a reader never waits, and no dead writer holds it."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from looking import rows

from msr_enhance.errors import StoreError, StoreLockedError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.lock import NAME, Lock
from msr_enhance.store.opening import check_writable
from msr_enhance.store.writer import StoreWriter

HOLDER = """
import sys
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter
writer = StoreWriter.open(sys.argv[1], KnowledgeStore.load(sys.argv[1]).provenance)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(folder):
    """Another process that has the store open."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_at_once_who_the_first_is(folder, provenance, holder):
    before = KnowledgeStore.load(folder).fingerprint
    began = time.monotonic()
    with pytest.raises(
        StoreLockedError,
        match=rf"is being written by process {holder.pid} on {socket.gethostname()}, for \d s\. Wait for it",
    ):
        StoreWriter.open(folder, provenance)
    assert time.monotonic() - began < 1
    assert KnowledgeStore.load(folder).fingerprint == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_kernel_takes_the_lock_of_a_dead_writer_back(folder, provenance, holder, number):
    holder.send_signal(number)
    holder.wait(10)
    with StoreWriter.open(folder, provenance) as writer:
        assert writer.done("user") == {7, -3, 2**63 - 1, 0, 1}


def test_a_second_writer_of_the_same_process_is_told_so(folder, provenance, record):
    with StoreWriter.open(folder, provenance) as writer:
        with pytest.raises(
            StoreLockedError, match=r"another writer of this very process, for \d+ s \(close it"
        ):
            StoreWriter.open(folder, provenance)
        writer.append("user", [record(8)])
    StoreWriter.open(folder, provenance).close()


def test_a_writer_that_failed_to_open_holds_nothing(folder, provenance):
    other = provenance.model_copy(update={"identity": {"model": "another"}})
    kept = []
    for _ in range(2):
        with pytest.raises(StoreError, match="made another way") as told:
            StoreWriter.open(folder, other)
        kept.append(told.value)  # and with it every frame that it passed
    StoreWriter.open(folder, provenance).close()


def test_a_run_that_fails_lets_others_in(folder, provenance):
    with pytest.raises(ZeroDivisionError), StoreWriter.open(folder, provenance):
        1 / 0  # noqa: B018
    writer = StoreWriter.open(folder, provenance)
    writer.release()
    writer.release()
    StoreWriter.open(folder, provenance).close()


def test_the_age_of_a_lock_is_told(tmp_path, monkeypatch):
    held = Lock.take(tmp_path)
    later = time.time() + 4000
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(StoreLockedError, match=r"for (3,999|4,000|4,001) s"):
        Lock.take(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(StoreLockedError, match="for 0 s"):
        Lock.take(tmp_path)
    held.release()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[" * 4096,
        b"null",
        b"{}",
        b"\xff",
        b'{"pid":1,"host":"a","since":1e999}',
        b'{"pid":1,"host":"a","since":null}',
        b'{"pid":' + b"9" * 5000 + b"}",
    ],
    ids=range(8),
)
def test_whatever_a_lock_says_the_second_writer_is_told(tmp_path, said):
    held = Lock.take(tmp_path)
    (tmp_path / NAME).write_bytes(said)
    with pytest.raises(StoreLockedError, match=r"is being written by another process\. Wait"):
        Lock.take(tmp_path)
    held.release()


def test_what_an_older_lock_says_is_replaced(tmp_path):
    (tmp_path / NAME).write_bytes(b"x" * 1000)
    held = Lock.take(tmp_path)
    assert (tmp_path / NAME).read_bytes().startswith(b'{"pid": %d,' % os.getpid())
    assert (tmp_path / NAME).stat().st_size < 200
    held.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_no_obstacle(folder, provenance, record, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with StoreWriter.open(folder, provenance) as writer:
        writer.append("user", [record(8)])
    assert rows(folder).keys() == {7, -3, 2**63 - 1, 0, 1, 8}
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_does_not_stop_a_writer_at_the_lock(folder, provenance, record, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with StoreWriter.open(folder, provenance) as writer:
        writer.append("user", [record(8)])
        with pytest.raises(StoreLockedError):
            StoreWriter.open(folder, provenance)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("../elsewhere"), lambda path: path.mkdir()])
def test_a_lock_that_is_no_file_is_refused_and_nothing_is_written_through_it(tmp_path, provenance, make):
    (folder := tmp_path / "store").mkdir()
    make(folder / NAME)
    with pytest.raises(StoreError, match=r"a store cannot be written in .*lock"):
        StoreWriter.open(folder, provenance)
    assert not (tmp_path / "elsewhere").exists()


def test_reading_takes_no_lock_and_writes_nothing(folder, monkeypatch, tmp_path):
    """As on a read-only mount."""
    (folder / NAME).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    real = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "read-only file system", os.fspath(path))
        return real(path, flags, *more, **options)

    def never(*_):
        raise OSError(errno.EROFS, "read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        for call in ("link", "rename", "unlink", "mkdir", "utime"):
            patch.setattr(os, call, never)
        patch.setattr(fcntl, "flock", never)
        store = KnowledgeStore.load(folder, verify=True)
        assert store.record("user", 7).vector.any()
        assert store.newest() is store
        with pytest.raises(StoreError, match=r"cannot be written in .*read-only"):
            StoreWriter.open(folder, store.provenance)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_readers_read_while_a_writer_holds_the_lock(folder, holder):
    assert KnowledgeStore.load(folder).vectors("user", [7]).any()


def test_a_store_that_cannot_be_written_is_told_before_anything_is_loaded(tmp_path, provenance, record):
    """A held lock and a folder without rights; a new folder and a store that nobody writes are fine."""
    check_writable(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    writer = StoreWriter.open(tmp_path / "store", provenance)
    with pytest.raises(StoreLockedError, match="this very process"):
        check_writable(tmp_path / "store")
    writer.close()
    check_writable(tmp_path / "store")
    with pytest.raises(StoreError, match="cannot be written"):
        check_writable(Path("/proc/1/store"))
