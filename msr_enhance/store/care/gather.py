"""Gathering: the rows of a level in another order than the one they were written in, read in pieces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreCorruptError
from msr_enhance.store.adopt import Version
from msr_enhance.store.checks import text_crcs, unpack
from msr_enhance.store.entry import Shard, StoredFile
from msr_enhance.store.files import OpenFile
from msr_enhance.store.frame import STORED_AS, Array, corrupt
from msr_enhance.store.index import ROW_BITS, Places, keys_of
from msr_enhance.store.numbers import KIND
from msr_enhance.store.record import IdType, Level
from msr_enhance.store.rows import dropped_from
from msr_enhance.store.shard import checked_frame, read_heads, read_vectors
from msr_enhance.store.texts import Lengths, text_frame

Rename = Callable[[list[Any]], list[Any]]
Keep = Callable[[list[Any]], npt.NDArray[np.bool_]]

_LOW = (1 << ROW_BITS) - 1


class Ids:
    """Many ids in little memory: numbers as numbers, texts as their letters one after the other.

    Args:
        kind: Type of the ids.
    """

    def __init__(self, kind: IdType) -> None:
        self._kind = kind
        self._numbers, self._letters, self._lengths = list[Array](), bytearray(), list[Array]()
        self._joined: Array | None = None

    def add(self, ids: Sequence[Any]) -> None:
        """Put some at the end."""
        if self._kind == "int":
            self._numbers.append(np.array(ids, np.int64))
            return
        names = [name.encode() for name in ids]
        self._letters += b"".join(names)
        self._lengths.append(np.fromiter(map(len, names), np.int64, len(names)))

    def take(self, places: Places) -> list[Any]:
        """Those at some places."""
        if self._joined is None:
            parts = self._numbers if self._kind == "int" else [np.zeros(1, np.int64), *self._lengths]
            joined = np.concatenate(parts) if parts else np.zeros(0, np.int64)
            self._joined = joined if self._kind == "int" else np.cumsum(joined)
            self._numbers, self._lengths = [], []
        if self._kind == "int":
            found: list[Any] = self._joined[places].tolist()
            return found
        starts, ends = self._joined[places].tolist(), self._joined[places + 1].tolist()
        return [self._letters[start:end].decode() for start, end in zip(starts, ends, strict=True)]


class Gathered(NamedTuple):
    """The texts of some rows, in order.

    Attributes:
        lengths: Bytes of every prompt, answer and facts, ``[rows, 3]``.
        texts: The three of each row, one after the other.
    """

    lengths: Lengths
    texts: list[bytes]


class LevelRows:
    """The rows of a level that count, ordered by the key under which the index lists them.

    That is the order of integer ids, and of texts the order of their hashes: it needs a fraction of the
    memory that sorting millions of texts would, and a lookup of many ids then reads files from the front
    to the back. Rows without texts stand after all others, as a shard has texts of all rows or of none.

    Args:
        source: Where they lie.
        level: The level.
        keep: Which of some ids to take; default: all.
        rename: The ids that some ids get, in order; default: the same.
        id_type: Type of the new ids; default: as before.

    Raises:
        StoreCorruptError: If a file is not what was written, or an id comes twice.
        StoreIOError: If the disk refuses.
    """

    def __init__(
        self,
        source: Version,
        level: Level,
        *,
        keep: Keep | None = None,
        rename: Rename | None = None,
        id_type: IdType | None = None,
    ) -> None:
        self._files, manifest = source
        self._layout = manifest.layout(level)
        self._rename = rename
        self._entries = manifest.entries(level)
        self._ids = Ids(self._layout.id_type)
        kind: IdType = id_type or self._layout.id_type
        places, keys = [np.empty(0, np.int64)], [keys_of(kind, [])]
        status, tokens = [np.empty(0, np.uint8)], [np.empty((0, 2), np.int32)]
        self.text_bytes = 0
        gone = dropped_from(self._files, manifest, self._entries)
        for number, (entry, dropped) in enumerate(zip(self._entries, gone, strict=True)):
            if not isinstance(entry, Shard):
                continue
            with self._files.open(entry.vectors) as opened:
                heads = read_heads(opened, entry.vectors, entry.rows, self._layout, entry.heads)
            mask = np.array([name not in dropped for name in heads.ids], bool)
            if keep:
                mask &= keep(list(heads.ids))
            names: list[Any] = list(itertools.compress(heads.ids, mask.tolist()))
            if not names:
                continue
            self._ids.add(names)
            new: list[Any] = rename(names) if rename else names
            keys.append(keys_of(kind, new))
            places.append(np.flatnonzero(mask) + (number << ROW_BITS))
            status.append(heads.status[mask])
            tokens.append(heads.tokens[mask])
            if entry.texts:
                self.text_bytes += entry.texts.blob * len(names) // entry.rows
        self._order(np.concatenate(places), np.concatenate(keys))
        self.status = np.concatenate(status)[self._source]
        self.tokens = np.concatenate(tokens)[self._source]

    @property
    def places(self) -> Places:
        """Where the rows lie, in this order: entry and row, as an index says it."""
        return self._places

    def _order(self, places: Places, keys: npt.NDArray[np.uint64]) -> None:
        order = np.lexsort(keys.T[::-1])
        if (keys[order[1:]] == keys[order[:-1]]).all(axis=1).any():
            raise StoreCorruptError(
                f"{self._files.folder} names shards that hold a {self._layout.level} id twice. "
                f"Fetch the store again, or write: msr-enhance store repair {self._files.folder}"
            )
        bare = [isinstance(entry, Shard) and entry.texts is None for entry in self._entries]
        without = np.array(bare, bool)[places[order] >> ROW_BITS]
        order = np.concatenate([order[~without], order[without]])
        self._source, self._places = order, places[order]
        self.keys = keys[order]
        self.with_texts = int((~without).sum())

    def __len__(self) -> int:
        return len(self._places)

    def ids(self, start: int, end: int) -> list[Any]:
        """The new ids of the rows from one position to another."""
        old = self._ids.take(self._source[start:end])
        return self._rename(old) if self._rename else old

    def vectors(self, start: int, end: int) -> Array:
        """The vectors of these rows as they are kept, ``[rows, width]``; each was compared with its CRC."""
        found = np.empty((end - start, self._layout.width), STORED_AS[KIND[self._layout.dtype]])
        for shard, some, rows in self._by_shard(start, end):
            names = self._ids.take(self._source[start + some])
            with self._files.open(shard.vectors) as opened:
                frame = checked_frame(opened, shard.vectors, shard.rows, self._layout)
                found[some] = read_vectors(opened, frame, names, rows)
        return found

    def texts(self, start: int, end: int) -> Gathered:
        """The texts of these rows, all of which have some; each row was compared with its CRC."""
        lengths, texts = np.zeros((end - start, 3), np.int64), [b""] * (end - start)
        for shard, some, rows in self._by_shard(start, end):
            if shard.texts:
                with self._files.open(shard.texts) as opened:
                    found, good = read_texts(opened, shard.texts, shard.rows, rows)
                if not good.all():
                    row = int(rows[np.flatnonzero(~good)[0]])
                    raise corrupt(str(opened.path), f"the checksum of its texts does not fit, in row {row}")
                lengths[some] = found.lengths
                for place, text in zip(some.tolist(), found.texts, strict=True):
                    texts[place] = text
        return Gathered(lengths, texts)

    def _by_shard(self, start: int, end: int) -> Iterator[tuple[Shard, Places, Places]]:
        """Each shard that some rows lie in, their positions among these, and their rows, ascending."""
        places = self._places[start:end]
        order = np.argsort(places)
        bounds = np.flatnonzero(np.diff(places[order] >> ROW_BITS)) + 1
        for some in np.split(order, bounds) if len(order) else ():
            entry = self._entries[int(places[some[0]]) >> ROW_BITS]
            if isinstance(entry, Shard):
                yield entry, some, places[some] & _LOW


def read_texts(
    opened: OpenFile, file: StoredFile, count: int, rows: Places
) -> tuple[Gathered, npt.NDArray[np.bool_]]:
    """Texts of some rows of a text file: offsets stand first, then all texts, then their checksums.

    Args:
        opened: The file.
        file: What the manifest promises of it.
        count: How many rows it promises.
        rows: The rows, ascending, none twice.

    Returns:
        The texts, empty where they are damaged; and which are as they were written, bool ``[rows]``.

    Raises:
        StoreCorruptError: If its size is not as promised.
        StoreIOError: If the disk refuses.
    """
    spans = text_frame(count, file.blob).spans  # the header may be damaged, and these rows be good
    ends, first, crcs = (spans[name].start for name in ("text_offsets", "text_bytes", "crcs"))
    sides = [
        np.frombuffer(opened.rows(ends + 8 * side, 24, rows).tobytes(), "<i8").reshape(-1, 3)
        for side in range(2)
    ]
    begins, stops = sides[0][:, 0], sides[1][:, 2]
    good = (sides[0] <= sides[1]).all(axis=1) & (begins >= 0) & (stops <= file.blob)
    lengths: Lengths = np.where(good[:, None], sides[1] - sides[0], 0)
    texts, left = [b""] * len(rows), np.flatnonzero(good)
    for run in np.split(left, np.flatnonzero(begins[left][1:] != stops[left][:-1]) + 1):
        if len(run):
            base = int(begins[run[0]])
            data = bytes(opened.read(first + base, first + int(stops[run[-1]])))
            for row in run.tolist():
                texts[row] = data[int(begins[row]) - base : int(stops[row]) - base]
    found = np.array(text_crcs(lengths, b"".join(texts)), np.uint32)
    return Gathered(lengths, texts), good & (found == unpack(opened.rows(crcs, 4, rows)))
