"""Holding a store: its lock, its newest version, and the files that a call put there before it failed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from msr_enhance.atomic import make_folder
from msr_enhance.errors import StoreError
from msr_enhance.store import lock
from msr_enhance.store.adopt import Version
from msr_enhance.store.commit import commit, numbered, writing
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.lock import Lock
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.sweep import OURS, names_of, sweep_at_open
from msr_enhance.store.versions import latest_manifest, manifest_versions, read_manifest

DAMAGED: Final = "damaged"
"""The folder in a store that keeps damaged files."""


class Held(NamedTuple):
    """A store that nobody else writes to.

    Attributes:
        folder: Its folder.
        manifest: Its newest version.
        digest: SHA-256 of that manifest.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> Self:
        """A store at a version that was committed just now."""
        return cls(folder, manifest, hashlib.sha256(manifest.to_bytes()).hexdigest())

    @property
    def version(self) -> Version:
        """Its newest version, to take rows from."""
        return Version(StoreFiles(self.folder, self.manifest.version), self.manifest)

    def commit(self, new: Manifest) -> Manifest:
        """Make a version of the store durable; what it no longer needs is removed after the usual time.

        Args:
            new: Its content; number and parent are filled in.

        Returns:
            The version as it stands on disk.

        Raises:
            StoreError: If another writer came first all the same.
            OSError: If the disk refuses.
        """
        new = numbered(new, self.manifest.version + 1, self.digest)
        commit(self.folder, self.manifest, new)
        return new


@contextlib.contextmanager
def hold(folder: Path, what: str) -> Iterator[Held]:
    """Hold a store as a writer does.

    Args:
        folder: Its folder.
        what: What is done meanwhile, for messages.

    Yields:
        The store. Where the block fails, files it made are removed that no version names.

    Raises:
        StoreLockedError: If a writer has it open.
        StoreCorruptError: If its newest manifest is damaged.
        StoreError: If there is no store, or the disk refuses.
    """
    with locked(folder, what):
        manifest, data = latest_manifest(folder)
        sweep_at_open(folder, manifest)
        with writing(folder, what), removing_new(folder):
            yield Held(folder, manifest, hashlib.sha256(data).hexdigest())


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a store, whatever state it is in; see ``hold``."""
    if not manifest_versions(folder):
        latest_manifest(folder)  # says what was looked for
    with writing(folder, what):
        held = Lock.take(folder)
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def new_folder(folder: Path, what: str, ours: re.Pattern[str] = OURS) -> Iterator[None]:
    """Hold a folder in which a store will be made; what a call that was killed left in it is removed.

    Args:
        folder: It need not be there yet.
        what: What is done, for messages.
        ours: Names of what such a call may have left; where a manifest names it, it is left alone.

    Raises:
        StoreError: If it holds anything else, or the disk refuses.
        StoreLockedError: If a writer has it open.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is a folder. Write another path.")
    with writing(folder, what):
        make_folder(folder)
        held = Lock.take(folder)
        try:
            names = os.listdir(folder)
            made = [f"manifest-{version}.json" for version in manifest_versions(folder)]
            left = [name for name in names if OURS.fullmatch(name) or ours.fullmatch(name)]
            if other := made or sorted(set(names) - set(left) - {lock.NAME}):
                raise StoreError(f"{folder} holds {other[0]!r}; write the path of a new or empty folder.")
            for name in left:
                os.unlink(folder / name)
            with removing_new(folder):
                yield
            # It names a machine, and the folder may be one to be shared.
            os.unlink(folder / lock.NAME)
        finally:
            held.release()


def left_over(folder: Path, *versions: Manifest) -> list[str]:
    """Names of files of our kind in a folder that none of some versions names."""
    needed = set[str]().union(*map(names_of, versions))
    return sorted(name for name in os.listdir(folder) if OURS.fullmatch(name) and name not in needed)


@contextlib.contextmanager
def removing_new(folder: Path) -> Iterator[None]:
    """Remove the files that a failing block made in a store, unless a version names them."""
    before = set(os.listdir(folder))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, StoreError):  # a version that cannot be read may name them
            made = [read_manifest(folder, version)[0] for version in manifest_versions(folder)]
            for name in set(left_over(folder, *made)) - before:
                os.unlink(folder / name)
        raise


def refuse_full(folder: Path, needed: int, what: str) -> None:
    """Refuse to start what does not fit on the disk.

    Args:
        folder: Where it is to be written.
        needed: How many bytes.
        what: What needs them, for the message.

    Raises:
        StoreError: If fewer are free; says how many are missing.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"{what} needs {needed:,} bytes on the disk of {folder} and {free:,} are free: make room for "
            f"{needed - free:,} more, or write --out on another disk. Nothing was changed."
        )
