"""A store on the Hub: opened by its manifest, and each further file fetched when a row of it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.entry import StoredFile
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.hub.cache import other_commits
from msr_enhance.store.hub.repository import Snapshot, fetch, find, resolve
from msr_enhance.store.manifest import MANIFEST_BYTES, Manifest
from msr_enhance.store.versions import read_manifest

_AT_ONCE = 8
_MANIFEST = re.compile(r"manifest-([1-9][0-9]{0,17})\.json")


class HubFiles(StoreFiles):
    """The files of a store in a dataset repository at one commit, by way of the Hub's cache.

    Args:
        snapshot: The commit.
        folder: Where the cache keeps its files.
        version: The version of the store.
    """

    def __init__(self, snapshot: Snapshot, folder: Path, version: int) -> None:
        super().__init__(folder, version)
        self.snapshot = snapshot
        self._found: dict[str, tuple[Path, tuple[int, int]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return HubFiles, (self.snapshot, self.folder, self.version)

    def path(self, file: StoredFile) -> Path:
        """Where a file lies, once it is fetched and its digest is right.

        Raises:
            StoreCorruptError: If the repository holds another file.
            StoreIOError: If it cannot be fetched now.
        """
        found = self._found.get(file.name)
        if found is not None and _state(found[0]) == found[1]:
            return found[0]
        path = fetch(self.snapshot, file.name, file.sha256, file.bytes)
        self._found[file.name] = path, _state(path)
        return path

    def check_all(self, named: Iterable[StoredFile], verify: bool) -> None:
        """Refuse files that the repository lacks; with `verify`, fetch them all and look at each."""
        files = list(dict.fromkeys(named))
        there = set(self.snapshot.files)
        if not self.snapshot.note and (lacks := [file.name for file in files if file.name not in there]):
            raise StoreCorruptError(
                f"{self.snapshot.repo} at {self.snapshot.commit[:12]} lacks {len(lacks)} files that its "
                f"manifest names, the first of them {lacks[0]}. Push the store again."
            )
        if verify:
            self.fetch_all(files)
            super().check_all(files, verify)

    def fetch_all(self, files: Iterable[StoredFile]) -> None:
        """Fetch some files, several at once; see ``path``."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self.path, files):
                pass


class Remote(NamedTuple):
    """The newest version of a store in a repository.

    Attributes:
        files: Its files.
        manifest: Its manifest.
        data: The bytes of the manifest.
    """

    files: HubFiles
    manifest: Manifest
    data: bytes


def open_remote(name: str, revision: str | None, token: str | None, verify: bool = False) -> Remote:
    """Find a store on the Hub, and never in a folder; its manifest is all that is fetched.

    Args:
        name: ``owner/name``, ``owner/name@revision`` or the same after ``hf://datasets/``.
        revision: Branch, tag or commit; the default branch where it is missing.
        token: Token of the Hub, instead of the one of `hf auth login`.
        verify: Fetch and check every file.

    Returns:
        The store at one commit, whatever happens to the branch later.

    Raises:
        StoreError: If there is no such repository, or no store in it.
        StoreCorruptError: If its manifest is damaged, or the repository lacks a file of it.
        StoreIOError: If the Hub cannot be reached and the cache does not have it.
    """
    snapshot = resolve(name, revision, token)
    version = _version(snapshot)
    if not version and snapshot.note:
        others = ", ".join(other_commits(snapshot.repo, snapshot.commit)[:5]) or "none"
        raise StoreIOError(
            f"{snapshot.repo}: no manifest is in the cache: {snapshot.note} Other commits that have one "
            f"there, to be named as revision: {others}."
        )
    if not version:
        raise StoreError(
            f"{snapshot.repo} at {snapshot.commit[:12]} holds no manifest-<n>.json, and so no store; a store "
            "gets there by: msr-enhance store push STORE " + snapshot.repo
        )
    found = _read(snapshot, version)
    found.files.check_all(found.manifest.files(), verify)
    return found


def remote_manifest(repo: str, revision: str | None, token: str | None) -> Manifest | None:
    """The manifest that a repository holds now, for who is about to push there.

    Args:
        repo: See `open_remote`.
        revision: Branch; the default branch where it is missing.
        token: Token of the Hub, instead of the one of `hf auth login`.

    Returns:
        The manifest; None where there is no such repository, or no store in it.

    Raises:
        StoreError: If there is no such branch, or it may not be read.
        StoreCorruptError: If the manifest is damaged.
        StoreIOError: If the Hub cannot be reached, whatever the cache has.
    """
    snapshot = find(repo, revision, token)
    if snapshot is None:
        return None
    if snapshot.note:
        raise StoreIOError(f"{snapshot.repo}: what it holds now is not known; {snapshot.note}")
    version = _version(snapshot)
    return _read(snapshot, version).manifest if version else None


def reopened(files: HubFiles, fingerprint: str) -> Remote:
    """The same store again, in a process that was sent its files; fetched anew where the cache is gone.

    Args:
        files: Its files.
        fingerprint: SHA-256 of its manifest.

    Returns:
        The store, at the same commit.

    Raises:
        StoreCorruptError: If the repository holds another manifest at that commit.
        StoreError: If it may not be read.
        StoreIOError: If it is not in the cache and the Hub cannot be reached.
    """
    return _read(files.snapshot, files.version, fingerprint)


def _version(snapshot: Snapshot) -> int:
    """The highest version of a store in a repository, 0 where there is none."""
    return max((int(match[1]) for file in snapshot.files if (match := _MANIFEST.fullmatch(file))), default=0)


def _read(snapshot: Snapshot, version: int, fingerprint: str | None = None) -> Remote:
    name = f"manifest-{version}.json"
    size = snapshot.sizes.get(name)
    if name in snapshot.files and (size is None or size > MANIFEST_BYTES):
        seen = "has no size on the Hub" if size is None else f"has {size:,} bytes"
        raise StoreCorruptError(
            f"{snapshot.repo}@{snapshot.commit[:12]}/{name} {seen}; a manifest has at most "
            f"{MANIFEST_BYTES:,}. Nothing was fetched. Push the store again, or name an older revision."
        )
    path = fetch(snapshot, name, fingerprint, size)
    manifest, data = read_manifest(path.parent, version)
    return Remote(HubFiles(snapshot, path.parent, version), manifest, data)


def _state(path: Path) -> tuple[int, int]:
    """What changes when somebody writes a file or takes it away."""
    try:
        found = path.stat()
    except OSError:
        return 0, -1
    return found.st_mtime_ns, found.st_size
