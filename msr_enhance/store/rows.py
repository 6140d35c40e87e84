"""Which rows of a store count: shards and tombstones replayed in order, ids and states alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, cast

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store.entry import Entry, Shard, Tombstone
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import STATUSES, Level, Status, prompt_digest
from msr_enhance.store.shard import read_heads, read_ids
from msr_enhance.store.texts import read_blocks, split

Ids = Sequence[int] | Sequence[str]


class Rows(NamedTuple):
    """The rows of a level.

    Attributes:
        live: Each id that counts, in the order written, with a number of the caller's choice.
        dead: How many rows of an id lie in shards and do not count.
    """

    live: dict[int | str, int]
    dead: Counter[int | str]


def replay(steps: Iterable[tuple[Ids, Iterable[int] | None]], source: str, level: Level) -> Rows:
    """Rows after some steps; the newest wins.

    Args:
        steps: Ids of a shard with a number for each, or ids of a tombstone with None.
        source: Where, for messages.
        level: The level, for messages.

    Returns:
        What counts.

    Raises:
        StoreCorruptError: If an id comes twice and was not dropped in between.
    """
    rows = Rows({}, Counter())
    live, dead = rows
    for ids, numbers in steps:
        if numbers is None:
            dead.update(name for name in ids if live.pop(name, None) is not None)
            continue
        before = len(live)
        live.update(zip(ids, numbers, strict=True))
        if len(live) < before + len(ids):
            raise StoreCorruptError(
                f"{source} names shards that hold a {level} id twice. Fetch the store again, or write: "
                f"msr-enhance store repair {source.rpartition('/')[0] or source}"
            )
    return rows


def read_rows(files: StoreFiles, manifest: Manifest, level: Level, verify: bool) -> Rows:
    """Rows of a level with the position of their status; vectors and texts are not read.

    Args:
        files: Of the version that the manifest is.
        manifest: The manifest.
        level: The level.
        verify: Compare the digest of every file with ids, in pieces.

    Returns:
        What counts.

    Raises:
        StoreCorruptError: If a file is missing or is not what was written.
    """
    layout = manifest.layout(level)

    def steps() -> Iterator[tuple[Ids, Iterable[int] | None]]:
        for entry in manifest.entries(level):
            if isinstance(entry, Tombstone):
                yield read_ids(files.read(entry.ids), entry.ids, entry.rows, layout), None
                continue
            if verify:
                files.verified(entry.vectors)
            if entry.texts:
                files.present(entry.texts)
            with files.open(entry.vectors) as opened:
                heads = read_heads(opened, entry.vectors, entry.rows, layout, entry.heads)
            yield heads.ids, heads.status.tolist()

    return replay(steps(), str(files.folder / manifest.name), level)


class Dropped(Set[int | str]):
    """Ids that tombstones name from some entry on; those of all entries share one mapping.

    Args:
        last: Each id that is named, and the number of the last tombstone that does.
        number: Of the entry.
    """

    def __init__(self, last: Mapping[int | str, int], number: int) -> None:
        self._last, self._number = last, number

    def __contains__(self, name: object) -> bool:
        return self._last.get(name, -1) >= self._number  # type: ignore[call-overload, no-any-return]

    def __iter__(self) -> Iterator[int | str]:
        return (name for name, number in self._last.items() if number >= self._number)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None


def dropped_from(files: StoreFiles, manifest: Manifest, entries: Sequence[Entry]) -> list[Dropped]:
    """For each entry, the ids that tombstones from there on name: a shard's rows of these do not count.

    Args:
        files: Of the version that the manifest is.
        manifest: The manifest.
        entries: Shards and tombstones of one level, oldest first.

    Returns:
        A set for each entry.
    """
    last: dict[int | str, int] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry, Tombstone):
            layout = manifest.layout(entry.level)
            ids = read_ids(files.read(entry.ids), entry.ids, entry.rows, layout)
            last.update(dict.fromkeys(ids, number))
    return [Dropped(last, number) for number in range(len(entries))]


def prompt_digests(
    files: StoreFiles, manifest: Manifest, level: Level
) -> Iterator[tuple[int | str, Status, bytes]]:
    """Id, status and digest of the prompt of each row that counts, shard by shard.

    Args:
        files: Of the version that the manifest is.
        manifest: The manifest.
        level: The level.

    Yields:
        The rows in the order written.

    Raises:
        StoreError: If the store was saved without texts.
        StoreCorruptError: If a file is not what was written.
    """
    entries = manifest.entries(level)
    for entry, gone in zip(entries, dropped_from(files, manifest, entries), strict=True):
        if not isinstance(entry, Shard):
            continue
        if entry.texts is None:
            raise StoreError(
                f"{files.folder} was saved without texts, so that its prompts cannot be compared; "
                "extract into a new folder."
            )
        with files.open(entry.vectors) as opened:
            heads = read_heads(opened, entry.vectors, entry.rows, manifest.layout(level), entry.heads)
        states = zip(cast("list[int | str]", heads.ids), heads.status.tolist(), strict=True)
        with files.open(entry.texts) as opened:
            for block in read_blocks(opened, entry.texts, entry.rows):
                rows = split(block)
                for (name, code), (prompt, *_) in zip(itertools.islice(states, len(rows)), rows, strict=True):
                    if name not in gone:
                        yield name, STATUSES[code], prompt_digest(prompt)


def count_statuses(rows: Rows) -> dict[Status, int]:
    """How many rows have each status; those without any are left out."""
    counts = Counter(rows.live.values())
    return {status: counts[code] for code, status in enumerate(STATUSES) if counts[code]}
