"""Salvaging: what is left of a damaged level, and the entries that hold just that."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from msr_enhance.errors import StoreCorruptError
from msr_enhance.progress import Advance
from msr_enhance.store import seal
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.examine import Mask, Wrong, examine, said
from msr_enhance.store.care.gather import read_texts
from msr_enhance.store.care.verify import compare_index
from msr_enhance.store.entry import Entry, Shard, Tombstone
from msr_enhance.store.frame import Array
from msr_enhance.store.index import ROW_BITS, LevelIndex, Places
from msr_enhance.store.record import Layout, Level
from msr_enhance.store.shard import Heads, checked_frame, read_ids, read_vectors, write_vectors
from msr_enhance.store.texts import write_texts

_LOW = np.uint64((1 << ROW_BITS) - 1)
_SIGN = np.uint64(1 << 63)


class Rest(NamedTuple):
    """What is left of a shard.

    Attributes:
        shard: The shard.
        heads: Its ids, states and token counts.
        whole: Rows to keep as they are, bool ``[rows]``.
        bare: Rows to keep without their texts, bool ``[rows]``.
    """

    shard: Shard
    heads: Heads
    whole: Mask
    bare: Mask

    def write(self, source: Version, folder: Path) -> Iterator[Shard]:
        """Write the rows that are left as one shard, or two where some lost their texts.

        Args:
            source: The version that the shard is of.
            folder: Where they go.

        Yields:
            The shards.

        Raises:
            StoreCorruptError: If a row is not what it was a moment ago.
            OSError: If the disk refuses.
        """
        layout = source.manifest.layout(self.shard.level)
        for mask, texts in ((self.whole, self.shard.texts), (self.bare, None)):
            rows = np.flatnonzero(mask)
            if not len(rows):
                continue
            ids: list[Any] = [self.heads.ids[row] for row in rows.tolist()]
            heads = Heads(ids, self.heads.status[rows], self.heads.tokens[rows])
            vectors, crc = write_vectors(folder, layout, heads, self._vectors(source, layout, rows))
            stored = None
            if texts:
                with source.files.open(texts) as opened:
                    found, _ = read_texts(opened, texts, self.shard.rows, rows)
                stored = write_texts(folder, found.lengths, [(found.lengths, b"".join(found.texts))])
            changes = {"rows": len(rows), "vectors": vectors, "heads": crc, "texts": stored}
            yield self.shard.model_copy(update=changes)

    def _vectors(self, source: Version, layout: Layout, rows: Places) -> Iterator[Array]:
        with source.files.open(self.shard.vectors) as opened:
            frame = checked_frame(opened, self.shard.vectors, self.shard.rows, layout)
            for some in np.array_split(rows, -(-len(rows) // seal.BLOCK_ROWS)):
                yield read_vectors(opened, frame, [self.heads.ids[row] for row in some.tolist()], some)


@dataclass
class Salvaged:
    """What a level comes to.

    Attributes:
        entries: Its entries; a ``Rest`` is to be written.
        wrong: What is wrong with its files.
        lost: Ids that counted and do not any more, as far as they are known.
        unnamed: At most how many more there are, whose ids cannot be read.
        bare: How many rows keep their vector and lose their texts.
        counting: Those of the ids asked for that count.
        reindex: Whether its index has to be made anew.
    """

    entries: list[Entry | Rest] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    lost: list[int | str] = field(default_factory=list)
    unnamed: int = 0
    bare: int = 0
    counting: set[int | str] = field(default_factory=set)
    reindex: bool = False


def salvage(
    source: Version,
    level: Level,
    *,
    keep_vectors: bool,
    bring_back: bool,
    asked: Set[Any] = frozenset(),
    advance: Advance,
) -> Salvaged:
    """Look at every row of a level, and decide what stays.

    A row stays if its id, its vector and its texts are what was written. One whose texts alone are lost
    goes too, unless told otherwise: a later run could not tell from its prompt whether it is still right.
    Of rows of one id the newest counts.

    Args:
        source: The version.
        level: The level.
        keep_vectors: Keep rows whose texts alone are lost, without texts.
        bring_back: Where a list of dropped ids is lost and no index tells which these were: let the rows
            before it count again.
        asked: Ids of which it is to be told whether they count afterwards.
        advance: Is told how many rows were looked at.

    Returns:
        What stays, and what is wrong.

    Raises:
        StoreCorruptError: If a list of dropped ids is lost, and nothing was said on that.
        StoreIOError: If the disk refuses; that is no damage yet.
        StoreError: If the store changes meanwhile.
    """
    found, entries = Salvaged(), source.manifest.entries(level)
    listed = _listed(source, level, found)
    covered = source.manifest.index[level].entries if listed is not None else 0
    gone, newer = set[Any](), set[Any]()  # ids that later tombstones name; ids of later shards
    unknown = False  # whether a later tombstone cannot be read, and no index stands in for it
    parts = list[Entry | Rest]()
    for number in reversed(range(len(entries))):
        entry = entries[number]
        if isinstance(entry, Tombstone):
            ids = _dropped(source, entry, found)
            if ids is not None:
                gone.update(ids)
                newer.difference_update(ids)
                parts.append(entry)
            elif number >= covered:
                if not bring_back:
                    raise StoreCorruptError(
                        f"{source.files.folder / entry.ids.name} is damaged: {entry.rows:,} {level} ids that "
                        "were dropped, and no index tells which these were. Write --bring-back to let those "
                        "rows count again (they may be of an older log), or fetch the store again."
                    )
                unknown = True
            continue
        seen = examine(source, entry)
        advance(entry.rows)
        found.wrong += seen.wrong
        in_index = None
        if listed is not None and number < covered:
            in_index = listed[listed[:, -1] >> np.uint64(ROW_BITS) == number]
        if seen.heads is None:
            _lose(found, entry, source.manifest.layout(level), in_index, gone | newer)
            continue
        live = np.array([name not in gone for name in seen.heads.ids], bool)
        covers = live.copy()
        if in_index is not None:
            here = np.zeros(entry.rows, bool)
            here[(in_index[:, -1] & _LOW).astype(np.int64)] = True
            live &= here
        if (again := _again(seen.heads.ids, live, newer)).any():
            live &= ~again
            if not unknown:  # else the lost list may have named them
                found.wrong.append(_twice(entry, seen.heads, again))
        whole, bare = live & seen.vectors & seen.texts, live & seen.vectors & ~seen.texts & keep_vectors
        found.bare += int(bare.sum())
        if asked:
            counting: Iterator[Any] = itertools.compress(seen.heads.ids, (whole | bare).tolist())
            found.counting.update(name for name in counting if name in asked)
        found.lost += itertools.compress(seen.heads.ids, (live & ~whole & ~bare).tolist())
        if seen.wrong or (covers & ~live).any():
            parts.append(Rest(entry, seen.heads, whole, bare))
        else:
            parts.append(entry)
    found.entries = parts[::-1]
    found.reindex = found.reindex or len(parts) < len(entries) or any(isinstance(p, Rest) for p in parts)
    return found


def _again(ids: Sequence[Any], live: Mask, newer: set[Any]) -> Mask:
    """Which rows that count have an id of a later one, in this shard or after it; these ids are noted."""
    again = np.zeros(len(ids), bool)
    for row in reversed(np.flatnonzero(live).tolist()):
        again[row] = ids[row] in newer
        newer.add(ids[row])
    return again


def _twice(shard: Shard, heads: Heads, again: Mask) -> Wrong:
    """What is said of ids that come again without having been dropped."""
    names = [repr(heads.ids[row])[:80] for row in np.flatnonzero(again).tolist()]
    first = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    what = f"{len(names):,} ids come again after these rows, and were not dropped ({first}); the newest count"
    return Wrong(shard.vectors.name, what)


def _listed(source: Version, level: Level, found: Salvaged) -> Array | None:
    """Keys and places of an index that is what was written."""
    index = source.manifest.index.get(level)
    if index is None:
        return None
    try:
        source.files.verified(index.file)
        return LevelIndex(source.files, source.manifest.layout(level), index).everything()
    except StoreCorruptError as error:
        found.wrong.append(Wrong(index.file.name, said(error)))
        found.reindex = True
        return None


def _dropped(source: Version, stone: Tombstone, found: Salvaged) -> Set[Any] | None:
    """The ids of a tombstone, None where they are lost."""
    try:
        data = source.files.read(stone.ids)
        return set(read_ids(data, stone.ids, stone.rows, source.manifest.layout(stone.level)))
    except StoreCorruptError as error:
        found.wrong.append(Wrong(stone.ids.name, said(error)))
        return None


def _lose(found: Salvaged, shard: Shard, layout: Layout, in_index: Array | None, gone: Set[Any]) -> None:
    """Count the rows of a shard whose ids cannot be read; an index knows those that are numbers."""
    if in_index is None:
        found.unnamed += shard.rows
    elif layout.id_type == "int":
        numbers = (in_index[:, 0] ^ _SIGN).view(np.int64).tolist()
        found.lost += [name for name in numbers if name not in gone]
    else:
        found.unnamed += len(in_index)


def other_index(source: Version, level: Level) -> list[Wrong]:
    """What is wrong with the index of a level whose shards are right."""
    index = source.manifest.index.get(level)
    return [Wrong(one.file, one.what) for one in compare_index(source, level, index, True)] if index else []
