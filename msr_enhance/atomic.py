"""Files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Buffer = bytes | bytearray | memoryview

TEMPORARY = ".tmp-"

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NOREPLACE = 1
_HERE = -100


def write_bytes_new(folder: Path, name: str, data: bytes) -> None:
    """Put a file in place whole, as a new file; one of the same name is replaced.

    Args:
        folder: An existing folder.
        name: A bare file name.
        data: The content.

    Raises:
        OSError: If the disk refuses; nothing is left behind, and an older file is intact.
    """
    with _written(folder, [data]) as temporary:
        temporary.rename(folder / name)
        sync_folder(folder)


def write_pieces_new(folder: Path, pieces: Iterable[Buffer], name: Callable[[str], str]) -> tuple[str, int]:
    """Put a file in place whole whose name follows from its content; see ``write_bytes_new``.

    Args:
        folder: An existing folder.
        pieces: The content; only one piece at a time is held.
        name: The bare file name for a SHA-256.

    Returns:
        The SHA-256 and the size in bytes.

    Raises:
        OSError: If the disk refuses; nothing is left behind.
    """
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[Buffer]:
        nonlocal size
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            yield piece

    with _written(folder, counted()) as temporary:
        temporary.rename(folder / name(digest.hexdigest()))
        sync_folder(folder)
    return digest.hexdigest(), size


def create_exclusive(folder: Path, name: str, data: bytes, mode: int = 0o640) -> None:
    """Put a file in place whole, unless the name is taken: of several writers exactly one succeeds.

    Args:
        folder: An existing folder.
        name: A bare file name.
        data: The content.
        mode: Who may do what with it, before the umask.

    Raises:
        FileExistsError: If the name is taken.
        OSError: If the disk refuses; nothing is left behind.
    """
    with _written(folder, [data], mode) as temporary:
        try:
            os.link(temporary, folder / name)  # unlike a rename, fails where the name exists
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _rename_new(temporary, folder / name)
        sync_folder(folder)


def link_new(source: Path, folder: Path, name: str) -> None:
    """Give a finished file a second name in another folder; a file of that name is replaced.

    Args:
        source: The file; a symbolic link stands for what it points to.
        folder: An existing folder of the same file system.
        name: A bare file name.

    Raises:
        OSError: If there is no such link between the two; nothing is left behind.
    """
    source = source.resolve()
    descriptor = os.open(source, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # whoever put it there may not have
    finally:
        os.close(descriptor)
    temporary = _temporary(folder)
    os.link(source, temporary)
    try:
        temporary.rename(folder / name)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)  # a rename onto a second name of the same file does nothing


def read_small(path: Path, limit: int) -> bytes:
    """A file's content, cut one byte after a limit.

    Args:
        path: The file.
        limit: How many bytes it may have; a result of more tells that it has more.

    Returns:
        The content.

    Raises:
        OSError: If it is not there, or the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        data = b""
        while len(data) <= limit and (piece := os.pread(descriptor, limit + 1 - len(data), len(data))):
            data += piece
        return data
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> bool:
    """Make a folder, with those above it that are not there yet, and make its name durable.

    Args:
        folder: The folder.

    Returns:
        Whether it was made; False where it was there.

    Raises:
        FileExistsError: If a file is in its place.
        OSError: If the disk refuses.
    """
    try:
        os.mkdir(folder, 0o750)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_folder(folder.parent)
        return make_folder(folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise
        return False
    sync_folder(folder.parent)  # without it a power cut may take the folder, whatever is synced inside
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_time(folder: Path) -> float:
    """The time now, in seconds, by the clock that dates the files of a folder.

    On a network mount that is the server's clock, which may be far from ours.
    """
    with _written(folder, []) as temporary:
        return temporary.stat().st_mtime


def _rename_new(source: Path, target: Path) -> None:
    """Rename a file unless the name is taken, on file systems without hard links."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_HERE, os.fsencode(source), _HERE, os.fsencode(target), _NOREPLACE):
        number = errno.ENOTSUP if rename is None or ctypes.get_errno() == errno.EINVAL else ctypes.get_errno()
        why = "" if number != errno.ENOTSUP else "; write on a disk with hard links, then copy the folder"
        raise OSError(number, os.strerror(number) + why, str(target))


@contextlib.contextmanager
def _written(folder: Path, pieces: Iterable[Buffer], mode: int = 0o640) -> Iterator[Path]:
    """A durable temporary file with this content, gone afterwards unless it was renamed."""
    path = _temporary(folder)
    # The umask takes bits away from 0640; tempfile's 0600 could not be read by a serving user.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            # Never retried: after a failed fsync the kernel may have dropped the pages.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _temporary(folder: Path) -> Path:
    return folder / f"{TEMPORARY}{secrets.token_hex(8)}"
