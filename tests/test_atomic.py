import ctypes
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from msr_enhance.atomic import (
    create_exclusive,
    folder_time,
    link_new,
    sha256_file,
    write_bytes_new,
    write_pieces_new,
)


def in_pieces(folder, name, data):
    """A file of three pieces whose name does not follow from its content after all."""
    third = len(data) // 3
    digest, size = write_pieces_new(folder, iter([data[:third], b"", data[third:]]), lambda digest: name)
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))


BOTH = pytest.mark.parametrize("write", [write_bytes_new, create_exclusive, in_pieces])


@BOTH
def test_the_file_is_there_whole_and_alone(tmp_path, write):
    data = bytes(range(256)) * 1000
    write(tmp_path, "a.bin", data)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == data
    assert sha256_file(tmp_path / "a.bin") == hashlib.sha256(data).hexdigest()


@BOTH
def test_the_umask_decides_who_reads(tmp_path, write):
    before = os.umask(0o022)
    try:
        write(tmp_path, "group", b"")
        os.umask(0o077)
        write(tmp_path, "owner", b"")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("group", "owner")] == [0o640, 0o600]


@BOTH
def test_short_writes_are_completed(tmp_path, write, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:7]))
    write(tmp_path, "a", b"0123456789" * 5)
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 5


@BOTH
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_refusing_disk_leaves_nothing_behind(tmp_path, write, call, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path, "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_and_create_does_not(tmp_path):
    write_bytes_new(tmp_path, "a", b"1")
    write_bytes_new(tmp_path, "a", b"2")
    with pytest.raises(FileExistsError):
        create_exclusive(tmp_path, "a", b"3")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"2"]


def test_a_file_may_be_named_by_its_content(tmp_path):
    digest, _ = write_pieces_new(tmp_path, [b"abc"], lambda digest: f"{digest}.bin")
    assert [path.name for path in tmp_path.iterdir()] == [f"{digest}.bin"]


def test_pieces_that_cannot_be_made_leave_nothing_behind(tmp_path):
    def pieces():
        yield b"one"
        raise ValueError("the second is damaged")

    with pytest.raises(ValueError, match="second"):
        write_pieces_new(tmp_path, pieces(), lambda digest: "a")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_the_same_file(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b" / "a").write_bytes(b"an older one")
    for _ in range(2):  # also where the link is there already
        link_new(tmp_path / "a", tmp_path / "b", "a")
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["a"]
        assert (tmp_path / "a").samefile(tmp_path / "b" / "a")


def test_a_link_is_to_what_a_symbolic_link_points_to(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "s").symlink_to("a")
    link_new(tmp_path / "s", tmp_path / "b", "a")
    assert not (tmp_path / "b" / "a").is_symlink()
    assert (tmp_path / "a").samefile(tmp_path / "b" / "a")


@pytest.mark.parametrize("call", ["link", "rename", "fsync"])
def test_a_link_that_is_refused_leaves_nothing_behind(tmp_path, call, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another disk")

    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="another disk"):
        link_new(tmp_path / "a", tmp_path / "b", "a")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_linked_file_is_durable(tmp_path, monkeypatch):
    """Whoever put it there may not have flushed it."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    flushed, real = [], os.fsync

    def noted(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    link_new(tmp_path / "a", tmp_path / "b", "a")
    assert flushed == [(tmp_path / "a").stat().st_ino, (tmp_path / "b").stat().st_ino]


def test_the_time_of_a_folder_is_that_of_its_files(tmp_path):
    (tmp_path / "a").touch()
    assert 0 <= folder_time(tmp_path) - (tmp_path / "a").stat().st_mtime < 60
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_exactly_one_of_many_creates(tmp_path):
    def attempt(number):
        try:
            create_exclusive(tmp_path, "a", str(number).encode())
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(attempt, range(40)) if number is not None]
    assert [str(number) for number in winners] == [(tmp_path / "a").read_text()]


@pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def no_links(request, monkeypatch):
    """As on FAT and on some network mounts."""

    def refuse(*_):
        raise OSError(request.param, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)


def test_without_hard_links_a_file_is_still_created_once(tmp_path, no_links):
    create_exclusive(tmp_path, "a", b"1")
    with pytest.raises(FileExistsError):
        create_exclusive(tmp_path, "a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"1")]
    with pytest.raises(FileNotFoundError):
        create_exclusive(tmp_path / "absent", "a", b"1")


def test_without_hard_links_exactly_one_of_many_creates(tmp_path, no_links):
    test_exactly_one_of_many_creates(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("why", ["old system", "file system"])
def test_without_links_and_such_renames_it_says_what_to_do(tmp_path, no_links, monkeypatch, why):
    class Library:
        def __init__(self, name, use_errno):
            if why == "file system":
                self.renameat2 = lambda *_: -1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)
    with pytest.raises(OSError, match="write on a disk with hard links, then copy the folder"):
        create_exclusive(tmp_path, "a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_another_refusal_of_a_link_is_told_as_it_is(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="quota"):
        create_exclusive(tmp_path, "a", b"1")
    assert list(tmp_path.iterdir()) == []
