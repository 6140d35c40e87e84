"""Files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp-"


def write_bytes_new(folder: Path, name: str, data: bytes) -> None:
    """Put a file in place whole, as a new file; one of the same name is replaced.

    Args:
        folder: An existing folder.
        name: A bare file name.
        data: The content.

    Raises:
        OSError: If the disk refuses; nothing is left behind, and an older file is intact.
    """
    with _written(folder, data) as temporary:
        temporary.rename(folder / name)
        sync_folder(folder)


def create_exclusive(folder: Path, name: str, data: bytes) -> None:
    """Put a file in place whole, unless the name is taken: of several writers exactly one succeeds.

    Args:
        folder: An existing folder.
        name: A bare file name.
        data: The content.

    Raises:
        FileExistsError: If the name is taken.
        OSError: If the disk refuses; nothing is left behind.
    """
    with _written(folder, data) as temporary:
        os.link(temporary, folder / name)  # unlike a rename, fails where the name exists
        sync_folder(folder)


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


@contextlib.contextmanager
def _written(folder: Path, data: bytes) -> Iterator[Path]:
    """A durable temporary file with this content, gone afterwards unless it was renamed."""
    path = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    # The umask takes bits away from 0640; tempfile's 0600 could not be read by a serving user.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            # Never retried: after a failed fsync the kernel may have dropped the pages.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield path
    finally:
        path.unlink(missing_ok=True)
