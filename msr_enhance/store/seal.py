"""Sealing: many small shards become one, so that a manifest stays small however small the batches are.

A shard of `tier` t was rewritten t times. Once `RUN` entries of one tier stand at the end of a level, they
become one entry of the next tier; a shard of more than half of `FULL` rows is never touched again. What
is rewritten when follows from the list of entries alone, so that the same appends make the same files,
whether or not the run was interrupted in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from itertools import compress
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from msr_enhance.store.entry import HIGHEST_TIER, MOST_ROWS, Entry, Index, Shard, Tombstone, named
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.frame import Array
from msr_enhance.store.index import write_index
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import Layout, Level
from msr_enhance.store.rows import dropped_from
from msr_enhance.store.shard import (
    Heads,
    checked_frame,
    read_heads,
    read_vectors,
    write_ids,
    write_vectors,
)
from msr_enhance.store.texts import Block, Lengths, as_block, read_blocks, read_lengths, split, write_texts

Mask = npt.NDArray[np.bool_]

RUN: Final = 64
FULL: Final = 32_768
BLOCK_ROWS: Final = 1024
"""Rows that are held in memory at once while a shard is rewritten."""


class Source(NamedTuple):
    """A shard to be rewritten.

    Attributes:
        files: Of the store it lies in.
        shard: The shard.
        gone: Ids whose rows are left out.
    """

    files: StoreFiles
    shard: Shard
    gone: Set[int | str]


def due(entries: Sequence[Entry], incoming: int = 0) -> int | None:
    """Where the run begins that is to be sealed now.

    Args:
        entries: Shards and tombstones of a level, oldest first.
        incoming: Rows of the shard that is about to be added.

    Returns:
        The place of the run's first entry; it reaches to the end. None where nothing is due.
    """
    start = open_end(entries)
    sizes = [entry.rows for entry in entries[start:] if isinstance(entry, Shard)]
    rows = sum(sizes)
    if len(sizes) > 1 and (rows >= FULL or rows + incoming > FULL or incoming > FULL // 2):
        return start
    for tier in sorted({entry.tier for entry in entries[start:]}):
        first = len(entries)
        while first > start and entries[first - 1].tier <= tier:
            first -= 1
        if sum(entry.tier == tier for entry in entries[first:]) >= RUN:
            return first
    return None


def is_small(shard: Shard) -> bool:
    """Whether a shard may still be rewritten."""
    return shard.rows <= FULL // 2


def added(
    files: StoreFiles,
    manifest: Manifest,
    entries: Sequence[Entry],
    more: Iterable[Entry],
    dead: Counter[int | str],
) -> tuple[list[Entry], Counter[int | str]]:
    """A level's entries with more at the end, one after the other, sealed whenever that is due.

    Args:
        files: Of the store.
        manifest: Says the level's layout.
        entries: Shards and tombstones of a level, oldest first.
        more: Further ones; their files are in the store's folder.
        dead: How many rows of each id lie in all of them and do not count.

    Returns:
        The entries, and the rows that still do not count.

    Raises:
        StoreCorruptError: If a shard is not what was written; damage is never copied.
        OSError: If the disk refuses.
    """
    current = list(entries)
    for entry in more:
        if isinstance(entry, Shard):
            while (start := due(current, entry.rows)) is not None:
                current, dead = seal(files, manifest, current, start, dead)
        current.append(entry)
        while (start := due(current)) is not None:
            current, dead = seal(files, manifest, current, start, dead)
    return current, dead


def seal(
    files: StoreFiles, manifest: Manifest, entries: Sequence[Entry], start: int, dead: Counter[int | str]
) -> tuple[list[Entry], Counter[int | str]]:
    """Rewrite the entries from a place on as at most one tombstone and one shard; see ``added``."""
    run, kept = entries[start:], list(entries[:start])
    layout = manifest.layout(run[0].level)
    # Rows that are dropped and written anew for ever are rewritten as often, and stay few.
    tier = min(max(entry.tier for entry in run) + 1, HIGHEST_TIER)
    gone = dropped_from(files, manifest, run)
    sources = [
        Source(files, entry, ids) for entry, ids in zip(run, gone, strict=True) if isinstance(entry, Shard)
    ]
    shard, left_out = rewrite(files.folder, layout, sources, tier)
    dead = dead - left_out
    # Rows that lie before the run and do not count stay where they are, and so what names them must stay.
    kept += buried(files.folder, layout, [name for name in gone[0] if dead[name]], tier)
    if shard:  # after the tombstone: all of its rows count
        kept.append(shard)
    return kept, dead


def rewrite(
    folder: Path, layout: Layout, sources: Sequence[Source], tier: int
) -> tuple[Shard | None, Counter[int | str]]:
    """One shard of the rows of several that count.

    Args:
        folder: Where it is written.
        layout: Of the level.
        sources: The shards, in order; all with texts or all without.
        tier: Of the new shard.

    Returns:
        The shard, None where no row counts; and how many rows of each id were left out.

    Raises:
        StoreCorruptError: If a shard is not what was written.
        OSError: If the disk refuses.
    """
    heads = [_heads(layout, one) for one in sources]
    keep = [
        np.array([name not in one.gone for name in each.ids], bool)
        for one, each in zip(sources, heads, strict=True)
    ]
    left_out = Counter(
        name for one, each in zip(sources, heads, strict=True) for name in each.ids if name in one.gone
    )
    ids = [name for each, mask in zip(heads, keep, strict=True) for name in compress(each.ids, mask.tolist())]
    if not ids:
        return None, left_out
    kept = Heads(
        cast("list[int] | list[str]", ids),
        np.concatenate([each.status[mask] for each, mask in zip(heads, keep, strict=True)]),
        np.concatenate([each.tokens[mask] for each, mask in zip(heads, keep, strict=True)]),
    )
    vectors, crc = write_vectors(folder, layout, kept, _vectors(layout, sources, heads, keep))
    texts = None
    if all(one.shard.texts for one in sources):
        texts = write_texts(folder, _lengths(sources, keep), _texts(sources, keep))
    shard = Shard(level=layout.level, rows=len(ids), tier=tier, vectors=vectors, heads=crc, texts=texts)
    return shard, left_out


def indexes(files: StoreFiles, manifest: Manifest, finish: bool = False) -> dict[Level, Index]:
    """The indexes of a version, renewed where enough rows came to rest.

    Which file is written when follows from the list of entries alone, as in sealing. A level costs its
    index nine times over on the way, and a reader that comes in between reads at most an eighth of the ids.

    Args:
        files: Of the store.
        manifest: The version, with the indexes of the one before.
        finish: Whether no more rows are expected for now.

    Returns:
        An index for each level that has enough rows.

    Raises:
        StoreCorruptError: If a shard is not what was written.
        OSError: If the disk refuses.
    """
    found: dict[Level, Index] = {}
    for level in manifest.shape:
        entries, old = manifest.entries(level), manifest.index.get(level)
        if old and named(entries[: old.entries]) != old.covers:
            old = None  # some of what it covers was rewritten
        settled = open_end(entries)
        new = entries[old.entries if old else 0 : settled]
        rows = sum(entry.rows for entry in new)
        if rows >= (1 if finish else max(FULL, (old.rows if old else 0) // 8)):
            old = write_index(files, manifest.layout(level), entries[:settled], old)
        if old:
            found[level] = old
    return found


def buried(folder: Path, layout: Layout, ids: Sequence[int | str], tier: int = 0) -> list[Tombstone]:
    """Tombstones for any number of ids; see ``bury``."""
    return [
        bury(folder, layout, ids[start : start + MOST_ROWS], tier) for start in range(0, len(ids), MOST_ROWS)
    ]


def bury(folder: Path, layout: Layout, ids: Collection[int | str], tier: int = 0) -> Tombstone:
    """A tombstone for some ids.

    Args:
        folder: Where it is written.
        layout: Of the level.
        ids: The ids, in any order.
        tier: Of the tombstone.

    Returns:
        The tombstone.

    Raises:
        OSError: If the disk refuses.
    """
    names: list[Any] = sorted(ids)  # all of one type
    return Tombstone(level=layout.level, rows=len(names), tier=tier, ids=write_ids(folder, layout, names))


def open_end(entries: Sequence[Entry]) -> int:
    """Where the entries begin that may still be rewritten together: none is large, all texts or none."""
    start, with_texts = len(entries), None
    for place in reversed(range(len(entries))):
        entry = entries[place]
        if isinstance(entry, Shard):
            has = entry.texts is not None
            if not is_small(entry) or with_texts not in (None, has):
                break
            with_texts = has
        start = place
    return start


def _heads(layout: Layout, source: Source) -> Heads:
    files, shard, _ = source
    files.verified(shard.vectors)  # what is damaged is never copied
    with files.open(shard.vectors) as opened:
        return read_heads(opened, shard.vectors, shard.rows, layout, shard.heads)


def _vectors(
    layout: Layout, sources: Sequence[Source], heads: Sequence[Heads], keep: Sequence[Mask]
) -> Iterator[Array]:
    for (files, shard, _), each, mask in zip(sources, heads, keep, strict=True):
        rows = np.flatnonzero(mask)
        with files.open(shard.vectors) as opened:
            frame = checked_frame(opened, shard.vectors, shard.rows, layout)
            for some in np.array_split(rows, -(-len(rows) // BLOCK_ROWS)) if len(rows) else ():
                ids = [each.ids[row] for row in some.tolist()]
                yield read_vectors(opened, frame, ids, some)


def _lengths(sources: Sequence[Source], keep: Sequence[Mask]) -> Lengths:
    found = []
    for (files, shard, _), mask in zip(sources, keep, strict=True):
        if shard.texts:
            files.verified(shard.texts)
            with files.open(shard.texts) as opened:
                found.append(read_lengths(opened, shard.texts, shard.rows)[mask])
    return np.concatenate(found)


def _texts(sources: Sequence[Source], keep: Sequence[Mask]) -> Iterator[Block]:
    for (files, shard, _), mask in zip(sources, keep, strict=True):
        if shard.texts:
            with files.open(shard.texts) as opened:
                start = 0
                for block in read_blocks(opened, shard.texts, shard.rows):
                    some, start = mask[start : start + len(block[0])], start + len(block[0])
                    yield block if some.all() else as_block(compress(split(block), some.tolist()))
