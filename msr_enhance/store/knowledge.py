"""KnowledgeStore: ids in, vectors out; the read side, which needs neither torch nor a language model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from msr_enhance.atomic import write_bytes_new
from msr_enhance.errors import StoreError, UnknownIdError, not_one_of
from msr_enhance.store.entry import Shard, StoredFile, Tombstone
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import Manifest, Provenance, highest_version, latest_manifest
from msr_enhance.store.record import STATUSES, Level, Record, Status, check_id_types, is_known
from msr_enhance.store.rows import replay
from msr_enhance.store.shard import Heads, TextShard, decode_ids, decode_texts, decode_vectors

Ids = Sequence[int] | Sequence[str] | npt.NDArray[Any]


class _Table(NamedTuple):
    """The rows of one level that count, and where each lies."""

    heads: Heads
    vectors: npt.NDArray[Any]
    position: dict[int | str, int]
    stored: npt.NDArray[np.int64]
    shards: list[Shard]
    starts: list[int]


class KnowledgeStore:
    """What a frozen language model said about users and scenarios.

    The vectors are held in memory, one matrix per level, and handed out as copies; texts are read from
    disk when they are asked for. A store never changes: one opened while a run still writes shows the
    rows that were there.

    Attributes:
        path: The folder it was read from.
        provenance: How it was made: identity, window, facts.
        version: Counts up with every commit of the run that wrote it.
        fingerprint: SHA-256 of its manifest; pins every byte of it.
    """

    def __init__(self, path: Path, manifest: Manifest, data: bytes, verify: bool) -> None:
        """Read what a manifest names; use ``KnowledgeStore.load``."""
        self.path = path
        self.provenance: Provenance = manifest.provenance
        self.version = manifest.version
        self.fingerprint = hashlib.sha256(data).hexdigest()
        self._manifest = manifest
        self._files = StoreFiles(path, manifest.version)
        self._texts: tuple[StoredFile | None, TextShard | None] = (None, None)
        if verify:
            for file in {entry.texts for entry in manifest.shards if isinstance(entry, Shard)}:
                if file:
                    self._files.verified(file)
        tables = {level: _table(self._files, manifest, level, verify) for level in manifest.shape}
        self._tables = {level: table for level, table in tables.items() if table.position}

    @classmethod
    def load(cls, path: str | Path, verify: bool = True) -> Self:
        """Open a store at its highest version.

        Args:
            path: The store's folder.
            verify: Compare the SHA-256 of every file with the manifest.

        Returns:
            The store.

        Raises:
            StoreError: If there is no store; lists what was looked for.
            StoreCorruptError: If a file is missing or is not what was written.
            StoreVersionError: If another version of the library wrote it.
        """
        folder = Path(path)
        for _ in range(10):
            manifest, data = latest_manifest(folder)
            try:
                return cls(folder, manifest, data, verify)
            except StoreError:
                if highest_version(folder) == manifest.version:
                    raise  # else a writer has replaced files meanwhile
        raise StoreError(f"{folder} changes faster than it can be read; try again.")

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that have rows."""
        return tuple(self._tables)

    def shape(self, level: Level) -> tuple[int, ...]:
        """Shape of a level's vectors: ``(dim,)``, or ``(n_layers, dim)`` where several layers were kept."""
        self._table(level)
        return self._manifest.shape[level]

    def dim(self, level: Level) -> int:
        """Width of a level's vectors, of one layer where several were kept."""
        return self.shape(level)[-1]

    def ids(self, level: Level) -> list[int] | list[str]:
        """All ids of a level, in the order they were written."""
        return self._table(level).heads.ids.copy()

    def known(self, level: Level) -> list[int] | list[str]:
        """The ids with knowledge, status ``ok`` or ``truncated``, in the order they were written."""
        heads = self._table(level).heads
        found = list(compress(heads.ids, is_known(heads.status).tolist()))
        return cast("list[int] | list[str]", found)

    def statuses(self, level: Level) -> list[Status]:
        """The status of each of ``ids(level)``."""
        return [STATUSES[code] for code in self._table(level).heads.status.tolist()]

    def vectors(
        self, level: Level, ids: Ids, unknown: Literal["error", "zero"] = "error"
    ) -> npt.NDArray[np.float32]:
        """The vectors of some ids.

        A row with status ``empty`` or ``failed`` is zeros: the model had nothing to say.

        Args:
            level: ``user`` or ``scenario``.
            ids: The ids, in any order, also repeatedly; of the type the store holds.
            unknown: What to do with ids the store lacks: refuse, or give zeros.

        Returns:
            A new array ``[len(ids), *shape(level)]``, float32.

        Raises:
            UnknownIdError: If an id is of another type, or the store lacks it and ``unknown`` is ``error``.
            StoreError: If the store lacks the level, or ``unknown`` is no such policy.
        """
        if unknown not in ("error", "zero"):
            raise StoreError(not_one_of("unknown", unknown, ("error", "zero")))
        table, places = self._table(level), self._places(level, ids)
        missing = places < 0
        if unknown == "error" and missing.any():
            self._refuse(level, [name for name, gone in zip(ids, missing, strict=True) if gone])
        found = table.vectors[places].astype(np.float32)
        found[missing] = 0
        return found.reshape(len(found), *self._manifest.shape[level])

    def text(self, level: Level, id: int | str) -> str:
        """The answer about one id; see ``record``."""
        return self.record(level, id).text

    def record(self, level: Level, id: int | str) -> Record:
        """Everything the store keeps of one id.

        Args:
            level: ``user`` or ``scenario``.
            id: The id.

        Returns:
            The record; its vector is a copy.

        Raises:
            UnknownIdError: If the store lacks the id.
            StoreError: If it was saved without texts.
            StoreCorruptError: If the texts are not what was written.
        """
        place = int(self._places(level, [id])[0])  # type: ignore[arg-type]  # one type, int or str
        if place < 0:
            self._refuse(level, [id])
        table = self._table(level)
        stored = int(table.stored[place])
        number = int(np.searchsorted(table.starts, stored, "right")) - 1
        shard = table.shards[number]
        if shard.texts is None:
            raise StoreError(
                f"{self.path} was saved without texts, so that prompts, answers and facts are not in it; "
                "write store.save(path, texts=True) where they may be shared."
            )
        texts = self._text_shard(shard.texts, shard.rows)
        prompt, text, facts = texts.row(stored - table.starts[number], shard.texts.name)
        heads = table.heads
        status, (prompt_tokens, answer_tokens) = STATUSES[heads.status[place]], heads.tokens[place].tolist()
        vector = table.vectors[place].astype(np.float32).reshape(self._manifest.shape[level])
        return Record(heads.ids[place], status, prompt, text, facts, prompt_tokens, answer_tokens, vector)

    def save(self, path: str | Path, texts: bool = True) -> None:
        """Copy the store to a new folder, byte for byte.

        A row that was dropped and still lies in a file is copied with it; no reader sees it.

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
        folder.mkdir(0o750, parents=True, exist_ok=True)
        for file in dict.fromkeys(manifest.files()):
            self._files.copy(file, folder)
        write_bytes_new(folder, manifest.name, manifest.to_bytes())

    def __repr__(self) -> str:
        held = "".join(
            f", {level}={[len(table.position), *self.shape(level)]}" for level, table in self._tables.items()
        )
        return f"KnowledgeStore({str(self.path)!r}, version={self.version}{held})"

    def _table(self, level: Level) -> _Table:
        if level not in self._tables:
            raise StoreError(f"{self.path}: {not_one_of('level', level, self._tables)}")
        return self._tables[level]

    def _places(self, level: Level, ids: Ids) -> npt.NDArray[np.int64]:
        """Row of each id, -1 where the store lacks it."""
        table = self._table(level)
        wanted = ids.tolist() if isinstance(ids, np.ndarray) else ids
        check_id_types(level, self._manifest.id_type[level], wanted)
        return np.array([table.position.get(name, -1) for name in wanted], np.int64)

    def _refuse(self, level: Level, missing: Sequence[object]) -> None:
        names = list(dict.fromkeys(missing))
        raise UnknownIdError(
            f"{len(names)} {level} ids are not in {self.path}: {', '.join(repr(name) for name in names[:10])}"
            f"{', …' if len(names) > 10 else ''}. Extract them, or write unknown='zero' for zero vectors."
        )

    def _text_shard(self, file: StoredFile, rows: int) -> TextShard:
        kept, shard = self._texts  # one read, so that threads see a matching pair
        if kept != file or shard is None:
            shard = decode_texts(self._files.read(file), file.name, rows)
            self._texts = (file, shard)
        return shard


def _table(files: StoreFiles, manifest: Manifest, level: Level, verify: bool) -> _Table:
    layout, shards = manifest.layout(level), []
    parts: list[tuple[Heads, npt.NDArray[Any]]] = []
    starts = [0]

    def steps() -> Iterator[tuple[Sequence[int] | Sequence[str], Iterable[int] | None]]:
        for entry in manifest.entries(level):
            if isinstance(entry, Tombstone):
                data = files.read(entry.ids, verify)
                yield decode_ids(data, entry.ids.name, entry.rows, layout), None
                continue
            data = files.read(entry.vectors, verify)
            parts.append(decode_vectors(data, entry.vectors.name, entry.rows, layout))
            shards.append(entry)
            yield parts[-1][0].ids, range(starts[-1], starts[-1] + entry.rows)
            starts.append(starts[-1] + entry.rows)

    live = replay(steps(), str(files.folder / manifest.name), level).live
    stored = np.fromiter(live.values(), np.int64, len(live))
    status, tokens, vectors = (
        np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        for arrays in zip(*((part.status, part.tokens, rows) for part, rows in parts), strict=True)
    )
    if len(stored) < starts[-1]:
        status, tokens, vectors = status[stored], tokens[stored], vectors[stored]
    heads = Heads(cast("list[int] | list[str]", list(live)), status, tokens)
    return _Table(heads, vectors, dict(zip(live, range(len(live)), strict=True)), stored, shards, starts)
