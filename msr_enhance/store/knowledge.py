"""KnowledgeStore: ids in, vectors out; the read side, which needs neither torch nor a language model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from msr_enhance.atomic import sha256_file, write_bytes_new
from msr_enhance.errors import StoreCorruptError, StoreError, UnknownIdError, not_one_of
from msr_enhance.store.manifest import Manifest, Provenance, Shard, StoredFile, latest_manifest
from msr_enhance.store.record import STATUSES, Level, Record, Status, check_id_types
from msr_enhance.store.shard import TextShard, VectorShard, decode_texts, decode_vectors

Ids = Sequence[int] | Sequence[str] | npt.NDArray[Any]


class _Table(NamedTuple):
    """All rows of one level, and where each id and shard is among them."""

    rows: VectorShard
    position: dict[int | str, int]
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
        self._texts: tuple[StoredFile | None, TextShard | None] = (None, None)
        if verify:
            for file in {shard.texts for shard in manifest.shards if shard.texts}:
                _check(file, sha256_file(_present(path, file)), path)
        self._tables = {level: _table(path, manifest, level, verify) for level in manifest.dim}

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
            StoreVersionError: If a newer version of the library wrote it.
        """
        folder = Path(path)
        return cls(folder, *latest_manifest(folder), verify)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that have rows."""
        return tuple(self._tables)

    def dim(self, level: Level) -> int:
        """Width of a level's vectors."""
        self._table(level)
        return self._manifest.dim[level]

    def ids(self, level: Level) -> list[int] | list[str]:
        """All ids of a level, in the order they were written."""
        return self._table(level).rows.ids.copy()

    def known(self, level: Level) -> list[int] | list[str]:
        """The ids whose status is ``ok``, in the order they were written."""
        rows = self._table(level).rows
        found = [name for name, code in zip(rows.ids, rows.status.tolist(), strict=True) if code == 0]
        return cast("list[int] | list[str]", found)

    def statuses(self, level: Level) -> list[Status]:
        """The status of each of ``ids(level)``."""
        return [STATUSES[code] for code in self._table(level).rows.status.tolist()]

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
            A new array ``[len(ids), dim]``, float32.

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
        found = table.rows.vectors[places].astype(np.float32)
        found[missing] = 0
        return found

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
        rows = table.rows
        number = int(np.searchsorted(table.starts, place, "right")) - 1
        shard = table.shards[number]
        if shard.texts is None:
            raise StoreError(
                f"{self.path} was saved without texts, so that prompts, answers and facts are not in it; "
                "write store.save(path, texts=True) where they may be shared."
            )
        texts = self._text_shard(shard.texts, shard.rows)
        prompt, text, facts = texts.row(place - table.starts[number], shard.texts.name)
        status, (prompt_tokens, answer_tokens) = STATUSES[rows.status[place]], rows.tokens[place].tolist()
        vector = rows.vectors[place].astype(np.float32)
        return Record(rows.ids[place], status, prompt, text, facts, prompt_tokens, answer_tokens, vector)

    def save(self, path: str | Path, texts: bool = True) -> None:
        """Copy the store to a new folder, byte for byte.

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
        if not texts and any(shard.texts for shard in manifest.shards):
            shards = tuple(shard.model_copy(update={"texts": None}) for shard in manifest.shards)
            manifest = manifest.model_copy(update={"shards": shards, "parent": self.fingerprint})
        folder.mkdir(0o750, parents=True, exist_ok=True)
        for file in dict.fromkeys(manifest.files()):
            write_bytes_new(folder, file.name, _read(self.path, file))
        write_bytes_new(folder, manifest.name, manifest.to_bytes())

    def __repr__(self) -> str:
        held = "".join(f", {level}={list(table.rows.vectors.shape)}" for level, table in self._tables.items())
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
            shard = decode_texts(_read(self.path, file), file.name, rows)
            self._texts = (file, shard)
        return shard


def _table(path: Path, manifest: Manifest, level: Level, verify: bool) -> _Table:
    shards = [shard for shard in manifest.shards if shard.level == level]
    parts = [
        decode_vectors(
            _read(path, shard.vectors, verify),
            shard.vectors.name,
            shard.rows,
            manifest.dim[level],
            manifest.dtype,
            manifest.id_type[level],
        )
        for shard in shards
    ]
    ids = [name for part in parts for name in part.ids]
    position = {name: place for place, name in enumerate(ids)}
    if len(position) < len(ids):
        raise StoreCorruptError(f"{path / manifest.name} names shards that hold a {level} id twice.")
    rows = VectorShard(
        cast("list[int] | list[str]", ids),
        np.concatenate([part.status for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )
    return _Table(rows, position, shards, np.cumsum([0, *(shard.rows for shard in shards)]).tolist())


def _present(path: Path, file: StoredFile) -> Path:
    """The file's path, once its size is right."""
    full = path / file.name
    size = full.stat().st_size if full.is_file() else None
    if size != file.bytes:
        seen = "is missing" if size is None else f"has {size:,} bytes"
        raise StoreCorruptError(
            f"{full} {seen}; its manifest promises {file.bytes:,} bytes. "
            "Fetch the store again, or extract into a new folder."
        )
    return full


def _read(path: Path, file: StoredFile, verify: bool = True) -> bytes:
    data = _present(path, file).read_bytes()
    if verify:
        _check(file, hashlib.sha256(data).hexdigest(), path)
    return data


def _check(file: StoredFile, digest: str, path: Path) -> None:
    if digest != file.sha256:
        raise StoreCorruptError(
            f"{path / file.name} has SHA-256 {digest[:16]}…; its manifest promises {file.sha256[:16]}…. "
            "Fetch the store again, or extract into a new folder."
        )
