"""Compacting: a store is written anew, so that rows that were dropped are gone from the disk.

The new files lie beside the old ones until one commit names them, as with any other commit: a call that
is killed leaves the store as it was, and some files that the next writer removes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msr_enhance.errors import StoreError, not_one_of
from msr_enhance.progress import progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change
from msr_enhance.store.care.erase import erase, older
from msr_enhance.store.care.hold import hold, refuse_full
from msr_enhance.store.care.rewrite import rewrite_store
from msr_enhance.store.derive.make import derive, to_int8
from msr_enhance.store.entry import Shard
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.numbers import DTYPES, KeptDtype, as_kept
from msr_enhance.store.record import Level


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
        kept_energy: Of an int8 copy, the share of the squares of each level's vectors that is kept.
        erased: How many files were removed at once, among them older manifests.
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
    kept_energy: dict[Level, float] | None = None
    erased: int = 0


def compact(
    path: str | Path,
    out: str | Path | None = None,
    dtype: KeptDtype | None = None,
    *,
    at_once: bool = False,
) -> Compacted:
    """Write a store anew: no row that does not count, full shards, rows in the order of the index.

    In place, one commit replaces the old files, which then get the usual time for readers of an older
    version. A call that is interrupted leaves the store as it was, and may be made again.

    Args:
        path: The store's folder.
        out: Leave the store as it is and make a compacted one in this new folder.
        dtype: How the copy keeps vectors, also ``int8``; recorded in its identity, so that rows of the two
            do not mix.
        at_once: In place only: remove every file and version that is not needed any more now, and so every
            byte of rows that were dropped, but what ``repair`` has put aside. A reader that has an older
            version open gets an error and loads the store again.

    Returns:
        What was done.

    Raises:
        StoreCorruptError: If a row is not what was written; damage is never copied.
        StoreLockedError: If a writer has the store open.
        StoreError: If there is no store, the disk is too small or refuses, or the type cannot be given.
    """
    folder = Path(path)
    if out is not None and at_once:
        raise StoreError("a copy replaces no files that could be removed; write --now without --out.")
    if out is not None and dtype == "int8":
        source = Version.of(folder)
        with progress("compacting", sum(_rows(source.manifest).values()), unit="rows") as advance:
            new, kept = to_int8(source, Path(out), advance=advance)
        return replace(_report(Path(out), source.manifest, new, True), kept_energy=kept)
    if out is not None:
        return _copy(Version.of(folder), Path(out), dtype)
    if dtype is not None:
        raise StoreError(
            f"a store keeps the type of its vectors; write --out NEW with --dtype {dtype} for a copy."
        )
    with hold(folder, "the compacted store") as held:
        before = older(held)
        new = _rewritten(held.version, folder)
        changed = _changes(held.manifest, new)
        new = held.commit(new) if changed else held.manifest
        done, erased = erase(held, before, new) if at_once else (new, 0)
        return replace(_report(folder, held.manifest, done, changed), erased=erased)


def _copy(source: Version, out: Path, dtype: KeptDtype | None) -> Compacted:
    old = source.manifest
    wanted = None if dtype == old.dtype else dtype
    if wanted is not None and wanted not in DTYPES:
        raise StoreError(not_one_of("dtype", dtype, (*DTYPES, "int8")))
    if wanted is not None and old.dtype == "int8":
        raise StoreError(
            f"{source.files.folder} keeps int8 vectors, and what was lost does not come back; "
            f"convert the store it was made from."
        )
    changes = {level: Change(convert=partial(as_kept, dtype=wanted)) for level in old.shape} if wanted else {}
    step = {"kind": "dtype", "from": old.dtype, "to": wanted} if wanted else None
    with progress("compacting", sum(_rows(old).values()), unit="rows") as advance:
        new = derive(source, out, dtype=wanted, changes=changes, transform=step, advance=advance)
    return _report(out, old, new, True)


def _rewritten(source: Version, folder: Path) -> Manifest:
    old = source.manifest
    with progress("compacting", sum(_rows(old).values()), unit="rows") as advance:
        found = rewrite_store(
            source,
            folder,
            advance=advance,
            fits=lambda needed: refuse_full(folder, needed, "compacting"),
        )
    return old.model_copy(update=vars(found))


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
