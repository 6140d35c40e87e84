"""Adopting: the rows of one store in another, without copying them where the file system allows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from msr_enhance.errors import StoreError, StoreIdentityError
from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.reader import StoreReader
from msr_enhance.store.record import STATUSES, Level
from msr_enhance.store.rows import Rows, dropped_from, read_rows
from msr_enhance.store.seal import Source, rewrite
from msr_enhance.store.shard import read_heads
from msr_enhance.store.versions import latest_manifest


class Version(NamedTuple):
    """One version of a store to take rows from.

    Attributes:
        files: Its files.
        manifest: Its manifest.
    """

    files: StoreFiles
    manifest: Manifest

    @classmethod
    def of(cls, store: StoreReader | str | Path) -> Self:
        """The version a store was loaded at, or the newest in a folder."""
        if isinstance(store, StoreReader):
            return cls(store._files, store._manifest)
        folder = Path(store)
        manifest, _ = latest_manifest(folder)
        return cls(StoreFiles(folder, manifest.version), manifest)


def same_kind(target: Manifest, version: Version, out: Path) -> Manifest:
    """The target once it knows the levels of a version.

    Args:
        target: Manifest of the store that takes the rows.
        version: Where they come from.
        out: Folder of the target, for messages.

    Returns:
        The target, with shape and type of every level.

    Raises:
        StoreIdentityError: If the two were made in different ways.
        StoreError: If their vectors or ids are of different types.
    """
    source, folder = version.manifest, version.files.folder
    if changes := target.provenance.changes(source.provenance):
        raise StoreIdentityError(
            f"{folder} was made another way than {out}, and rows of two kinds do not mix:\n  "
            + "\n  ".join(line[:300] for line in changes[:20])
            + "\nMerge stores of one extraction, which differ only in their users."
        )
    kinds: list[tuple[str, str, str]] = [
        ("dtype", target.dtype, source.dtype),
        ("maps", _maps(target), _maps(source)),
        ("keys of ids", _keyed(target), _keyed(source)),
    ]
    for level in source.shape:
        kinds += [
            (f"{name} of {level}", str(mine.get(level, given[level])), str(given[level]))
            for name, mine, given in (
                ("shape", target.shape, source.shape),
                ("id type", target.id_type, source.id_type),
            )
        ]
    for name, mine, given in kinds:
        if mine != given:
            raise StoreError(
                f"{name}: {mine} in {out}, {given} in {folder}; rows of two kinds do not mix. "
                "Merge stores of one extraction, which differ only in their users."
            )
    return target.model_copy(
        update={"shape": source.shape | target.shape, "id_type": source.id_type | target.id_type}
    )


def _maps(manifest: Manifest) -> str:
    return ", ".join(f"{made.kind} {made.file.sha256[:12]}" for made in manifest.maps) or "none"


def _keyed(manifest: Manifest) -> str:
    return ", ".join(f"{level} {keyed.check}" for level, keyed in manifest.keyed.items()) or "none"


def adoptable(
    here: Mapping[Level, Rows], so_far: Mapping[Level, Rows], version: Version, out: Path
) -> dict[Level, dict[int | str, int]] | None:
    """The rows of a version that a store is to take: all, or none where it has them already.

    Args:
        here: The rows the store has.
        so_far: The same with the versions before this one.
        version: Where more come from.
        out: Folder of the store, for messages.

    Returns:
        Position of the status by level and id; None where there is nothing to take.

    Raises:
        StoreError: If it has some of the ids, or other rows for them.
        StoreCorruptError: If the version is damaged.
    """
    files, manifest = version
    given = {level: read_rows(files, manifest, level, verify=False).live for level in manifest.shape}
    if all(here[level].live.keys() >= live.keys() for level, live in given.items()):
        _refuse_others(here, given, files.folder, out)
        return None
    if twice := [
        f"{level} {name!r}" for level, live in given.items() for name in live if name in so_far[level].live
    ]:
        raise StoreError(
            f"{len(twice)} ids of {files.folder} come from another store too, or are in {out} already: "
            f"{', '.join(twice[:10])}{', …' if len(twice) > 10 else ''}. Which row is right is not "
            "guessed: merge stores that have no id in common, into a new folder."
        )
    return given


def _refuse_others(
    here: Mapping[Level, Rows], given: Mapping[Level, Mapping[int | str, int]], folder: Path, out: Path
) -> None:
    """Rows of one identity and id can differ in one way: an answer failed here and came there."""
    other = [
        f"{level} {name!r} ({STATUSES[here[level].live[name]]} there, {STATUSES[code]} now)"
        for level, live in given.items()
        for name, code in live.items()
        if here[level].live[name] != code
    ]
    if other:
        raise StoreError(
            f"{out} has other rows for {len(other)} ids of {folder}: {', '.join(other[:10])}. "
            "Merge into a new folder."
        )


def bring(version: Version, folder: Path) -> list[Shard]:
    """Put the shards of a version into another store's folder, without rows that do not count.

    Args:
        version: Where they come from.
        folder: Where they go.

    Returns:
        The shards; they count once a manifest of that folder names them.

    Raises:
        StoreCorruptError: If a file is not what was written.
        OSError: If the disk refuses.
    """
    files, manifest = version
    found: list[Shard] = []
    for level in manifest.shape:
        entries, layout = manifest.entries(level), manifest.layout(level)
        for entry, gone in zip(entries, dropped_from(files, manifest, entries), strict=True):
            if not isinstance(entry, Shard):
                continue
            if gone:
                with files.open(entry.vectors) as opened:
                    ids = read_heads(opened, entry.vectors, entry.rows, layout, entry.heads).ids
            if not gone or gone.isdisjoint(ids):
                for file in entry.files():
                    files.copy(file, folder, link=True)
                found.append(entry.model_copy(update={"tier": 0}))  # as if it had been appended here
            elif shard := rewrite(folder, layout, [Source(files, entry, gone)], 0)[0]:
                found.append(shard)
    return found
