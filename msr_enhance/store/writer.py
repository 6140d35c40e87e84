"""StoreWriter: adds rows to a store, a durable commit at a time, and resumes where a run ended."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from msr_enhance.atomic import TEMPORARY, create_exclusive
from msr_enhance.errors import StoreError, StoreIdentityError, UnknownIdError, not_one_of
from msr_enhance.store.adopt import Version, adoptable, bring, same_kind
from msr_enhance.store.batch import encode_batch
from msr_enhance.store.commit import commit, other_writer, writing
from msr_enhance.store.entry import Entry, Shard
from msr_enhance.store.files import StoreFiles, put
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Manifest, Provenance, highest_version, latest_manifest
from msr_enhance.store.record import LEVELS, Level, Record, Status, check_id_types, exact_id
from msr_enhance.store.rows import Rows, count_statuses, prompt_digests, read_rows
from msr_enhance.store.seal import added, bury, is_small
from msr_enhance.store.sweep import sweep_at_open

Dtype = Literal["float32", "float16"]


class StoreWriter:
    """The write side of a store.

    A row counts once ``append`` has returned: its shard is on disk and a manifest names it. A run that
    ends earlier leaves files that no manifest names, and readers do not see them. Batches may be small:
    many small shards are rewritten as a larger one along the way.

    Attributes:
        path: The store's folder.
    """

    def __init__(self, path: Path, manifest: Manifest, data: bytes, rows: dict[Level, Rows]) -> None:
        """Continue after a manifest; use ``StoreWriter.open``."""
        self.path = path
        self._manifest = manifest
        self._written = manifest.provenance
        self._digest = hashlib.sha256(data).hexdigest()
        self._rows = {level: rows.get(level, Rows({}, Counter())) for level in LEVELS}

    @classmethod
    def open(
        cls, path: str | Path, provenance: Provenance, dtype: Dtype = "float32", *, refresh: bool = False
    ) -> Self:
        """Create a store, or resume one.

        Args:
            path: A folder that is empty or not there yet, or a store made the same way or without rows.
            provenance: How the rows will be made.
            dtype: How vectors are kept.
            refresh: The store may be of another window, and of other prompts in so far as they follow
                from the log: whoever opens it then compares prompts and drops the rows that changed. The
                new provenance is written with the next commit.

        Returns:
            The writer.

        Raises:
            StoreIdentityError: If the store was made another way; lists old and new, field by field.
            StoreError: If the folder holds something else, or cannot be written.
            StoreCorruptError: If the store to resume is damaged.
        """
        folder = Path(path)
        if highest_version(folder):
            return cls._resume(folder, provenance, dtype, refresh)
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file; a store is a folder. Write another path.")
        if folder.is_dir() and (
            other := [p.name for p in folder.iterdir() if not p.name.startswith(TEMPORARY)]
        ):
            raise StoreError(
                f"{folder} holds {other[0]!r} and is no store; write the path of a new or empty folder."
            )
        manifest = Manifest(store=uuid.uuid4().hex, dtype=dtype, provenance=provenance)
        data = manifest.to_bytes()
        try:
            folder.mkdir(0o750, parents=True, exist_ok=True)
            create_exclusive(folder, manifest.name, data)
        except FileExistsError as error:
            raise other_writer(folder) from error
        except OSError as error:
            raise StoreError(f"a store cannot be made in {folder}: {error}. Write another path.") from error
        if highest_version(folder) > manifest.version:  # one that was faster has removed this version
            (folder / manifest.name).unlink(missing_ok=True)
            raise other_writer(folder)
        return cls(folder, manifest, data, {})

    @classmethod
    def _resume(cls, folder: Path, provenance: Provenance, dtype: Dtype, refresh: bool) -> Self:
        manifest, data = latest_manifest(folder)
        changes = manifest.provenance.changes(provenance, refresh)
        if dtype != manifest.dtype:
            changes.append(f"dtype: {manifest.dtype!r} in the store, {dtype!r} now")
        if changes and manifest.shards:  # a store without rows is of no kind yet
            raise StoreIdentityError(
                f"{folder} was made another way, and rows of two kinds do not mix:\n  "
                + "\n  ".join(line[:300] for line in changes[:20])
                + f"\nAsk for what the store has, or write into a new folder, for example {folder}-2."
            )
        sweep_at_open(folder, manifest)  # before the long part, so that what it keeps is what stands
        files = StoreFiles(folder, manifest.version)
        rows = {level: read_rows(files, manifest, level, verify=True) for level in manifest.shape}
        writer = cls(folder, manifest, data, rows)
        writer._manifest = manifest.model_copy(update={"provenance": provenance, "dtype": dtype})
        return writer

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the newest manifest, as ``KnowledgeStore.fingerprint``."""
        return self._digest

    def done(self, level: Level) -> set[int | str]:
        """The ids a level has, whatever their status."""
        return set(self._level(level).live)

    def statuses(self) -> dict[Level, dict[Status, int]]:
        """How many rows of each level have each status; levels and statuses without rows are left out."""
        return {level: count_statuses(rows) for level, rows in self._rows.items() if rows.live}

    def prompt_digests(self, level: Level) -> Iterator[tuple[int | str, Status, bytes]]:
        """What was asked about each row: id, status and ``prompt_digest`` of the prompt, shard by shard.

        Args:
            level: ``user`` or ``scenario``.

        Returns:
            Each row that counts, in the order written.

        Raises:
            StoreError: If the store was saved without texts.
            StoreCorruptError: If a file is not what was written.
        """
        self._level(level)
        return prompt_digests(self._files(), self._manifest, level)

    def append(self, level: Level, records: Sequence[Record]) -> None:
        """Commit rows, all or none; they are durable when this returns.

        Args:
            level: ``user`` or ``scenario``.
            records: The rows, with new ids of one type and vectors of one shape.

        Raises:
            StoreError: If an id is not new or of another type, a vector is not finite or of another
                shape, another writer came first, or the disk refuses. The store is as before.
        """
        rows = self._level(level)
        if not records:
            return
        ids = [exact_id(record.id) for record in records]
        if twice := [name for name, n in Counter(ids).items() if n > 1 or name in rows.live]:
            raise StoreError(
                f"{len(twice)} {level} ids come twice or are in {self.path} already: {_ten(twice)}. "
                f"Leave out what writer.done({level!r}) has."
            )
        batch = encode_batch(self._manifest, level, records, str(self.path))
        draft = self._manifest.model_copy(
            update={
                "shape": self._manifest.shape | {level: batch.shape},
                "id_type": self._manifest.id_type | {level: batch.id_type},
            }
        )
        with writing(self.path, f"{len(ids)} {level} rows"):
            files = [put(self.path, "vec", [batch.vectors]), put(self.path, "txt", [batch.texts])]
            shard = Shard(level=level, rows=len(ids), vectors=files[0], texts=files[1])
            entries, dead = added(self._files(), draft, draft.entries(level), [shard], rows.dead)
            self._commit(draft, {level: entries})
        rows.live.update(zip(ids, batch.status, strict=True))
        self._rows[level] = Rows(rows.live, dead)

    def drop(self, level: Level, ids: Iterable[int | str]) -> None:
        """Commit that some rows no longer count; readers do not see them, and they may be added again.

        A provenance that is new since the store was opened is written too, also when no ids are given.

        Args:
            level: ``user`` or ``scenario``.
            ids: Ids that the level has.

        Raises:
            UnknownIdError: If it lacks one.
            StoreError: If another writer came first, or the disk refuses. The store is as before.
        """
        rows = self._level(level)
        wanted = list(dict.fromkeys(exact_id(name) for name in ids))
        if level in self._manifest.id_type:
            check_id_types(level, self._manifest.id_type[level], wanted)
        if missing := [name for name in wanted if name not in rows.live]:
            raise UnknownIdError(
                f"{len(missing)} {level} ids are not in {self.path}: {_ten(missing)}. "
                f"Drop only what writer.done({level!r}) has."
            )
        if not wanted and self._manifest.provenance == self._written:
            return
        with writing(self.path, f"that {len(wanted)} {level} rows were dropped"):
            old, dead = self._manifest, rows.dead + Counter(wanted)
            more = [bury(self.path, old.layout(level), wanted)] if wanted else []
            entries, dead = added(self._files(), old, old.entries(level), more, dead)
            self._commit(old, {level: entries})
        for name in wanted:
            del rows.live[name]
        self._rows[level] = Rows(rows.live, dead)

    def adopt(self, stores: Sequence[KnowledgeStore | str | Path]) -> None:
        """Commit all rows of other stores at once, as hard links where the file system allows them.

        A store whose rows are all here already is passed over, so that a call that was interrupted may
        be made again.

        Args:
            stores: Stores made the same way as this one, or their folders; a folder's vectors are not
                loaded.

        Raises:
            StoreIdentityError: If a store was made another way.
            StoreError: If an id would come twice, vectors or ids are of another type, another writer came
                first, or the disk refuses. The store is as before.
            StoreCorruptError: If a store is damaged.
        """
        draft, chosen = self._manifest, list[Version]()
        rows = {level: Rows(dict(mine.live), mine.dead) for level, mine in self._rows.items()}
        with writing(self.path, f"the rows of {', '.join(map(str, stores))}"):
            for version in map(Version.of, stores):
                draft = same_kind(draft, version, self.path)
                if given := adoptable(self._rows, rows, version, self.path):
                    chosen.append(version)
                    for level, live in given.items():
                        rows[level].live.update(live)
            if not chosen:
                return
            brought = [shard for version in chosen for shard in bring(version, self.path)]
            brought.sort(key=is_small)  # large shards stay as they are, and so go before the others
            entries: dict[Level, list[Entry]] = {}
            for level in draft.shape:
                more = [shard for shard in brought if shard.level == level]
                old, dead = draft.entries(level), rows[level].dead
                entries[level], dead = added(self._files(), draft, old, more, dead)
                rows[level] = Rows(rows[level].live, dead)
            self._commit(draft, entries)
        self._rows = rows

    def _level(self, level: Level) -> Rows:
        if level not in LEVELS:
            raise StoreError(not_one_of("level", level, LEVELS))
        return self._rows[level]

    def _files(self) -> StoreFiles:
        return StoreFiles(self.path, self._manifest.version)

    def _commit(self, draft: Manifest, entries: Mapping[Level, Sequence[Entry]]) -> None:
        """Write the next version, with new entries of some levels; one left without any is forgotten."""
        others = [entry for entry in draft.shards if entry.level not in entries]
        shards = (*others, *(entry for level in entries for entry in entries[level]))
        held = {entry.level for entry in shards}
        new = draft.model_copy(
            update={
                "version": draft.version + 1,
                "parent": self._digest,
                "shape": {level: shape for level, shape in draft.shape.items() if level in held},
                "id_type": {level: kind for level, kind in draft.id_type.items() if level in held},
                "shards": shards,
            }
        )
        self._digest = commit(self.path, self._manifest, new)
        self._manifest, self._written = new, new.provenance


def _ten(ids: Sequence[object]) -> str:
    return ", ".join(map(repr, ids[:10])) + (", …" if len(ids) > 10 else "")
