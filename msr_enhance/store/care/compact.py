"""Compacting: a store is written anew, so that rows that were dropped are gone from the disk.

The new files lie beside the old ones until one commit names them, as with any other commit: a call that
is killed leaves the store as it was, and some files that the next writer removes.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msr_enhance.atomic import create_exclusive
from msr_enhance.errors import StoreError, not_one_of
from msr_enhance.progress import Advance, progress
from msr_enhance.store import seal
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change, Convert, NewShard
from msr_enhance.store.care.gather import LevelRows
from msr_enhance.store.care.hold import hold, new_folder, numbered, refuse_full
from msr_enhance.store.entry import Entry, Index, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.numbers import DTYPES, Dtype, KeptDtype, as_float32, as_kept, itemsize
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
    # What may still be sealed with later rows is not in the index, as after a run that has ended.
    new = manifest.model_copy(
        update={"shape": shapes, "dtype": kept, "id_type": id_type, "shards": tuple(shards), "index": {}}
    )
    index = indexes(StoreFiles(folder, manifest.version), new, finish=True)
    return Rewritten(shapes, kept, id_type, tuple(shards), index)


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


@dataclass(frozen=True)
class Compacted:
    """What compacting did.

    Attributes:
        path: The compacted store.
        version: Its version.
        changed: Whether anything was written; a store that is compact already stays as it is.
        rows: How many rows each level has.
        removed: How many rows lay in files and did not count.
        bytes_before: Bytes of the files of the version that was read.
        bytes_after: Bytes of the files of the new one.
        files_before: How many files those were.
        files_after: How many these are.
    """

    path: Path
    version: int
    changed: bool
    rows: dict[Level, int]
    removed: int
    bytes_before: int
    bytes_after: int
    files_before: int
    files_after: int


def compact(path: str | Path, out: str | Path | None = None, dtype: Dtype | None = None) -> Compacted:
    """Write a store anew: no row that does not count, full shards, rows in the order of the index.

    In place, one commit replaces the old files, which then get the usual time for readers of an older
    version. A call that is interrupted leaves the store as it was, and may be made again.

    Args:
        path: The store's folder.
        out: Leave the store as it is and make a compacted one in this new folder.
        dtype: How the copy keeps vectors; recorded in its identity, so that rows of the two do not mix.

    Returns:
        What was done.

    Raises:
        StoreCorruptError: If a row is not what was written; damage is never copied.
        StoreLockedError: If a writer has the store open.
        StoreError: If there is no store, the disk is too small or refuses, or the type cannot be given.
    """
    folder = Path(path)
    if out is not None:
        return _copy(Version.of(folder), Path(out), dtype)
    if dtype is not None:
        raise StoreError(
            f"a store keeps the type of its vectors; write --out NEW with --dtype {dtype} for a copy."
        )
    with hold(folder, "the compacted store") as held:
        new = _rewritten(held.version, folder, None)
        changed = _changes(held.manifest, new)
        if changed:
            new = held.commit(new)
        return _report(folder, held.manifest, new if changed else held.manifest, changed)


def _copy(source: Version, out: Path, dtype: Dtype | None) -> Compacted:
    old = source.manifest
    if dtype is not None and dtype not in DTYPES:
        raise StoreError(not_one_of("dtype", dtype, DTYPES))
    if dtype is not None and old.dtype == "int8":
        raise StoreError(
            f"{source.files.folder} keeps int8 vectors, and what was lost does not come back; "
            f"convert the store it was made from."
        )
    with new_folder(out, "the compacted copy"):
        new = _rewritten(source, out, None if dtype == old.dtype else dtype)
        new = numbered(new.model_copy(update={"store": uuid.uuid4().hex}), 1, None)
        for made in new.maps:
            source.files.copy(made.file, out)
        create_exclusive(out, new.name, new.to_bytes())
        return _report(out, old, new, True)


def _rewritten(source: Version, folder: Path, dtype: Dtype | None) -> Manifest:
    old = source.manifest
    changes = {level: Change(convert=partial(as_kept, dtype=dtype)) for level in old.shape} if dtype else {}
    with progress("compacting", sum(_rows(old).values()), unit="rows") as advance:
        found = rewrite_store(
            source,
            folder,
            dtype=dtype,
            changes=changes,
            advance=advance,
            fits=lambda needed: refuse_full(folder, needed, "compacting"),
        )
    provenance = transformed(old.provenance, {"kind": "dtype", "from": old.dtype, "to": dtype})
    return old.model_copy(update=vars(found) | ({"provenance": provenance} if dtype else {}))


def transformed(provenance: Provenance, step: Mapping[str, Any]) -> Provenance:
    """A provenance with one more change of the vectors in its identity, under ``transforms``."""
    steps = [*provenance.identity.get("transforms", []), dict(step)]
    return provenance.model_copy(update={"identity": provenance.identity | {"transforms": steps}})


def _changes(old: Manifest, new: Manifest) -> bool:
    """Whether a rewritten version has other files than the old one, or has them in another order."""
    return any(
        [list(entry.files()) for entry in old.entries(level)]
        != [list(entry.files()) for entry in new.entries(level)]
        or old.index.get(level) != new.index.get(level)
        for level in old.shape
    )


def _rows(manifest: Manifest) -> dict[Level, int]:
    """Rows in the shards of each level, also those that do not count."""
    rows = dict.fromkeys(manifest.shape, 0)
    for entry in manifest.shards:
        rows[entry.level] += entry.rows if isinstance(entry, Shard) else 0
    return rows


def _report(path: Path, old: Manifest, new: Manifest, changed: bool) -> Compacted:
    rows = _rows(new)
    before, after = ({file.name: file.bytes for file in each.files()} for each in (old, new))
    return Compacted(
        path=path,
        version=new.version,
        changed=changed,
        rows=rows,
        removed=sum(_rows(old).values()) - sum(rows.values()),
        bytes_before=sum(before.values()),
        bytes_after=sum(after.values()),
        files_before=len(before),
        files_after=len(after),
    )
