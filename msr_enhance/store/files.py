"""The files of one version of a store: there, of the right size, and with the right digest."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path

from msr_enhance.atomic import link_new, sha256_file, write_pieces_new
from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store.entry import FileKind, StoredFile, file_name
from msr_enhance.store.manifest import highest_version

_PIECE = 1 << 20


class StoreFiles:
    """Reads the files that one version of a store names.

    Args:
        folder: The store's folder.
        version: The version that names them.
    """

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.version = version

    def present(self, file: StoredFile) -> Path:
        """The file's path, once its size is right.

        Raises:
            StoreCorruptError: If it is missing, or of another size.
            StoreError: If a newer version replaced it and its time is over.
        """
        path = self.folder / file.name
        try:
            found = path.stat()
            size = found.st_size if stat.S_ISREG(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            size = None
        if size is None and highest_version(self.folder) > self.version:
            raise StoreError(
                f"{path} is gone: version {self.version} of the store was read, and newer ones have "
                "replaced that file. Load the store again."
            )
        if size != file.bytes:
            seen = "is missing" if size is None else f"has {size:,} bytes"
            raise StoreCorruptError(
                f"{path} {seen}; its manifest promises {file.bytes:,} bytes. "
                "Fetch the store again, or extract into a new folder."
            )
        return path

    def verified(self, file: StoredFile) -> Path:
        """The file's path, once its digest is right; see ``present``."""
        path = self.present(file)
        _check(path, file, sha256_file(path))
        return path

    def read(self, file: StoredFile, verify: bool = True) -> bytes:
        """The file's content; see ``present``."""
        path = self.present(file)
        data = path.read_bytes()
        if verify:
            _check(path, file, hashlib.sha256(data).hexdigest())
        return data

    def copy(self, file: StoredFile, folder: Path, link: bool = False) -> None:
        """Put the file into another store, under the same name, once its digest is right.

        Args:
            file: The file.
            folder: The other store's folder.
            link: As a hard link where the file system allows one.
        """
        path = self.verified(file)
        if link:
            try:
                return link_new(path, folder, file.name)
            except OSError:  # another disk, a limit of links, a mount without them
                pass
        with path.open("rb") as opened:
            digest, _ = write_pieces_new(folder, iter(lambda: opened.read(_PIECE), b""), lambda _: file.name)
        _check(path, file, digest)


def put(folder: Path, kind: FileKind, pieces: Iterable[bytes]) -> StoredFile:
    """Write a new file of a store; it counts once a manifest names it.

    Args:
        folder: The store's folder.
        kind: What it holds.
        pieces: Its content.

    Returns:
        How a manifest names it.

    Raises:
        OSError: If the disk refuses.
    """
    digest, size = write_pieces_new(folder, pieces, lambda digest: file_name(kind, digest))
    return StoredFile(kind=kind, bytes=size, sha256=digest)


def _check(path: Path, file: StoredFile, digest: str) -> None:
    if digest != file.sha256:
        raise StoreCorruptError(
            f"{path} has SHA-256 {digest[:16]}…; its manifest promises {file.sha256[:16]}…. "
            "Fetch the store again, or extract into a new folder."
        )
