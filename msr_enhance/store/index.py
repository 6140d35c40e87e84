"""Index: where the row of each id lies, sorted, so that a store of any size opens at once.

A level's first entries, those that are not rewritten any more, are indexed in one file: keys in order, in
blocks with a checksum each. Only the first key of every block is held in memory; a lookup reads the blocks
it needs. A key is the integer id itself, or 128 bits of BLAKE2b of a text: nobody has two texts with the
same 128 bits, and so the texts need not be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from msr_enhance.store.checks import pack, unpack
from msr_enhance.store.entry import Entry, Index, Shard, named
from msr_enhance.store.files import OpenFile, StoreFiles, put
from msr_enhance.store.frame import Frame, corrupt
from msr_enhance.store.record import IdType, Layout
from msr_enhance.store.shard import read_heads, read_ids

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

BLOCK: Final = 256
ROW_BITS: Final = 32
"""A place is the number of an entry, shifted by so many bits, plus the row in it."""

_SIGN = np.uint64(1 << 63)


def keys_of(id_type: IdType, ids: Sequence[int] | Sequence[str] | npt.NDArray[np.int64]) -> Keys:
    """Keys of some ids, in an order that sorts like them where they are integers.

    Args:
        id_type: Type of the ids.
        ids: The ids.

    Returns:
        uint64 ``[len(ids), 1]`` for integers, ``[len(ids), 2]`` for texts.
    """
    if id_type == "int":
        return (np.asarray(ids, np.int64).view(np.uint64) ^ _SIGN)[:, None]
    digests = (hashlib.blake2b(str(name).encode(), digest_size=16).digest() for name in ids)
    found: Keys = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 2)
    return found


def write_index(
    files: StoreFiles, layout: Layout, entries: Sequence[Entry], old: Index | None = None
) -> Index:
    """Write the index of some entries.

    Args:
        files: Of the store.
        layout: Of the level.
        entries: The first entries of the level.
        old: An index of the first of these.

    Returns:
        The index; it counts once a manifest names it.

    Raises:
        StoreCorruptError: If a file is not what was written.
        OSError: If the disk refuses.
    """
    first = old.entries if old else 0
    table = LevelIndex(files, layout, old).everything() if old else None
    rows, gone = [] if table is None else [table], list[tuple[int, Keys]]()
    for number, entry in enumerate(entries[first:], first):
        if isinstance(entry, Shard):
            with files.open(entry.vectors) as opened:
                ids = read_heads(opened, entry.vectors, entry.rows, layout, entry.heads).ids
            places = (np.arange(entry.rows) + (number << ROW_BITS)).astype(np.uint64)
            rows.append(np.column_stack([keys_of(layout.id_type, ids), places]))
        else:
            ids = read_ids(files.read(entry.ids), entry.ids, entry.rows, layout)
            gone.append((number, keys_of(layout.id_type, ids)))
    return _write(files.folder, _live(np.concatenate(rows), gone), entries)


def _live(rows: Keys, gone: Sequence[tuple[int, Keys]]) -> Keys:
    """Keys and places in order: of each key the newest, and none that was dropped after it."""
    if not len(rows):
        return rows
    order = np.lexsort(rows.T[[-1, *range(rows.shape[1] - 2, -1, -1)]])
    rows = rows[order]
    last = np.append((rows[1:, :-1] != rows[:-1, :-1]).any(axis=1), True)
    rows = rows[last]
    for number, keys in gone:
        found = _find(rows, keys)
        found = found[found >= 0]
        dead = found[rows[found, -1] < np.uint64(number << ROW_BITS)]
        rows = np.delete(rows, dead, axis=0)
    return rows


def _find(rows: Keys, keys: Keys) -> Places:
    """Row of each key in sorted rows, -1 where there is none."""
    if not len(rows):
        return np.full(len(keys), -1, np.int64)
    found = np.searchsorted(rows[:, 0], keys[:, 0]).astype(np.int64)
    inside = np.minimum(found, len(rows) - 1)
    hit = (rows[inside, :-1] == keys).all(axis=1)
    if keys.shape[1] > 1:  # texts whose first 64 bits are the same stand next to each other
        for place in np.flatnonzero(~hit & (rows[inside, 0] == keys[:, 0])).tolist():
            row = int(inside[place])
            while row < len(rows) and rows[row, 0] == keys[place, 0]:
                if rows[row, 1] == keys[place, 1]:
                    inside[place], hit[place] = row, True
                row += 1
    return np.where(hit, inside, -1)


def _frame(rows: int, columns: int) -> Frame:
    blocks = -(-rows // BLOCK)
    return Frame.of(
        {"fences": ("U64", (blocks,)), "crcs": ("U8", (blocks, 4)), "rows": ("U64", (rows, columns))}
    )


def _write(folder: Path, rows: Keys, entries: Sequence[Entry]) -> Index:
    frame = _frame(*rows.shape)
    blocks = [
        rows[start : start + BLOCK].astype("<u8", copy=False).tobytes()
        for start in range(0, len(rows), BLOCK)
    ]
    fences = rows[::BLOCK, 0].astype("<u8").tobytes()
    front = frame.header + fences + pack([crc32(block) for block in blocks])
    file = put(folder, "idx", [front, *blocks])
    return Index(entries=len(entries), covers=named(entries), rows=len(rows), heads=crc32(front), file=file)


class LevelIndex:
    """Looks up keys in an index.

    Args:
        files: Of the store.
        layout: Of the level.
        index: What the manifest says of it.

    Raises:
        StoreCorruptError: If it is not what was written.
        StoreIOError: If the disk refuses.
    """

    def __init__(self, files: StoreFiles, layout: Layout, index: Index) -> None:
        self._files, self._file, self._rows = files, index.file, index.rows
        self._columns = 2 if layout.id_type == "int" else 3
        with files.open(index.file) as opened:
            if 8 * self._columns * index.rows > index.file.bytes:
                raise corrupt(str(opened.path), f"{index.rows:,} ids do not fit into it")
            self._frame = _frame(index.rows, self._columns)
            opened.check(self._frame)
            spans = self._frame.spans
            front = opened.read(0, spans["rows"].start)
            if crc32(front) != index.heads:
                raise corrupt(str(opened.path), "the checksum of its first bytes does not fit")
            fences, crcs = (
                spans[name].array(memoryview(front)[spans[name].start : spans[name].end])
                for name in ("fences", "crcs")
            )
            if (fences[1:] < fences[:-1]).any():
                raise corrupt(str(opened.path), "its blocks are not in order")
        self._fences, self._crcs = fences, unpack(crcs)

    def find(self, keys: Keys) -> Places:
        """Place of each key ``[n, 1 or 2]``, -1 where the index has none; int64 ``[n]``."""
        found = np.full(len(keys), -1, np.int64)
        if not self._rows or not len(keys):
            return found
        order = np.lexsort(keys.T[::-1])
        wanted = keys[order]
        last = np.searchsorted(self._fences, wanted[:, 0], "right").astype(np.int64) - 1
        first = np.searchsorted(self._fences, wanted[:, 0], "left").astype(np.int64) - 1
        blocks = np.unique(np.concatenate([last, first]))
        with self._files.open(self._file) as opened:
            # Many blocks are looked at in portions, so that a large lookup needs little memory.
            for some in np.array_split(blocks[blocks >= 0], -(-len(blocks) // 4096)):
                if len(some):
                    rows = self._read(opened, some)
                    low, high = np.searchsorted(last, some[0]), np.searchsorted(first, some[-1], "right")
                    part = slice(int(low), max(int(low), int(high)))
                    at = _find(rows, wanted[part])
                    hit = np.flatnonzero(at >= 0)
                    places = rows[at[hit], -1]
                    if (places >= _SIGN).any():  # negative it would read as an id that is not there
                        raise corrupt(str(opened.path), f"it names place {int(places.max()):,}")
                    found[order[part][hit]] = places.astype(np.int64)
        return found

    def everything(self) -> Keys:
        """All keys and places ``[rows, 2 or 3]``."""
        with self._files.open(self._file) as opened:
            return self._read(opened, np.arange(len(self._fences)))

    def _read(self, opened: OpenFile, blocks: Places) -> Keys:
        """Keys and places of some blocks, one after the other."""
        row_bytes, begin = 8 * self._columns, self._frame.spans["rows"].start
        block_bytes = BLOCK * row_bytes
        pieces = list[Keys]()
        for run in () if not len(blocks) else np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
            start, end = int(run[0]) * BLOCK, min((int(run[-1]) + 1) * BLOCK, self._rows)
            data = opened.read(begin + start * row_bytes, begin + end * row_bytes)
            view = memoryview(data)
            for number, block in enumerate(run.tolist()):
                if crc32(view[number * block_bytes : (number + 1) * block_bytes]) != self._crcs[block]:
                    raise corrupt(str(opened.path), f"the checksum of block {block} does not fit")
            pieces.append(np.frombuffer(data, "<u8").reshape(-1, self._columns))
        return np.concatenate(pieces) if pieces else np.empty((0, self._columns), np.uint64)
