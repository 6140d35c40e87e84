"""Verifying: every byte of a store compared with what was written; all findings, not only the first."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from msr_enhance.errors import StoreCorruptError, StoreIOError
from msr_enhance.progress import progress
from msr_enhance.store import lock
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.examine import Looked, examine, said
from msr_enhance.store.care.gather import LevelRows
from msr_enhance.store.care.hold import left_over
from msr_enhance.store.entry import Index, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import LevelIndex
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import Level
from msr_enhance.store.shard import read_ids
from msr_enhance.store.sweep import names_of
from msr_enhance.store.transform import read_map
from msr_enhance.store.versions import highest_version, latest_manifest, manifest_versions, read_manifest


class Finding(NamedTuple):
    """One thing that is wrong with a store.

    Attributes:
        file: The file's name.
        what: What was seen.
        rows: Which rows are in it, where that is known: level, how many, smallest and largest id.
        help: What helps.
    """

    file: str
    what: str
    rows: str
    help: str


@dataclass(frozen=True)
class Report:
    """What verifying found.

    Attributes:
        path: The store's folder.
        version: Its newest version, 0 where its manifest cannot be read.
        fingerprint: SHA-256 of that manifest.
        findings: Everything that is wrong; empty for a store that is as it was written.
        rows: How many rows count, of each level whose ids can be read.
        dead: How many more rows lie in the files; ``store compact`` removes them.
        files: How many files were read.
        bytes: How many bytes they should have.
        unknown: Files in the folder that are none of a store's; they are left alone.
        waiting: Files of a store that no version needs; a writer removes them when their time is over.
        seconds: How long it took.
    """

    path: Path
    version: int
    fingerprint: str
    findings: tuple[Finding, ...]
    rows: dict[Level, int]
    dead: int
    files: int
    bytes: int
    unknown: tuple[str, ...]
    waiting: tuple[str, ...]
    seconds: float


def verify(path: str | Path) -> Report:
    """Read every byte of a store, and compare it with what was written.

    Args:
        path: The store's folder.

    Returns:
        The report; damage is in it, and no error.

    Raises:
        StoreError: If there is no store, or a writer has replaced files meanwhile.
        StoreVersionError: If another version of the library wrote it.
        StoreIOError: If the folder or a manifest cannot be read.
    """
    folder, started = Path(path), time.monotonic()
    try:
        manifest, data = latest_manifest(folder)
    except StoreCorruptError as error:
        version = highest_version(folder)
        findings = [
            Finding(f"manifest-{version}.json", str(error).partition(". Fetch")[0], "", _repair(folder))
        ]
        seconds = time.monotonic() - started
        return Report(folder, 0, "", tuple(findings), {}, 0, 1, 0, (), (), seconds)
    source = Version(StoreFiles(folder, manifest.version), manifest)
    before, found = _chain(folder, manifest)
    files = {file.name: file.bytes for file in manifest.files()}
    counts, rows = dict[Level, int](), sum(e.rows for e in manifest.shards if isinstance(e, Shard))
    with progress("verifying", rows) as advance:
        for level in manifest.shape:
            broken = False
            for one in look(source, level):
                if one.findings:
                    found += one.findings
                    broken = broken or one.ids_lost
                advance(one.rows)
            if not broken:  # else the ids of the level are not known, and nothing can be compared with them
                try:
                    counts[level] = len(LevelRows(source, level))
                except StoreCorruptError as error:
                    found.append(
                        Finding(manifest.name, str(error).partition(". Fetch")[0], level, _repair(folder))
                    )
            if index := manifest.index.get(level):
                found += compare_index(source, level, index, rebuild=level in counts)
    for made in manifest.maps:
        try:
            read_map(source.files, made)
        except (StoreCorruptError, StoreIOError) as error:
            found.append(Finding(made.file.name, _words(error), made.level, _again(folder)))
    versions = [manifest, before] if before else [manifest]
    dead = rows - sum(counts.values()) if len(counts) == len(manifest.shape) else 0
    return Report(
        folder,
        manifest.version,
        hashlib.sha256(data).hexdigest(),
        tuple(found),
        counts,
        dead,
        1 + len(files),
        len(data) + sum(files.values()),
        _unknown(folder, versions),
        tuple(left_over(folder, *versions)),
        time.monotonic() - started,
    )


class Part(NamedTuple):
    """A look at one entry of a level.

    Attributes:
        number: Its place among the level's entries.
        rows: How many rows it has, 0 for a tombstone.
        looked: What was found in a shard.
        ids: What a tombstone lists; None where it cannot be read.
        findings: What is wrong.
    """

    number: int
    rows: int
    looked: Looked | None
    ids: list[Any] | None
    findings: list[Finding]

    @property
    def ids_lost(self) -> bool:
        """Whether the ids that the entry names cannot be read."""
        return self.ids is None if self.looked is None else self.looked.heads is None


def look(source: Version, level: Level) -> Iterator[Part]:
    """Read the entries of a level one by one, and tell what is wrong with each.

    Args:
        source: The version.
        level: The level.

    Yields:
        The entries in order. A disk that refuses a file is a finding too.
    """
    folder, layout = source.files.folder, source.manifest.layout(level)
    for number, entry in enumerate(source.manifest.entries(level)):
        if isinstance(entry, Shard):
            try:
                seen = examine(source, entry)
            except StoreIOError as error:
                empty = np.zeros(entry.rows, bool)
                finding = Finding(entry.vectors.name, str(error), level, "Look at the disk, and try again.")
                yield Part(number, entry.rows, Looked(None, empty, empty, ()), None, [finding])
                continue
            span = _span(level, entry.rows, seen)
            findings = [Finding(wrong.file, wrong.what, span, _repair(folder)) for wrong in seen.wrong]
            yield Part(number, entry.rows, seen, None, findings)
        else:
            try:
                ids: list[Any] = read_ids(source.files.read(entry.ids), entry.ids, entry.rows, layout)
                yield Part(number, 0, None, ids, [])
            except (StoreCorruptError, StoreIOError) as error:
                span = f"{level}, {entry.rows:,} ids that were dropped"
                yield Part(
                    number, 0, None, None, [Finding(entry.ids.name, _words(error), span, _repair(folder))]
                )


def compare_index(source: Version, level: Level, index: Index, rebuild: bool) -> list[Finding]:
    """What is wrong with an index: its own checksums, and that it lists the rows of the shards.

    Args:
        source: The version.
        level: The level.
        index: Its index.
        rebuild: Also compare it with the rows of the shards; all of these can be read.

    Returns:
        A finding, or none.

    Raises:
        StoreError: If a newer version has replaced it meanwhile.
    """
    files, manifest = source
    folder, span = files.folder, f"{level}, {index.rows:,} ids"
    try:
        files.verified(index.file)
        table = LevelIndex(files, manifest.layout(level), index).everything()
    except (StoreCorruptError, StoreIOError) as error:
        return [Finding(index.file.name, _words(error), span, _repair(folder))]
    if not rebuild:
        return []
    # What was dropped after the entries that it covers is still listed, and so that is compared.
    entries = tuple(manifest.entries(level)[: index.entries])
    first = Version(files, manifest.model_copy(update={"shards": entries}))
    rows = LevelRows(first, level)
    mine = np.column_stack([rows.keys, rows.places.astype(np.uint64)])
    mine = mine[np.lexsort(mine.T[[-1, *range(mine.shape[1] - 2, -1, -1)]])]
    if mine.shape != table.shape or (mine != table).any():
        what = f"it lists other rows than the {len(mine):,} of the shards that it covers"
        return [Finding(index.file.name, what, span, _repair(folder))]
    return []


def _chain(folder: Path, manifest: Manifest) -> tuple[Manifest | None, list[Finding]]:
    """The version before, where it is still there, and what is wrong with it."""
    number = manifest.version - 1
    if number not in manifest_versions(folder):
        return None, []
    name = f"manifest-{number}.json"
    try:
        before, data = read_manifest(folder, number)
    except FileNotFoundError:
        return None, []  # removed just now
    except StoreCorruptError as error:
        return None, [
            Finding(name, str(error).partition(". Fetch")[0], "no reader needs it", _repair(folder))
        ]
    if before.store != manifest.store or hashlib.sha256(data).hexdigest() != manifest.parent:
        what = f"version {manifest.version} does not follow from it: another parent is named there"
        return before, [Finding(name, what, "no reader needs it", _repair(folder))]
    return before, []


def _unknown(folder: Path, versions: list[Manifest]) -> tuple[str, ...]:
    """Files that are none of a store's."""
    ours = {lock.NAME, *left_over(folder), *(f"manifest-{n}.json" for n in manifest_versions(folder))}
    ours = ours.union(*map(names_of, versions))
    return tuple(sorted(set(os.listdir(folder)) - ours))


def _span(level: Level, rows: int, seen: Looked) -> str:
    """Which rows a shard has, in words."""
    if seen.heads is None or not seen.heads.ids:
        return f"{level}, {rows:,} rows"
    names: list[Any] = list(seen.heads.ids)
    return f"{level}, {rows:,} rows from {str(min(names))[:40]!r} to {str(max(names))[:40]!r}"


def _words(error: StoreCorruptError | StoreIOError) -> str:
    return said(error) if isinstance(error, StoreCorruptError) else str(error)


def _repair(folder: Path) -> str:
    return f"Fetch the store again, or write: msr-enhance store repair {folder}"


def _again(folder: Path) -> str:
    return f"Fetch {folder} again, or make it again from the store it was made from."
