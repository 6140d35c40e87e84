"""StoreWriter: adds rows to a store, a durable commit at a time, and resumes where a run ended."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from msr_enhance.errors import StoreError, UnknownIdError, not_one_of
from msr_enhance.store.adopt import Version, adoptable, bring, same_kind
from msr_enhance.store.batch import checked_batch
from msr_enhance.store.commit import commit, numbered
from msr_enhance.store.entry import MOST_ROWS, Entry, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.numbers import Dtype
from msr_enhance.store.opening import Opened, open_folder
from msr_enhance.store.record import LEVELS, Level, Record, Status, as_list, check_id_types, exact_id
from msr_enhance.store.rows import Rows, count_statuses, prompt_digests
from msr_enhance.store.seal import added, buried, indexes, is_small
from msr_enhance.store.shard import write_vectors
from msr_enhance.store.texts import write_texts
from msr_enhance.store.turn import Turn


class StoreWriter:
    """The write side of a store.

    A row counts once ``append`` has returned: its shard is on disk and a manifest names it. Batches may be
    small: many small shards are rewritten as a larger one along the way.

    Attributes:
        path: The store's folder.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        """Continue after a manifest; use ``StoreWriter.open``."""
        self.path = path
        self._lock, self._manifest, self._written, data, rows = opened
        self._digest = hashlib.sha256(data).hexdigest()
        self._rows = {level: rows.get(level, Rows({}, Counter())) for level in LEVELS}
        self._turn = Turn(path)

    @classmethod
    def open(
        cls,
        path: str | Path,
        provenance: Provenance,
        dtype: Dtype | None = None,
        *,
        refresh: bool = False,
    ) -> Self:
        """Create a store, or resume one.

        Args:
            path: A folder that is empty or not there yet, or a store made the same way or without rows.
            provenance: How the rows will be made.
            dtype: How vectors are kept: ``float32``, ``float16`` or ``bfloat16``; default: as the store
                has it, ``float32`` in a new one.
            refresh: The store may be of another window, and of other prompts in so far as they follow
                from the log: whoever opens it then compares prompts and drops the rows that changed. The
                new provenance is written with the next commit.

        Returns:
            The writer; close it, or use it in a ``with`` statement.

        Raises:
            StoreIdentityError: If the store was made another way; lists old and new, field by field.
            StoreLockedError: If another writer has it open; says which.
            StoreError: If the folder holds something else, or cannot be written.
            StoreCorruptError: If the store to resume is damaged.
        """
        folder = Path(path)
        return cls(folder, open_folder(folder, provenance, dtype, refresh))

    def close(self) -> None:
        """Finish the index, so that a large store opens at once, and let other writers in.

        Raises:
            StoreError: If another writer came first, or the disk refuses; the rows are safe.
        """
        try:
            if not self._turn.unsure:
                with self._turn.change("the index"):
                    self._commit(self._manifest, {}, finish=True)
        finally:
            self.release()

    def release(self) -> None:
        """Let other writers in, and leave the index as it is; for a run that ended early."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.release()

    @property
    def dtype(self) -> str:
        """How vectors are kept."""
        return self._manifest.dtype

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
        records = list(records)
        if len(records) > MOST_ROWS:
            raise StoreError(f"{len(records):,} rows were given at once; append {MOST_ROWS:,} at most.")
        with self._turn.change(f"{len(records)} {level} rows"):
            rows = self._level(level)
            if records:
                self._append(level, rows, records)

    def _append(self, level: Level, rows: Rows, records: list[Record]) -> None:
        ids = [exact_id(record.id) for record in records]
        if twice := [name for name, n in Counter(ids).items() if n > 1 or name in rows.live]:
            raise StoreError(
                f"{len(twice)} {level} ids come twice or are in {self.path} already: {_ten(twice)}. "
                f"Leave out what writer.done({level!r}) has."
            )
        batch = checked_batch(self._manifest, level, records, str(self.path))
        draft = self._manifest.model_copy(
            update={
                "shape": self._manifest.shape | {level: batch.shape},
                "id_type": self._manifest.id_type | {level: batch.id_type},
            }
        )
        file, crc = write_vectors(self.path, draft.layout(level), batch.heads, [batch.vectors])
        texts = write_texts(self.path, batch.texts[0], [batch.texts])
        shard = Shard(level=level, rows=len(ids), vectors=file, heads=crc, texts=texts)
        entries, dead = added(self._files(), draft, draft.entries(level), [shard], rows.dead)
        self._commit(draft, {level: entries})
        rows.live.update(zip(ids, batch.heads.status.tolist(), strict=True))
        self._rows[level] = Rows(rows.live, dead)

    def drop(self, level: Level, ids: Iterable[int | str]) -> None:
        """Commit that some rows of one level no longer count; see ``drop_rows``."""
        self.drop_rows({level: ids})

    def drop_rows(self, rows: Mapping[Level, Iterable[int | str]]) -> None:
        """Commit that some rows no longer count; readers do not see them, and they may be added again.

        A provenance that is new since the store was opened is written too, also when no ids are given.

        Args:
            rows: Ids that the levels have.

        Raises:
            UnknownIdError: If a level lacks one.
            StoreError: If another writer came first, or the disk refuses. The store is as before.
        """
        with self._turn.change("that rows were dropped"):
            self._drop(
                {level: list(dict.fromkeys(map(exact_id, as_list(ids)))) for level, ids in rows.items()}
            )

    def _drop(self, given: Mapping[Level, list[int | str]]) -> None:
        wanted = {level: names for level, names in given.items() if names}
        for level, names in wanted.items():
            live = self._level(level).live
            if level in self._manifest.id_type:
                check_id_types(level, self._manifest.id_type[level], names)
            if missing := [name for name in names if name not in live]:
                raise UnknownIdError(
                    f"{len(missing)} {level} ids are not in {self.path}: {_ten(missing)}. "
                    f"Drop only what writer.done({level!r}) has."
                )
        if not wanted and self._manifest.provenance == self._written:
            return
        old, entries, dead = self._manifest, dict[Level, list[Entry]](), dict[Level, Counter[int | str]]()
        for level, names in wanted.items():
            stones = buried(self.path, old.layout(level), names)
            # Counted beside the many that were dropped before, which are not copied for every drop.
            self._rows[level].dead.update(names)
            try:
                entries[level], dead[level] = added(
                    self._files(), old, old.entries(level), stones, self._rows[level].dead
                )
            finally:
                self._rows[level].dead.subtract(names)
        self._commit(old, entries)
        for level, names in wanted.items():
            live, after = self._rows[level].live, dead[level]
            if after is self._rows[level].dead:
                after.update(names)
            for name in names:
                del live[name]
            self._rows[level] = Rows(live, after)

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
        if isinstance(stores, (str, Path)):
            raise StoreError(f"{stores} is one store; write a list of stores.")
        stores = list(stores)  # a generator can be read once only
        with self._turn.change(f"the rows of {', '.join(map(str, stores))}"):
            draft, chosen = self._manifest, list[Version]()
            rows = {level: Rows(dict(mine.live), mine.dead) for level, mine in self._rows.items()}
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

    def _commit(
        self, draft: Manifest, entries: Mapping[Level, Sequence[Entry]], finish: bool = False
    ) -> None:
        """Write the next version, with new entries of some levels; one left without any is forgotten."""
        others = [entry for entry in draft.shards if entry.level not in entries]
        shards = (*others, *(entry for level in entries for entry in entries[level]))
        new = numbered(draft.model_copy(update={"shards": shards}), draft.version + 1, self._digest)
        index = indexes(self._files(), new, finish)
        if finish and index == draft.index:
            return
        new = new.model_copy(update={"index": index})
        with self._turn.committing():
            self._digest = commit(self.path, self._manifest, new)
        self._manifest, self._written = new, new.provenance


def _ten(ids: Sequence[object]) -> str:
    return ", ".join(map(repr, ids[:10])) + (", …" if len(ids) > 10 else "")
