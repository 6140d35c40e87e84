"""Files of a store: read piece by piece, and refused before a byte of them is trusted."""

import contextlib
import errno
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from forge import placed
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import rows

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.files import OpenFile, StoreFiles, put
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest

ROWS = 60


@contextlib.contextmanager
def opened(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield OpenFile(descriptor, path, path.stat().st_size)
    finally:
        os.close(descriptor)


@settings(deadline=None)
@given(
    wanted=st.sets(st.integers(0, ROWS - 1)),
    row_bytes=st.sampled_from([1, 4, 24, 1500, 4096, 9000]),
    start=st.integers(0, 200),
    most=st.sampled_from([1 << 30, 700, 7]),
)
def test_rows_are_those_of_a_slow_loop(wanted, row_bytes, start, most):
    """Any ascending rows, near and far apart, also where the system gives less at once than was asked."""
    data = np.random.default_rng(row_bytes).bytes(start + ROWS * row_bytes)
    places = np.array(sorted(wanted), np.int64)
    real = os.preadv
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", lambda descriptor, into, at: real(descriptor, [into[0][:most]], at))
        (path := Path(folder) / "a").write_bytes(data)
        with opened(path) as file:
            found = file.rows(start, row_bytes, places)
    assert found.shape == (len(wanted), row_bytes)
    slow = [data[start + row * row_bytes : start + (row + 1) * row_bytes] for row in sorted(wanted)]
    assert found.tobytes() == b"".join(slow)
    found[:] = 0  # a copy of its own, that may be written to


@pytest.mark.parametrize(
    ("start", "row_bytes", "row"),
    [(0, 10, 10), (1, 10, 9), (0, 10, 2**40), (101, 1, 0), (0, 10, -1)],
)
def test_rows_outside_are_refused_before_they_are_read(tmp_path, start, row_bytes, row):
    (path := tmp_path / "a").write_bytes(b"\1" * 100)
    with opened(path) as file:
        assert file.rows(0, 10, np.array([9])).tolist() == [[1] * 10]
        with pytest.raises(StoreCorruptError, match=r"bytes .* are outside of it"):
            file.rows(start, row_bytes, np.array([row]))


@pytest.mark.parametrize(("start", "end"), [(0, 101), (-1, 5), (7, 6), (0, 2**62), (2**64, 2**64 + 1)])
def test_bytes_outside_are_refused_before_room_is_made_for_them(tmp_path, start, end):
    (path := tmp_path / "a").write_bytes(b"\1" * 100)
    with opened(path) as file, pytest.raises(StoreCorruptError, match=r"bytes .* are outside of it"):
        file.read(start, end)


def test_a_file_that_is_cut_while_it_is_open_is_an_error_with_a_name(tmp_path):
    """And not the end of the process, as a mapped file would be."""
    (path := tmp_path / "a").write_bytes(b"\1" * 100)
    with opened(path) as file:
        os.truncate(path, 55)
        assert file.read(0, 55) == b"\1" * 55
        with pytest.raises(StoreCorruptError, match=r"a is not as it was written: it ends before byte 60"):
            file.rows(0, 10, np.array([1, 5]))
        with pytest.raises(StoreCorruptError, match="it ends before byte 100"):
            file.digest()


@pytest.fixture
def one(tmp_path):
    """A folder with one file, and what a manifest says of it."""
    (folder := tmp_path / "store").mkdir()
    return folder, placed(folder, "vec", b"\1" * 100)


def replaced(one, make):
    folder, file = one
    path = folder / file.name
    data = path.read_bytes()
    path.unlink()
    make(path, data)
    return StoreFiles(folder, 1), file


def elsewhere(path, data):
    (other := path.parent.parent / "blobs").mkdir()
    (other / "a").write_bytes(data)
    path.symlink_to(other / "a")


def listening(path, data):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may be only so long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path, data: None, "it is missing, and its manifest names it"),
        (lambda path, data: os.mkfifo(path), "it is no regular file"),
        (lambda path, data: path.mkdir(), "it is no regular file"),
        (lambda path, data: path.symlink_to("/dev/zero"), "it is a symbolic link"),
        (lambda path, data: path.symlink_to(path.name), "it is a symbolic link"),
        (lambda path, data: path.symlink_to("absent"), "it is a symbolic link"),
        (elsewhere, "it is a symbolic link"),
        (lambda path, data: path.write_bytes(data[:-1]), "it has 99 bytes, its manifest promises 100"),
        (lambda path, data: path.write_bytes(data + b"1"), "it has 101 bytes"),
        (lambda path, data: path.touch(), "it has 0 bytes"),
    ],
    ids=["missing", "pipe", "folder", "device", "loop", "dangling", "blobs", "cut", "grown", "empty"],
)
def test_what_is_no_file_of_the_right_size_is_refused_at_once(one, make, says):
    files, file = replaced(one, make)
    began = time.monotonic()
    for call in (files.present, files.verified, files.read, lambda file: files.copy(file, files.folder)):
        with pytest.raises(StoreCorruptError, match=rf"{file.name} is not as it was written: {says}"):
            call(file)
    assert time.monotonic() - began < 1, "nobody waited for the other end of a pipe"


def test_a_socket_is_refused(one):
    files, file = replaced(one, listening)
    with pytest.raises(StoreError, match=file.name):
        files.present(file)


def test_a_hard_link_is_a_file_like_any_other(one, tmp_path):
    files, file = replaced(
        one, lambda path, data: ((tmp_path / "a").write_bytes(data), os.link(tmp_path / "a", path))
    )
    assert files.read(file) == b"\1" * 100


def test_other_bytes_of_the_same_size_are_found_by_the_digest(one, tmp_path):
    files, file = replaced(one, lambda path, data: path.write_bytes(b"\2" + data[1:]))
    assert files.present(file) == files.path(file)
    (tmp_path / "to").mkdir()
    for call in (
        files.verified,
        files.read,
        lambda file: files.copy(file, tmp_path / "to"),
        lambda file: files.copy(file, tmp_path / "to", link=True),
        lambda file: files.check_all([file], verify=True),
    ):
        with pytest.raises(StoreCorruptError, match=rf"{file.name} has SHA-256 .*manifest promises .*repair"):
            call(file)


def test_the_first_five_of_many_damaged_files_are_listed(tmp_path):
    made = [placed(tmp_path, "vec", bytes([number]) * 10) for number in range(8)]
    for file in made[1:]:
        (tmp_path / file.name).unlink()
    with pytest.raises(StoreCorruptError, match=r"has 7 damaged or missing files") as told:
        StoreFiles(tmp_path, 1).check_all(made, verify=False)
    assert [line for line in str(told.value).splitlines() if "is missing" in line] == [
        f"  {tmp_path / file.name} is not as it was written: it is missing, and its manifest names it"
        for file in made[1:6]
    ]
    assert f"msr-enhance store repair {tmp_path}" in str(told.value)


@pytest.mark.parametrize("call", ["open", "fstat", "preadv"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_refuses_is_not_damage(folder, monkeypatch, call, number):
    store = KnowledgeStore.load(folder)
    real = getattr(os, call)

    def refuse(what, *more, **options):
        name = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)
        if "/vec-" in name:
            raise OSError(number, os.strerror(number))
        return real(what, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        for read in (lambda: KnowledgeStore.load(folder), lambda: store.vectors("user", [7])):
            with pytest.raises(
                StoreIOError, match=rf"vec-.* could not be read: {os.strerror(number)}.*run the same"
            ) as told:
                read()
            assert not isinstance(told.value, StoreCorruptError)
    assert store.vectors("user", [7]).any(), "nothing is remembered of it"


def test_no_descriptor_is_left_open(folder):
    def used():
        return len(os.listdir("/proc/self/fd"))

    store, before = KnowledgeStore.load(folder), used()
    for _ in range(20):
        KnowledgeStore.load(folder, verify=True).record("user", 7)
        with pytest.raises(StoreError):
            store.vectors("user", [99])
    assert used() == before


@pytest.fixture
def cached(folder, tmp_path):
    """A store as the Hub's cache holds it: links of a commit to files named by their digests."""
    repo = tmp_path / "datasets--me--taste"
    snapshot, blobs = repo / "snapshots" / ("0" * 40), repo / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    names = [file.name for file in latest_manifest(folder)[0].files()]
    for number, name in enumerate([*names, latest_manifest(folder)[0].name]):
        shutil.copyfile(folder / name, blobs / str(number))
        (snapshot / name).symlink_to(Path("..", "..", "blobs", str(number)))
    return snapshot


@pytest.mark.parametrize("verify", [True, False])
def test_a_snapshot_in_the_cache_of_the_hub_is_a_store(cached, folder, tmp_path, verify):
    store = KnowledgeStore.load(cached, verify)
    assert store.fingerprint == KnowledgeStore.load(folder).fingerprint
    assert rows(cached) == rows(folder)
    store.save(tmp_path / "copy")
    assert not any(path.is_symlink() for path in (tmp_path / "copy").iterdir())
    (tmp_path / "shortcut").symlink_to(cached)
    assert rows(tmp_path / "shortcut") == rows(folder)


@pytest.mark.parametrize("target", ["../../../secret", "../../blobs2/a", "../../blobs/gone", "/etc/passwd"])
def test_a_snapshot_whose_links_lead_elsewhere_is_refused(cached, tmp_path, target):
    link = next(cached.glob("vec-*"))
    (tmp_path / "secret").write_bytes(link.read_bytes())
    (cached.parent.parent / "blobs2").mkdir()
    (cached.parent.parent / "blobs2" / "a").write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(target)
    with pytest.raises(StoreError, match=link.name):
        KnowledgeStore.load(cached)


def test_what_is_put_is_named_by_its_content(tmp_path):
    file = put(tmp_path, "map", [b"ab", bytearray(b"c"), memoryview(b"d")], blob=3)
    assert (file.kind, file.bytes, file.blob) == ("map", 4, 3)
    assert StoreFiles(tmp_path, 1).read(file) == b"abcd"
    assert StoreFiles(tmp_path, 1).verified(file).name == file.name == f"map-{file.sha256[:32]}.safetensors"
