"""Which files may leave, and which of them the Hub has already."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from msr_enhance.errors import StoreError
from msr_enhance.store.hub.repository import is_bare

_PIECE = 1 << 20


def refuse_unless_plain(folder: Path, name: str) -> None:
    """Refuse to send what is no plain file of a folder.

    Raises:
        StoreError: If it is none.
    """
    if not is_bare(name):
        raise StoreError(f"{name[:80]!r} is not sent: only plain file names are (letters, digits, . _ -).")
    try:
        mode = (folder / name).lstat().st_mode
    except OSError as error:
        raise StoreError(f"{folder / name} cannot be sent: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise StoreError(f"{folder / name} is {kind}; only the store's own files are sent.")


def git_digest(path: Path, size: int) -> str:
    """SHA-1 that git gives a file's content; only to find files that are there already."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
