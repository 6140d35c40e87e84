"""Level: the rows of one level of a store, found by id and read one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.store.entry import Index, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.frame import Frame, corrupt
from msr_enhance.store.index import ROW_BITS, LevelIndex, Places, keys_of
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.numbers import as_float32
from msr_enhance.store.record import STATUSES, Level, Record, is_known
from msr_enhance.store.rows import dropped_from, replay
from msr_enhance.store.shard import Heads, checked_frame, read_heads, read_ids, read_vectors
from msr_enhance.store.texts import read_row
from msr_enhance.store.transform import read_scale

_LOW = (1 << ROW_BITS) - 1
_BLOCK = 1024


class Live(NamedTuple):
    """The rows of a level that count, in the order they were written.

    Attributes:
        ids: Their ids.
        status: uint8 ``[rows]``, positions in ``STATUSES``.
    """

    ids: list[int] | list[str]
    status: npt.NDArray[np.uint8]


class LevelReader:
    """Reads one level of one version.

    What is held in memory is the first key of each block of the index, and the ids of the newest rows,
    which the index does not cover yet.

    Args:
        files: Of the store.
        manifest: The version.
        level: The level.

    Raises:
        StoreCorruptError: If a file is not what was written.
        StoreIOError: If the disk refuses.
    """

    def __init__(self, files: StoreFiles, manifest: Manifest, level: Level) -> None:
        self.level: Level = level
        self.shape = manifest.shape[level]
        self.layout = manifest.layout(level)
        self._files, self._manifest = files, manifest
        self._entries = manifest.entries(level)
        self._frames: dict[int, Frame] = {}
        self._scale = read_scale(files, manifest, level)
        index: Index | None = manifest.index.get(level)
        self._index = LevelIndex(files, self.layout, index) if index else None
        dropped: set[int | str] = set()
        newest = replay(self._newest_steps(index.entries if index else 0, dropped), str(files.folder), level)
        self._newest = dict.fromkeys(dropped, -1) | newest.live
        self.count = sum(place >= 0 for place in self._newest.values())
        if index and self._index:
            gone = self._index.find(self._keys(list(dropped))) >= 0 if dropped else np.zeros(1, bool)
            self.count += index.rows - int(gone.sum())

    def places(self, ids: Sequence[Any]) -> Places:
        """Where the row of each id lies, -1 where the level lacks it; int64 ``[len(ids)]``."""
        if self._newest:
            newest = self._newest.get
            found = np.fromiter((newest(name, -2) for name in ids), np.int64, len(ids))
        else:
            found = np.full(len(ids), -2, np.int64)
        open_ = np.flatnonzero(found == -2)
        if len(open_) and self._index:
            some = [ids[place] for place in open_.tolist()] if len(open_) < len(ids) else ids
            found[open_] = self._index.find(self._keys(some))
        found[found < 0] = -1
        return found

    def vectors(self, ids: Sequence[Any], places: Places) -> npt.NDArray[np.float32]:
        """The vectors of some rows.

        Args:
            ids: Their ids.
            places: Where they lie, from ``places``; -1 gives zeros.

        Returns:
            A new array ``[len(ids), width]``.

        Raises:
            StoreCorruptError: If a row is not what was written, not of that id, or not finite.
            StoreIOError: If the disk refuses.
        """
        found = np.zeros((len(places), self.layout.width), np.float32)
        order = np.argsort(places, kind="stable")
        order = order[np.searchsorted(places[order], 0) :]
        numbers = places[order] >> ROW_BITS
        bounds = np.flatnonzero(np.diff(numbers, prepend=-1, append=np.iinfo(np.int64).max))
        for start, end in itertools.pairwise(bounds.tolist()):
            some = order[start:end]
            rows, first, back = np.unique(places[some] & _LOW, return_index=True, return_inverse=True)
            names = [ids[place] for place in some[first].tolist()]
            found[some] = self._read(int(numbers[start]), names, rows)[back]
        return found

    def record(self, id: int | str, place: int) -> Record:
        """Everything that is kept of one row.

        Args:
            id: Its id.
            place: Where it lies.

        Returns:
            The record, without texts where the store holds none.

        Raises:
            StoreCorruptError: If the row is not what was written.
            StoreIOError: If the disk refuses.
        """
        number, row = place >> ROW_BITS, place & _LOW
        vector = self.vectors([id], np.array([place]))[0].reshape(self.shape)
        shard, heads = self._shard(number), self._heads(number)
        prompt, text, facts = "", "", dict[str, Any]()
        if shard.texts:
            with self._files.open(shard.texts) as opened:
                prompt, text, facts = read_row(opened, shard.texts, shard.rows, row)
        prompt_tokens, answer_tokens = heads.tokens[row].tolist()
        return Record(
            id, STATUSES[heads.status[row]], prompt, text, facts, prompt_tokens, answer_tokens, vector
        )

    def has_texts(self, place: int) -> bool:
        """Whether the texts of a row are in the store."""
        return self._shard(place >> ROW_BITS).texts is not None

    def live(self) -> Live:
        """All rows that count; reads every shard but its vectors."""
        ids, status = list[Any](), [np.empty(0, np.uint8)]
        for _, heads, keep in self.blocks():
            ids += heads.ids if keep.all() else itertools.compress(heads.ids, keep.tolist())
            status.append(heads.status[keep])
        return Live(ids, np.concatenate(status))

    def known_vectors(self) -> Iterator[npt.NDArray[np.float32]]:
        """The vectors of all rows with knowledge, float32, in blocks ``[some rows, width]``."""
        for number, heads, keep in self.blocks():
            rows = np.flatnonzero(keep & is_known(heads.status))
            for some in np.array_split(rows, -(-len(rows) // _BLOCK)) if len(rows) else ():
                yield self._read(number, [heads.ids[row] for row in some.tolist()], some)

    def blocks(self) -> Iterator[tuple[int, Heads, npt.NDArray[np.bool_]]]:
        """Number and heads of each shard, in order, and which of its rows count, bool ``[rows]``."""
        gone = dropped_from(self._files, self._manifest, self._entries)
        for number, (entry, names) in enumerate(zip(self._entries, gone, strict=True)):
            if isinstance(entry, Shard):
                heads = self._heads(number)
                yield number, heads, np.array([name not in names for name in heads.ids], bool)

    def _newest_steps(
        self, first: int, dropped: set[int | str]
    ) -> Iterator[tuple[Sequence[Any], Iterable[int] | None]]:
        """Ids of the entries from one on, with the place of each row; None where they were dropped."""
        for number, entry in enumerate(self._entries[first:], first):
            if isinstance(entry, Shard):
                yield self._heads(number).ids, range(number << ROW_BITS, (number << ROW_BITS) + entry.rows)
            else:
                ids = read_ids(self._files.read(entry.ids), entry.ids, entry.rows, self.layout)
                dropped.update(ids)
                yield ids, None

    def _read(self, number: int, ids: Sequence[Any], rows: Places) -> npt.NDArray[np.float32]:
        shard = self._shard(number)
        with self._files.open(shard.vectors) as opened:
            if int(rows[-1]) >= shard.rows:
                raise corrupt(str(opened.path), f"the index names row {int(rows[-1]):,} of {shard.rows:,}")
            frame = self._frames.get(number)
            if frame is None:
                frame = self._frames[number] = checked_frame(opened, shard.vectors, shard.rows, self.layout)
            found = as_float32(read_vectors(opened, frame, ids, rows), self.layout.dtype, self._scale)
            if not np.isfinite(found).all():
                raise corrupt(str(opened.path), "it has a vector with NaN or infinity")
            return found

    def _shard(self, number: int) -> Shard:
        entry = self._entries[number] if number < len(self._entries) else None
        if not isinstance(entry, Shard):
            raise corrupt(str(self._files.folder), f"the index of {self.level} names shard {number:,}")
        return entry

    def _heads(self, number: int) -> Heads:
        shard = self._shard(number)
        with self._files.open(shard.vectors) as opened:
            return read_heads(opened, shard.vectors, shard.rows, self.layout, shard.heads)

    def _keys(self, ids: Sequence[Any]) -> npt.NDArray[np.uint64]:
        return keys_of(self.layout.id_type, ids)
