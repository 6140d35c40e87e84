"""A store on the Hub: opened by its manifest, and each further file fetched when a row of it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store.entry import StoredFile
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.hub.repository import Snapshot, fetch, resolve
from msr_enhance.store.manifest import Manifest
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

    def path(self, file: StoredFile) -> Path:
        """Where a file lies, once it is fetched and its digest is right.

        Raises:
            StoreCorruptError: If the repository holds another file.
            StoreIOError: If it cannot be fetched now.
        """
        return fetch(self.snapshot, file.name, file.sha256, file.bytes)

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


def open_remote(name: str, revision: str | None, token: str | None) -> Remote:
    """Find a store on the Hub; its manifest is all that is fetched.

    Args:
        name: ``owner/name``, ``owner/name@revision`` or the same after ``hf://datasets/``.
        revision: Branch, tag or commit; the default branch where it is missing.
        token: Token of the Hub, instead of the one of `hf auth login`.

    Returns:
        The store at one commit, whatever happens to the branch later.

    Raises:
        StoreError: If there is no such repository, or no store in it.
        StoreCorruptError: If its manifest is damaged.
        StoreIOError: If the Hub cannot be reached and the cache does not have it.
    """
    snapshot = resolve(name, revision, token)
    versions = [int(match[1]) for file in snapshot.files if (match := _MANIFEST.fullmatch(file))]
    if not versions:
        raise StoreError(
            f"{snapshot.repo} at {snapshot.commit[:12]} holds no manifest-<n>.json, and so no store; a store "
            "gets there by: msr-enhance store push STORE " + snapshot.repo
        )
    path = fetch(
        snapshot, f"manifest-{max(versions)}.json", None, snapshot.sizes.get(f"manifest-{max(versions)}.json")
    )
    manifest, data = read_manifest(path.parent, max(versions))
    return Remote(HubFiles(snapshot, path.parent, manifest.version), manifest, data)
