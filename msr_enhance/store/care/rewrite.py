"""Rewriting: the rows of a store as new files, in the order of their keys, changed or as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msr_enhance.errors import StoreError
from msr_enhance.progress import Advance
from msr_enhance.store import seal
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change, Convert, NewShard
from msr_enhance.store.care.gather import LevelRows
from msr_enhance.store.entry import Entry, Index
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import write_index
from msr_enhance.store.numbers import KeptDtype, as_float32, itemsize
from msr_enhance.store.record import IdType, Layout, Level
from msr_enhance.store.seal import indexes
from msr_enhance.store.transform import read_scale


@dataclass(frozen=True)
class Rewritten:
    """What a manifest says of rows that were written anew; ``model_copy(update=vars(rewritten))``.

    Attributes:
        shape: Shape of each level's vectors.
        dtype: How they are kept.
        id_type: Type of each level's ids.
        shards: The shards.
        index: Their indexes.
    """

    shape: dict[Level, tuple[int, ...]]
    dtype: KeptDtype
    id_type: dict[Level, IdType]
    shards: tuple[Entry, ...]
    index: dict[Level, Index]


def rewrite_store(
    source: Version,
    folder: Path,
    *,
    dtype: KeptDtype | None = None,
    changes: Mapping[Level, Change] | None = None,
    texts: bool = True,
    whole_index: bool = False,
    advance: Advance | None = None,
    fits: Callable[[int], None] | None = None,
) -> Rewritten:
    """Write the rows of a store that count as new files: full shards, in the order of their keys.

    Every row is compared with its checksum when it is read, so that damage is never copied. Vectors are
    held in portions, texts a shard at a time; of all rows, ids, states and places: some 60 bytes each.

    Args:
        source: The rows.
        folder: Where the files go; they count once a manifest of that folder names them.
        dtype: How vectors are kept afterwards, where every level has a ``convert``; default: as they are.
        changes: What becomes of the rows of some levels.
        texts: Also write prompts, answers and facts, where there are any.
        whole_index: Index the last shard too, which later rows may be joined to: whoever opens the store
            on the Hub then fetches no shard. Default: as after a run that has ended.
        advance: Is told how many rows were written.
        fits: Is told how many bytes will be written, before anything is.

    Returns:
        What the manifest is to say of them; levels without rows are left out.

    Raises:
        StoreCorruptError: If a file is not what was written, or an id comes twice.
        StoreIOError: If the disk refuses to read.
        StoreError: If a number is too large for the type it gets.
        OSError: If the disk refuses to write.
    """
    manifest = source.manifest
    kept = dtype or manifest.dtype
    found, sources = dict[Level, Layout](), dict[Level, LevelRows]()
    shapes, todo = dict[Level, tuple[int, ...]](), changes or {}
    for level in manifest.shape:
        change = todo.get(level, Change())
        if change.convert is None and kept != manifest.dtype:
            raise StoreError(f"{level} vectors are {manifest.dtype}; {kept} ones need a conversion.")
        kind = change.id_type or manifest.id_type[level]
        rows = LevelRows(source, level, keep=change.keep, rename=change.rename, id_type=kind)
        if len(rows):
            shapes[level] = change.shape or manifest.shape[level]
            found[level] = Layout(level, math.prod(shapes[level]), kept, kind)
            sources[level] = rows
    if fits:
        fits(sum(_estimate(rows, found[level], texts) for level, rows in sources.items()))
    shards = list[Entry]()
    for level, rows in sources.items():
        for start, end in _portions(rows, texts):
            block = NewShard(rows, start, end, found[level], _converter(source, level, todo))
            shards.append(block.write(folder, texts and start < rows.with_texts))
            if advance:
                advance(end - start)
    id_type = {level: layout.id_type for level, layout in found.items()}
    files = StoreFiles(folder, manifest.version)
    if whole_index:
        each = {level: [entry for entry in shards if entry.level == level] for level in found}
        index = {
            level: write_index(files, found[level], entries)
            for level, entries in each.items()
            if len(entries) > 1
        }
        return Rewritten(shapes, kept, id_type, tuple(shards), index)
    new = manifest.model_copy(
        update={"shape": shapes, "dtype": kept, "id_type": id_type, "shards": tuple(shards), "index": {}}
    )
    return Rewritten(shapes, kept, id_type, tuple(shards), indexes(files, new, finish=True))


def _estimate(rows: LevelRows, layout: Layout, texts: bool) -> int:
    """Bytes of the files of some rows: vectors, heads and index, and texts with their offsets."""
    each = layout.width * itemsize(layout.dtype) + 64
    return len(rows) * each + (rows.text_bytes + 28 * len(rows) if texts else 0)


def _portions(rows: LevelRows, texts: bool) -> Iterator[tuple[int, int]]:
    """First and last row of each new shard; none has rows with and without texts."""
    middle = rows.with_texts if texts else len(rows)
    for first, last in ((0, middle), (middle, len(rows))):
        for start in range(first, last, seal.FULL):
            yield start, min(start + seal.FULL, last)


def _converter(source: Version, level: Level, changes: Mapping[Level, Change]) -> Convert | None:
    """From vectors as they are kept to vectors as they will be."""
    convert, dtype = changes.get(level, Change()).convert, source.manifest.dtype
    if convert is None:
        return None
    scale = read_scale(source.files, source.manifest, level)
    return lambda vectors: convert(as_float32(vectors, dtype, scale))
