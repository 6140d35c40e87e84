"""Summary: what a store of any size holds, without a vector and without a list of its ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from msr_enhance.store.adopt import Version
from msr_enhance.store.entry import Shard
from msr_enhance.store.record import STATUSES, Level, Status
from msr_enhance.store.rows import dropped_from
from msr_enhance.store.shard import read_heads

_SHOWN: tuple[Status, ...] = ("ok", "truncated", "empty", "failed")


class Summary(NamedTuple):
    """What a level holds.

    Attributes:
        rows: How many rows count.
        dead: How many more lie in its files; ``store compact`` removes them.
        status: How many rows have each status; those without any are left out.
        shards: How many shards.
        without_texts: In how many of its rows, also dead ones, texts were left out.
        indexed: How many ids its index lists, None where it needs none.
    """

    rows: int
    dead: int
    status: dict[Status, int]
    shards: int
    without_texts: int
    indexed: int | None


def summary(version: Version, level: Level) -> Summary:
    """Count the rows of a level; only ids and states are read, a shard at a time.

    Args:
        version: The store.
        level: The level.

    Returns:
        The counts.

    Raises:
        StoreCorruptError: If a shard is not what was written.
        StoreIOError: If the disk refuses.
    """
    files, manifest = version
    entries, layout = manifest.entries(level), manifest.layout(level)
    counts, total = np.zeros(len(STATUSES), np.int64), 0
    shards = [entry for entry in entries if isinstance(entry, Shard)]
    for entry, gone in zip(entries, dropped_from(files, manifest, entries), strict=True):
        if isinstance(entry, Shard):
            total += entry.rows
            with files.open(entry.vectors) as opened:
                heads = read_heads(opened, entry.vectors, entry.rows, layout, entry.heads)
            status = heads.status
            if gone:
                status = status[np.array([name not in gone for name in heads.ids], bool)]
            counts += np.bincount(status, minlength=len(STATUSES))
    rows, index = int(counts.sum()), manifest.index.get(level)
    found = {status: int(counts[STATUSES.index(status)]) for status in _SHOWN}
    return Summary(
        rows=rows,
        dead=total - rows,
        status={status: count for status, count in found.items() if count},
        shards=len(shards),
        without_texts=sum(shard.rows for shard in shards if shard.texts is None),
        indexed=index.rows if index else None,
    )
