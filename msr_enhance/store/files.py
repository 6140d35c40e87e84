"""The files of one version of a store: opened, of the right kind and size, and read piece by piece.

Files are read with ``pread`` and never mapped: a disk that fails, or a file that somebody cut, is then an
error with a name and not the end of the process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from msr_enhance.atomic import Buffer, link_new, write_pieces_new
from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.checks import flat_bytes
from msr_enhance.store.entry import FileKind, StoredFile, file_name
from msr_enhance.store.frame import Frame, corrupt
from msr_enhance.store.versions import highest_version

_PIECE: Final = 1 << 20
_GAP: Final = 1 << 12  # reading this much for nothing is faster than another call


class OpenFile:
    """One open file of a store.

    Attributes:
        path: Where it lies.
        bytes: Its size.
    """

    def __init__(self, descriptor: int, path: Path, size: int) -> None:
        self.path = path
        self.bytes = size
        self._descriptor = descriptor

    def read(self, start: int, end: int) -> bytearray:
        """The bytes from one place to another.

        Raises:
            StoreCorruptError: If the file ends before.
            StoreIOError: If the disk refuses.
        """
        self._inside(start, end)
        data = bytearray(end - start)
        self._fill(memoryview(data), start)
        return data

    def check(self, frame: Frame) -> None:
        """Refuse the file unless it has the size and the header that are expected.

        Raises:
            StoreCorruptError: If it has others.
            StoreIOError: If the disk refuses.
        """
        if self.bytes != frame.bytes:
            raise corrupt(str(self.path), f"it has {self.bytes:,} bytes, its rows need {frame.bytes:,}")
        if self.read(0, len(frame.header)) != frame.header:
            raise corrupt(str(self.path), "its header names other tensors than the manifest")

    def rows(self, start: int, row_bytes: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Some rows of a matrix.

        Args:
            start: Where the matrix begins.
            row_bytes: Bytes of a row.
            wanted: The rows, ascending, none twice.

        Returns:
            A new array ``[len(wanted), row_bytes]``.

        Raises:
            StoreCorruptError: If the file ends before.
            StoreIOError: If the disk refuses.
        """
        found = np.empty((len(wanted), row_bytes), np.uint8)
        if not len(wanted):
            return found
        ends = np.flatnonzero((np.diff(wanted) - 1) * row_bytes > _GAP) + 1
        for first, last in itertools.pairwise([0, *ends.tolist(), len(wanted)]):
            low, high = int(wanted[first]), int(wanted[last - 1]) + 1
            begin, end = start + low * row_bytes, start + high * row_bytes
            self._inside(begin, end)
            if high - low == last - first:
                self._fill(flat_bytes(found[first:last]), begin)
            else:
                data = np.frombuffer(self.read(begin, end), np.uint8).reshape(-1, row_bytes)
                found[first:last] = data[wanted[first:last] - low]
        return found

    def digest(self) -> str:
        """SHA-256 of the whole file."""
        total = hashlib.sha256()
        for piece in self.pieces():
            total.update(piece)
        return total.hexdigest()

    def pieces(self) -> Iterator[Buffer]:
        """The whole file, piece by piece."""
        for start in range(0, self.bytes, _PIECE):
            yield self.read(start, min(start + _PIECE, self.bytes))

    def _inside(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.bytes:  # before anything of that size is allocated
            raise corrupt(str(self.path), f"bytes {start:,} to {end:,} are outside of it")

    def _fill(self, rest: memoryview, start: int) -> None:
        while rest:
            try:
                count = os.preadv(self._descriptor, [rest], start)
            except OSError as error:
                raise refused(self.path, error) from error
            if not count:
                raise corrupt(str(self.path), f"it ends before byte {start + len(rest):,}")
            rest, start = rest[count:], start + count


class StoreFiles:
    """Reads the files that one version of a store names.

    Args:
        folder: The store's folder.
        version: The version that names them.
    """

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.version = version

    def path(self, file: StoredFile) -> Path:
        """Where a file lies, or should."""
        return self.folder / file.name

    @contextlib.contextmanager
    def open(self, file: StoredFile) -> Iterator[OpenFile]:
        """A file, once it is a regular one of the right size.

        Raises:
            StoreCorruptError: If it is missing, a link, or of another size.
            StoreIOError: If the disk refuses.
            StoreError: If a newer version replaced it and its time is over.
        """
        path = self.path(file)
        descriptor = self._descriptor(path)
        try:
            try:
                found = os.fstat(descriptor)
            except OSError as error:
                raise refused(path, error) from error
            if not stat.S_ISREG(found.st_mode):
                raise corrupt(str(path), "it is no regular file")
            if found.st_size != file.bytes:
                raise corrupt(
                    str(path), f"it has {found.st_size:,} bytes, its manifest promises {file.bytes:,}"
                )
            yield OpenFile(descriptor, path, file.bytes)
        finally:
            with contextlib.suppress(OSError):  # read only: nothing can be lost
                os.close(descriptor)

    def present(self, file: StoredFile) -> Path:
        """The file's path, once it is there; see ``open``."""
        with self.open(file) as opened:
            return opened.path

    def verified(self, file: StoredFile) -> Path:
        """The file's path, once its digest is right; see ``open``."""
        with self.open(file) as opened:
            _check(opened.path, file, opened.digest())
            return opened.path

    def check_all(self, named: Iterable[StoredFile], verify: bool) -> None:
        """Refuse files that are missing, of another size or, with `verify`, of another digest.

        Raises:
            StoreCorruptError: If any is; lists the first five.
            StoreIOError: If the disk refuses.
            StoreError: If a newer version replaced one and its time is over.
        """
        wrong = []
        for file in dict.fromkeys(named):
            try:
                (self.verified if verify else self.present)(file)
            except StoreCorruptError as error:
                wrong.append(error)
        if len(wrong) > 1:
            listed = "\n  ".join(str(error).partition(". ")[0] for error in wrong[:5])
            raise StoreCorruptError(
                f"{self.folder} has {len(wrong)} damaged or missing files:\n  {listed}\nFetch the store "
                f"again, or write: msr-enhance store repair {self.folder}"
            ) from wrong[0]
        if wrong:
            raise wrong[0]

    def read(self, file: StoredFile) -> bytearray:
        """The file's content, once its digest is right; see ``open``."""
        with self.open(file) as opened:
            data = opened.read(0, file.bytes)
            _check(opened.path, file, hashlib.sha256(data).hexdigest())
            return data

    def copy(self, file: StoredFile, folder: Path, link: bool = False) -> None:
        """Put the file into another store, under the same name, once its digest is right.

        Args:
            file: The file.
            folder: The other store's folder.
            link: As a hard link where the file system allows one.
        """
        if link:
            path = self.verified(file)
            try:
                return link_new(path, folder, file.name)
            except OSError:  # another disk, a limit of links, a mount without them
                pass
        with self.open(file) as opened:
            digest, _ = write_pieces_new(folder, opened.pieces(), lambda _: file.name)
            _check(opened.path, file, digest)

    def _descriptor(self, path: Path) -> int:
        # Not blocking: a pipe under the name of a file must not hang the reader.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise self._missing(path) from error
            if error.errno != errno.ELOOP:
                raise refused(path, error) from error
        target = _in_hub_cache(path)
        if target is None:
            raise corrupt(str(path), "it is a symbolic link, and a store holds its own files")
        try:
            return os.open(target, flags)
        except OSError as error:
            raise refused(path, error) from error

    def _missing(self, path: Path) -> StoreError:
        if highest_version(self.folder) > self.version:
            return StoreError(
                f"{path} is gone: version {self.version} of the store was read, and newer ones have "
                "replaced that file. Load the store again."
            )
        return corrupt(str(path), "it is missing, and its manifest names it")


def put(folder: Path, kind: FileKind, pieces: Iterable[Buffer], blob: int = 0) -> StoredFile:
    """Write a new file of a store; it counts once a manifest names it.

    Args:
        folder: The store's folder.
        kind: What it holds.
        pieces: Its content.
        blob: Bytes of its texts; see ``StoredFile``.

    Returns:
        How a manifest names it.

    Raises:
        OSError: If the disk refuses.
    """
    digest, size = write_pieces_new(folder, pieces, lambda digest: file_name(kind, digest))
    return StoredFile(kind=kind, bytes=size, sha256=digest, blob=blob)


def refused(path: Path, error: OSError) -> StoreIOError:
    """The error for a disk that does not give what is on it."""
    return StoreIOError(
        f"{path} could not be read: {error.strerror or error}. What was committed is unharmed as far as this "
        "library knows; look at the disk, then run the same command again."
    )


def _in_hub_cache(path: Path) -> Path | None:
    """Where a link of the Hub's cache leads, `snapshots/<commit>/name` to `blobs/`; None for any other."""
    target, snapshot = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    repository = snapshot.parent.parent
    # Newer releases of the Hub's client keep one folder of blobs for all repositories.
    own = {repository / "blobs", repository.parent / "blobs"}
    return target if snapshot.parent.name == "snapshots" and own & set(target.parents) else None


def _check(path: Path, file: StoredFile, digest: str) -> None:
    if digest != file.sha256:
        raise StoreCorruptError(
            f"{path} has SHA-256 {digest[:16]}…; its manifest promises {file.sha256[:16]}…. Fetch the store "
            f"again, or write: msr-enhance store repair {path.parent}"
        )
