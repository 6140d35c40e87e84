"""KnowledgeStore: ids in, vectors out; the read side, which needs neither torch nor a language model."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from msr_enhance.atomic import write_bytes_new
from msr_enhance.errors import StoreError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.hold import new_folder
from msr_enhance.store.derive.share import Shared, push_shared, share
from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.hub.remote import HubFiles, open_remote, reopened
from msr_enhance.store.hub.repository import PREFIX
from msr_enhance.store.hub.upload import Pushed
from msr_enhance.store.keyed import Key, as_key
from msr_enhance.store.reader import StoreReader, Unknown
from msr_enhance.store.record import Level
from msr_enhance.store.versions import highest_version, latest_manifest, read_manifest


class KnowledgeStore(StoreReader):
    """What a frozen language model said about users and scenarios.

    Opening reads a manifest and the first keys of an index, and so takes the same time for a hundred users
    and for millions. Vectors and texts are read from disk when they are asked for, each with its checksum,
    and handed out as copies. A store never changes: one opened while a run still writes shows the rows
    that were there. It needs no lock and may be read from many threads and forked processes. A pickled one
    names its files. It holds the key of the ids, so keep it secret, and never the token of the Hub: the other
    process uses its own ``hf auth login`` or HF_TOKEN.

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
        key: Key | None = None,
    ) -> Self:
        """Open a store at its highest version.

        Every row is compared with its checksum when it is read, in any case.

        Args:
            path: The store's folder.
            verify: Also compare the SHA-256 of every file with the manifest, which reads all of it.
            unknown: What ``vectors`` does with ids the store lacks: refuse, or give zeros.
            key: Of a store with keyed ids, its 32 bytes or the path of its file: ids are looked up as they
                are, and hashed with it.

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
                return cls(files, manifest, data, unknown, as_key(key))
            except StoreError:
                if highest_version(folder) == manifest.version:
                    raise  # else a writer has replaced files meanwhile
        raise StoreError(f"{folder} changes faster than it can be read; try again.")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        revision: str | None = None,
        *,
        verify: bool = False,
        unknown: Unknown = "error",
        key: Key | None = None,
        token: str | None = None,
    ) -> Self:
        """Open a store of the Hub, or a folder as ``load`` does.

        The name is resolved to a commit once. The manifest and the index are fetched now, each shard when
        a row of it is asked for; every file is compared with its SHA-256 in the manifest. What is in the
        Hub's cache needs no network; a warning says so where it stands in for a Hub out of reach.

        Args:
            name: A folder, ``owner/name``, ``owner/name@revision``, or these two after ``hf://datasets/``.
            revision: Branch, tag or commit of the repository.
            verify: Fetch and check every file now.
            unknown: As for ``load``.
            key: As for ``load``.
            token: Token of the Hub, instead of the one of ``hf auth login``.

        Returns:
            The store.

        Raises:
            StoreError: If there is no such repository or folder, or no store in it.
            StoreCorruptError: If a file is not what was written.
            StoreIOError: If the Hub cannot be reached, or the disk refuses.
        """
        if not str(name).startswith(PREFIX) and Path(name).is_dir():
            if revision is not None:
                raise StoreError(
                    f"{name} is a folder and has no revision {revision!r}; write its path alone."
                )
            return cls.load(name, verify, unknown=unknown, key=key)
        files, manifest, data = open_remote(str(name), revision, token, verify)
        if files.snapshot.note:
            warnings.warn(f"{name}: {files.snapshot.note}", UserWarning, stacklevel=2)
        return cls(files, manifest, data, unknown, as_key(key))

    @property
    def commit(self) -> str | None:
        """The commit of the Hub that it was read at, 40 hex digits; None for a folder."""
        return self._files.snapshot.commit if isinstance(self._files, HubFiles) else None

    def newest(self) -> Self:
        """This store if its folder or branch has no newer version, else that one, opened the same way.

        A server calls it now and then and puts the result in the place of its store: requests that are
        under way end on the old one.

        Returns:
            A store.

        Raises:
            StoreError: As ``load``.
        """
        if isinstance(self._files, HubFiles):
            asked = self._files.snapshot
            files, manifest, data = open_remote(asked.repo, asked.revision, asked.token)
            if files.snapshot.note:  # the cache may know an older commit than this one
                warnings.warn(f"{asked.repo}: {files.snapshot.note}", UserWarning, stacklevel=2)
                return self
            moved = files.snapshot.commit != asked.commit
            return type(self)(files, manifest, data, self._unknown, self._key) if moved else self
        if hashlib.sha256(latest_manifest(self.path)[1]).hexdigest() == self.fingerprint:
            return self
        return type(self).load(self.path, unknown=self._unknown, key=self._key)

    def save(self, path: str | Path, texts: bool = True) -> None:
        """Copy the store to a new folder, byte for byte; a call that was killed may be made again.

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
        if not texts and any(isinstance(entry, Shard) and entry.texts for entry in manifest.shards):
            entries = tuple(
                entry.model_copy(update={"texts": None}) if isinstance(entry, Shard) else entry
                for entry in manifest.shards
            )
            manifest = manifest.model_copy(update={"shards": entries, "parent": self.fingerprint})
        with new_folder(folder, "the copy"):
            if isinstance(self._files, HubFiles):
                self._files.fetch_all(dict.fromkeys(manifest.files()))
            for file in dict.fromkeys(manifest.files()):
                self._files.copy(file, folder)
            write_bytes_new(folder, manifest.name, manifest.to_bytes())

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        key: Key | None = None,
        raw_ids: bool = False,
        texts: bool = False,
        levels: Sequence[Level] | None = None,
        name: str | None = None,
        license: str = "other",
    ) -> Shared:
        """Write a copy that may be shared: what ``push_to_hub`` sends, with its card, and nothing else.

        Args:
            folder: A folder that is empty or not there yet.
            key: 32 secret bytes, or the path of their file. Users appear under ids hashed with it; keep it,
                nobody finds a user without it.
            raw_ids: Users appear under their own ids.
            texts: Also prompts, answers and facts.
            levels: Only these levels, for example ``("scenario",)``, which tells of no user.
            name: Name for the card; default: that of the folder.
            license: The licence that the card names.

        Returns:
            What is in the folder.

        Raises:
            StoreError: If user ids would leave and neither a key nor ``raw_ids`` is given, or the folder
                holds something.
            StoreCorruptError: If the store is damaged.
        """
        if key is not None and raw_ids:
            raise StoreError("key= and raw_ids=True were both given; write the one you want.")
        keyed = "user" in self._manifest.keyed
        if keyed and raw_ids:
            raise StoreError(f"{self.path} has no ids but keyed hashes; leave raw_ids out.")
        if key is None and not raw_ids and not keyed and "user" in (levels or self.levels):
            raise StoreError(
                "user ids leave as keyed hashes, and no key was given. Write key=secrets.token_bytes(32) and "
                "keep it; or raw_ids=True where ids may be seen, or levels=('scenario',) to share no users."
            )
        return share(
            Version.of(self),
            Path(folder),
            name=name or Path(folder).name,
            key=as_key(key),
            texts=texts,
            levels=levels,
            license=license,
        )

    def push_to_hub(
        self,
        repo: str,
        *,
        key: Key | None = None,
        raw_ids: bool = False,
        texts: bool = False,
        levels: Sequence[Level] | None = None,
        private: bool = True,
        license: str = "other",
        revision: str | None = None,
        token: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Pushed:
        """Put a copy into a dataset repository of the Hub, in one commit; see ``save_pretrained``.

        The copy is written to a temporary folder first. A push that was interrupted may be made again:
        files that arrived are not sent again.

        Args:
            repo: ``owner/name``; it is made where it is not there.
            key: As for ``save_pretrained``.
            raw_ids: As for ``save_pretrained``.
            texts: As for ``save_pretrained``.
            levels: As for ``save_pretrained``.
            private: False allows a repository that everybody can read.
            license: The licence that the card names.
            revision: Branch, which must be there; the default branch where it is missing.
            token: Token of the Hub, instead of the one of ``hf auth login``.
            say: Is told what happens.

        Returns:
            The commit, and what was sent.

        Raises:
            StoreError: If the repository is public and that was not allowed, texts for the public hold
                what looks personal, somebody else pushed meanwhile, or the Hub refuses.
            StoreIOError: If the Hub cannot be reached; the same call goes on.
        """
        with tempfile.TemporaryDirectory(prefix="msr-enhance-push-") as made:
            folder = Path(made) / "store"
            shared = self.save_pretrained(
                folder, key=key, raw_ids=raw_ids, texts=texts, levels=levels, name=repo, license=license
            )
            return push_shared(shared, folder, repo, private=private, revision=revision, token=token, say=say)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self._files, self.fingerprint, self._unknown, self._key)


def _reopened(
    kind: type[KnowledgeStore], files: StoreFiles, fingerprint: str, unknown: Unknown, key: bytes | None
) -> KnowledgeStore:
    """A store that was sent to another process: the same version, opened there."""
    if isinstance(files, HubFiles):
        return kind(*reopened(files, fingerprint), unknown, key)
    with contextlib.suppress(FileNotFoundError):
        manifest, data = read_manifest(files.folder, files.version)
        if hashlib.sha256(data).hexdigest() == fingerprint:
            return kind(files, manifest, data, unknown, key)
    raise StoreError(f"{files.folder} has changed since it was opened elsewhere; open it again.")
