"""KnowledgeStore: ids in, vectors out; the read side, which needs neither torch nor a language model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Self

from msr_enhance.atomic import write_bytes_new
from msr_enhance.errors import StoreError
from msr_enhance.store.commit import writing
from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.reader import StoreReader, Unknown
from msr_enhance.store.versions import highest_version, latest_manifest, manifest_versions, read_manifest


class KnowledgeStore(StoreReader):
    """What a frozen language model said about users and scenarios.

    Opening reads a manifest and the first keys of an index, and so takes the same time for a hundred users
    and for millions. Vectors and texts are read from disk when they are asked for, each with its checksum,
    and handed out as copies. A store never changes: one opened while a run still writes shows the rows
    that were there. It needs no lock and may be read from many threads and forked processes.

    Attributes:
        path: The folder it was read from.
        provenance: How it was made: identity, window, facts.
        version: Counts up with every commit of the run that wrote it.
        fingerprint: SHA-256 of its manifest; pins every byte of it.
    """

    @classmethod
    def load(
        cls,
        path: str | Path,
        verify: bool = False,
        *,
        unknown: Unknown = "error",
        key: bytes | None = None,
    ) -> Self:
        """Open a store at its highest version.

        Every row is compared with its checksum when it is read, in any case.

        Args:
            path: The store's folder.
            verify: Also compare the SHA-256 of every file with the manifest, which reads all of it.
            unknown: What ``vectors`` does with ids the store lacks: refuse, or give zeros.
            key: Of a store with keyed ids: look up ids as they are, and hash them with this key.

        Returns:
            The store.

        Raises:
            StoreError: If there is no store; lists what was looked for.
            StoreCorruptError: If a file is missing or is not what was written.
            StoreIOError: If the disk refuses.
            StoreVersionError: If another version of the library wrote it.
        """
        folder = Path(path)
        for _ in range(10):
            manifest, data = latest_manifest(folder)
            try:
                files = StoreFiles(folder, manifest.version)
                files.check_all(manifest.files(), verify)
                return cls(files, manifest, data, unknown, key)
            except StoreError:
                if highest_version(folder) == manifest.version:
                    raise  # else a writer has replaced files meanwhile
        raise StoreError(f"{folder} changes faster than it can be read; try again.")

    def newest(self) -> Self:
        """This store if its folder has no newer version, else that one; the policy and the key stay.

        A server calls it now and then and puts the result in the place of its store: requests that are
        under way end on the old one.

        Returns:
            A store.

        Raises:
            StoreError: As ``load``.
        """
        if highest_version(self.path) == self.version:
            return self
        return type(self).load(self.path, unknown=self._unknown, key=self._key)

    def save(self, path: str | Path, texts: bool = True) -> None:
        """Copy the store to a new folder, byte for byte.

        A row that was dropped and still lies in a file is copied with it; no reader sees it, and
        ``msr-enhance store compact`` removes it.

        Args:
            path: A folder that is empty or not there yet.
            texts: Also copy prompts, answers and facts; a store to share needs none of them.

        Raises:
            StoreError: If the folder holds something.
            StoreCorruptError: If this store's files have changed since they were written.
        """
        folder, manifest = Path(path), self._manifest
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(f"{folder} is not an empty folder; save into a new one.")
        if not texts and any(isinstance(entry, Shard) and entry.texts for entry in manifest.shards):
            entries = tuple(
                entry.model_copy(update={"texts": None}) if isinstance(entry, Shard) else entry
                for entry in manifest.shards
            )
            manifest = manifest.model_copy(update={"shards": entries, "parent": self.fingerprint})
        with writing(folder, "the copy"):
            folder.mkdir(0o750, parents=True, exist_ok=True)
            for file in dict.fromkeys(manifest.files()):
                self._files.copy(file, folder)
            write_bytes_new(folder, manifest.name, manifest.to_bytes())

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self.path, self.fingerprint, self._unknown, self._key)


def _reopened(
    kind: type[KnowledgeStore], path: Path, fingerprint: str, unknown: Unknown, key: bytes | None
) -> KnowledgeStore:
    """A store that was sent to another process: the same version, opened there."""
    for version in sorted(manifest_versions(path), reverse=True):
        manifest, data = read_manifest(path, version)
        if hashlib.sha256(data).hexdigest() == fingerprint:
            return kind(StoreFiles(path, version), manifest, data, unknown, key)
    raise StoreError(f"{path} has changed since it was opened elsewhere; open it again.")
