import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from msr_enhance.atomic import create_exclusive, sha256_file, write_bytes_new

BOTH = pytest.mark.parametrize("write", [write_bytes_new, create_exclusive])


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
