"""Absence: reading every byte of a store's folder, to show that rows are not in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from msr_enhance.errors import StoreCorruptError
from msr_enhance.progress import progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.needles import SHORTEST, Needles
from msr_enhance.store.entry import Shard
from msr_enhance.store.index import LevelIndex, keys_of
from msr_enhance.store.record import Level
from msr_enhance.store.shard import checked_frame, read_heads, read_ids
from msr_enhance.store.sweep import OURS
from msr_enhance.store.texts import read_lengths, text_frame

_SAMPLE: Final = 1 << 20


class Absence(NamedTuple):
    """What a search has shown.

    Attributes:
        files: How many files were read, each to its end.
        bytes: How many bytes.
        looked_for: How many vectors and texts of the forgotten rows were looked for.
        skipped: How many were not: they are too short to mean anything, or zeros.
        shared: How many also are a vector or in a text of somebody else's row, and stay there.
        left: Files that still hold one, outside of somebody else's row, and how many times.
    """

    files: int
    bytes: int
    looked_for: int
    skipped: int
    shared: int
    left: dict[str, int]


def absence(version: Version, wanted: Mapping[Level, set[Any]], values: Set[bytes]) -> Absence:
    """Show that ids are nowhere in a store, and what was in their rows nowhere in its folder.

    Args:
        version: The only version of the store.
        wanted: The ids by level.
        values: Vectors as they were kept, and texts.

    Returns:
        What was found.

    Raises:
        StoreCorruptError: If the store names one of the ids all the same, or is damaged.
        OSError: If the disk refuses.
    """
    for level in version.manifest.shape:
        if names := wanted.get(level):
            _refuse_named(version, level, names)
    meant = {value for value in values if len(value) >= SHORTEST and len(set(value)) > 1}
    needles = Needles(meant | set(_escaped(meant)), _sample(version))
    words = {str(name).encode() for names in wanted.values() for name in names}
    ids = Needles({word for word in words if len(word) >= SHORTEST})  # in the store's own files one by one
    owners = _Owners(version)
    paths = list(_all_files(version.files.folder))
    size = sum(path.lstat().st_size for path in paths)
    shared, left = set[bytes](), Counter[str]()
    with progress("searching", size, unit="bytes") as advance:
        for path in paths:
            if not OURS.fullmatch(path.name):
                left[str(path.relative_to(version.files.folder))] += sum(1 for _ in ids.search(path))
            for place, needle in needles.search(path):
                if owners.hold(path, place, len(needle)):
                    shared.add(needle)
                else:
                    left[str(path.relative_to(version.files.folder))] += 1
            advance(path.lstat().st_size)
    skipped = len(values) - len(meant)
    return Absence(len(paths), size, len(meant), skipped, len(shared), dict(+left))


def _escaped(values: Iterable[bytes]) -> Iterator[bytes]:
    """Texts as they stand in JSON, where that is something else."""
    for value in values:
        with contextlib.suppress(UnicodeDecodeError):
            text = value.decode()
            yield from {json.dumps(text, ensure_ascii=kind)[1:-1].encode() for kind in (True, False)} - {
                value
            }


def _all_files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _refuse_named(version: Version, level: Level, names: set[Any]) -> None:
    """Read every list of ids there is: of shards, of dropped rows, and of the index."""
    files, manifest = version
    layout = manifest.layout(level)
    found = set[Any]()
    for entry in manifest.entries(level):
        if isinstance(entry, Shard):
            with files.open(entry.vectors) as opened:
                found |= names.intersection(
                    read_heads(opened, entry.vectors, entry.rows, layout, entry.heads).ids
                )
        else:
            found |= names.intersection(read_ids(files.read(entry.ids), entry.ids, entry.rows, layout))
    if index := manifest.index.get(level):
        table = LevelIndex(files, layout, index).everything()[:, :-1]
        keys = keys_of(layout.id_type, list(names))
        near = table[np.isin(table[:, 0], keys[:, 0])]
        found |= set(map(tuple, near.tolist())) & set(map(tuple, keys.tolist()))
    if found:
        raise StoreCorruptError(
            f"{files.folder} still names {len(found)} {level} ids that were to be forgotten. Write "
            f"msr-enhance store verify {files.folder}, and report this."
        )


def _sample(version: Version) -> bytes:
    """Some bytes as they stand in the files."""
    data = bytearray()
    for file in [file for entry in version.manifest.shards for file in entry.files()][:16]:
        with version.files.open(file) as opened:
            data += opened.read(0, min(file.bytes, _SAMPLE))
    return bytes(data)


class _Owners:
    """Says whether bytes of a file are one row's vector, or lie in one row's text."""

    def __init__(self, version: Version) -> None:
        self._files = version.files
        self._vectors, self._texts = dict[str, tuple[Shard, Any]](), dict[str, Shard]()
        self._ends: tuple[str, Any] = ("", None)
        for entry in version.manifest.shards:
            if isinstance(entry, Shard):
                self._vectors[entry.vectors.name] = entry, version.manifest.layout(entry.level)
                if entry.texts:
                    self._texts[entry.texts.name] = entry

    def hold(self, path: Path, place: int, size: int) -> bool:
        """Whether they are somebody's; every row there is somebody else's, as its id was looked at."""
        if path.parent != self._files.folder:
            return False
        if path.name in self._vectors:
            shard, layout = self._vectors[path.name]
            with self._files.open(shard.vectors) as opened:
                span = checked_frame(opened, shard.vectors, shard.rows, layout).spans["vectors"]
            row_bytes = (span.end - span.start) // shard.rows
            inside = span.start <= place < span.end and size == row_bytes
            return inside and (place - span.start) % row_bytes == 0
        if path.name in self._texts:
            shard = self._texts[path.name]
            if self._ends[0] != path.name and shard.texts:
                with self._files.open(shard.texts) as opened:
                    lengths = read_lengths(opened, shard.texts, shard.rows)
                first = text_frame(shard.rows, shard.texts.blob).spans["text_bytes"].start
                self._ends = path.name, first + np.concatenate([[0], np.cumsum(lengths.reshape(-1))])
            ends = self._ends[1]
            piece = int(np.searchsorted(ends, place, "right"))
            return bool(0 < piece < len(ends) and place + size <= ends[piece])
        return False
