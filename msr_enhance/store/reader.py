"""Reading: the rows of one version of a store, by id."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreError, UnknownIdError, not_one_of
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.keyed import key_check, keyed_id
from msr_enhance.store.level import LevelReader, Live
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.record import (
    STATUSES,
    Level,
    Record,
    Status,
    as_list,
    check_id_types,
    exact_id,
    is_known,
)

Ids = Sequence[int] | Sequence[str] | npt.NDArray[Any]
Unknown = Literal["error", "zero"]
POLICIES: Final[tuple[Unknown, ...]] = ("error", "zero")


_OPEN: weakref.WeakSet[StoreReader] = weakref.WeakSet()


def _after_fork() -> None:
    """A thread may have been counting when its process forked, and does not exist in the child."""
    for reader in list(_OPEN):
        reader._counting = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Lookups(NamedTuple):
    """How many ids were looked up in a store since it was opened, in this process.

    Attributes:
        asked: All of them.
        unknown: Those that the store lacks.
    """

    asked: int
    unknown: int


class StoreReader:
    """Looks up rows; what a ``KnowledgeStore`` does once it is open.

    Attributes:
        path: The folder it was read from.
        provenance: How it was made: identity, window, facts.
        version: Counts up with every commit of the run that wrote it.
        fingerprint: SHA-256 of its manifest; pins every byte of it.
    """

    def __init__(
        self, files: StoreFiles, manifest: Manifest, data: bytes, unknown: Unknown, key: bytes | None
    ) -> None:
        """Read what a manifest names; use ``KnowledgeStore.load``."""
        if unknown not in POLICIES:
            raise StoreError(not_one_of("unknown", unknown, POLICIES))
        self.path = files.folder
        self.provenance: Provenance = manifest.provenance
        self.version = manifest.version
        self.fingerprint = hashlib.sha256(data).hexdigest()
        self._manifest, self._files = manifest, files
        self._unknown, self._key = unknown, key
        self._check_key()
        readers = (LevelReader(files, manifest, level) for level in manifest.shape)
        self._levels = {reader.level: reader for reader in readers if reader.count}
        self._live: dict[Level, Live] = {}
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        _OPEN.add(self)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that have rows."""
        return tuple(self._levels)

    @property
    def dtype(self) -> str:
        """How vectors are kept: ``float32``, ``float16``, ``bfloat16`` or ``int8``."""
        return self._manifest.dtype

    @property
    def lookups(self) -> Lookups:
        """How many ids were looked up with ``vectors``, and how many of them the store lacks."""
        with self._counting:
            return Lookups(self._counts["asked"], self._counts["unknown"])

    def count(self, level: Level) -> int:
        """How many rows a level has."""
        return self._level(level).count

    def shape(self, level: Level) -> tuple[int, ...]:
        """Shape of a level's vectors: ``(dim,)``, or ``(n_layers, dim)`` where several layers were kept."""
        return self._level(level).shape

    def dim(self, level: Level) -> int:
        """Width of a level's vectors, of one layer where several were kept."""
        return self.shape(level)[-1]

    def keyed(self, level: Level) -> bool:
        """Whether a level's ids are keyed hashes, and a key was given to look up the ids themselves."""
        return level in self._manifest.keyed and self._key is not None

    def ids(self, level: Level) -> list[int] | list[str]:
        """All ids of a level, in the order they were written; in a store with keyed ids, their hashes."""
        return self._rows(level).ids.copy()

    def known(self, level: Level) -> list[int] | list[str]:
        """The ids with knowledge, status ``ok`` or ``truncated``, in the order they were written."""
        rows = self._rows(level)
        found = list(compress(rows.ids, is_known(rows.status).tolist()))
        return cast("list[int] | list[str]", found)

    def statuses(self, level: Level) -> list[Status]:
        """The status of each of ``ids(level)``."""
        return [STATUSES[code] for code in self._rows(level).status.tolist()]

    def vectors(self, level: Level, ids: Ids, unknown: Unknown | None = None) -> npt.NDArray[np.float32]:
        """The vectors of some ids.

        A row with status ``empty`` or ``failed`` is zeros: the model had nothing to say.

        Args:
            level: ``user`` or ``scenario``.
            ids: The ids, in any order, also repeatedly; of the type the store holds.
            unknown: What to do with ids the store lacks: refuse, or give zeros; default: as the store was
                opened.

        Returns:
            A new array ``[len(ids), *shape(level)]``, float32.

        Raises:
            UnknownIdError: If an id is of another type, or the store lacks it and ``unknown`` is ``error``.
            StoreCorruptError: If a row is not what was written.
            StoreIOError: If the disk refuses.
            StoreError: If the store lacks the level, or ``unknown`` is no such policy.
        """
        policy = self._unknown if unknown is None else unknown
        if policy not in POLICIES:
            raise StoreError(not_one_of("unknown", unknown, POLICIES))
        reader, given = self._level(level), as_list(ids)
        names = self._wanted(level, given)
        places = reader.places(names)
        missing = np.flatnonzero(places < 0).tolist()
        with self._counting:
            self._counts.update(asked=len(places), unknown=len(missing))
        if policy == "error" and missing:
            self._refuse(level, [given[place] for place in missing])
        return reader.vectors(names, places).reshape(len(places), *reader.shape)

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
            StoreCorruptError: If the row is not what was written.
        """
        reader, names = self._level(level), self._wanted(level, [id])
        place = int(reader.places(names)[0])
        if place < 0:
            self._refuse(level, [id])
        if not reader.has_texts(place):
            raise StoreError(
                f"{self.path} was saved without texts, so that prompts, answers and facts are not in it; "
                "ask for a copy with them where they may be shared (store.save(path), push --texts)."
            )
        return reader.record(names[0], place)

    def __repr__(self) -> str:
        held = "".join(f", {level}={[reader.count, *reader.shape]}" for level, reader in self._levels.items())
        return f"{type(self).__name__}({str(self.path)!r}, version={self.version}{held})"

    def _level(self, level: Level) -> LevelReader:
        if not isinstance(level, str) or level not in self._levels:
            raise StoreError(f"{self.path}: {not_one_of('level', level, self._levels)}")
        return self._levels[level]

    def _rows(self, level: Level) -> Live:
        reader = self._level(level)
        if level not in self._live:
            self._live[level] = reader.live()
        return self._live[level]

    def _wanted(self, level: Level, wanted: list[Any]) -> list[Any]:
        """Ids as the level holds them."""
        keyed = self._manifest.keyed.get(level)
        hashed = keyed is not None and self._key is not None
        kind = keyed.id_type if keyed and hashed else self._manifest.id_type[level]
        check_id_types(level, kind, wanted)
        if kind == "int":
            wanted = [int(name) for name in wanted]  # numpy's integers are none of Python's
        if kind == "int" and wanted and (min(wanted) < -(2**63) or max(wanted) >= 2**63):
            raise UnknownIdError(f"{level} ids outside 64 bits were asked for; no store has them.")
        if kind == "str":
            wanted = [name if name.isascii() else exact_id(name) for name in wanted]
        if hashed:
            wanted = [keyed_id(cast("bytes", self._key), name) for name in wanted]
        return wanted

    def _refuse(self, level: Level, missing: Sequence[object]) -> None:
        names = list(dict.fromkeys(missing))
        shown = [repr(name)[:80] for name in names[:10]]
        hint = ""
        if level in self._manifest.keyed and self._key is None:
            hint = " Its ids are keyed hashes: give the key that it was pushed with (key=)."
        raise UnknownIdError(
            f"{len(names)} {level} ids are not in {self.path}: {', '.join(shown)}"
            f"{', …' if len(names) > 10 else ''}. Extract them, or write unknown='zero' for zero "
            f"vectors.{hint}"
        )

    def _check_key(self) -> None:
        checks = {keyed.check for keyed in self._manifest.keyed.values()}
        if self._key is not None and checks != {key_check(self._key)}:
            seen = "is of another key" if checks else "has no keyed ids"
            raise StoreError(f"{self.path} {seen}; write the key that it was pushed with, or none.")
