"""Repairing: a damaged store becomes a whole one again, without the rows that are lost.

What is good is written anew where it shared a file with damage, and one commit names it. Damaged files are
kept under a second name in the folder ``damaged``: nobody reads it, and nobody but its owner or
``store forget`` removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from msr_enhance.atomic import TEMPORARY, sync_folder
from msr_enhance.errors import StoreCorruptError
from msr_enhance.progress import progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.examine import Wrong, said
from msr_enhance.store.care.hold import DAMAGED, left_over, locked, removing_new
from msr_enhance.store.care.salvage import Rest, Salvaged, other_index, salvage
from msr_enhance.store.care.unnamed import Unnamed, unnamed
from msr_enhance.store.commit import commit, numbered, writing
from msr_enhance.store.entry import Entry, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import LEVELS, Level
from msr_enhance.store.seal import indexes
from msr_enhance.store.sweep import names_of
from msr_enhance.store.transform import read_map
from msr_enhance.store.versions import manifest_versions, read_manifest


@dataclass(frozen=True)
class Repaired:
    """What repairing did, or would do.

    Attributes:
        path: The store's folder.
        version: The version that stands now; of a dry run, the one that was read.
        damaged: What was wrong; empty where the store is as it was written, and then nothing was changed.
        given_up: Versions whose manifest cannot be read; the newest one below stands in for them.
        lost: Ids of each level that counted and do not any more, as far as they are known. Where a version
            is given up: also all ids in files that it may have named, and that do not count now.
        unnamed: At most how many more ids of each level were lost, and cannot be read.
        bare: How many rows of each level keep their vector and lost their texts.
        kept: Where the damaged files are now.
    """

    path: Path
    version: int
    damaged: tuple[Wrong, ...]
    given_up: tuple[int, ...]
    lost: dict[Level, list[int | str]]
    unnamed: dict[Level, int]
    bare: dict[Level, int]
    kept: tuple[Path, ...] = ()


def repair(
    path: str | Path, *, keep_vectors: bool = False, bring_back: bool = False, dry_run: bool = False
) -> Repaired:
    """Commit a version of a store that is whole: what is damaged or missing is left out of it.

    Args:
        path: The store's folder.
        keep_vectors: Keep rows whose texts alone are lost, without texts. Otherwise they go, so that the
            next extraction reads them again: it could not tell from their prompt whether they are right.
        bring_back: Where a list of dropped ids is lost and no index tells which these were, or a version
            that is given up may have named it: let the rows before it count again. Otherwise that is an
            error.
        dry_run: Only say what would be done.

    Returns:
        What was wrong and what is lost. ``StoreWriter.done`` has none of the lost ids, and lacks no others
        of those that counted but as many as are ``unnamed``, and such whose files are not there.

    Raises:
        StoreCorruptError: If no manifest can be read, or a part that nothing can replace is damaged.
        StoreLockedError: If a writer has the store open.
        StoreIOError: If the disk refuses to read; copy what can be read to another one first.
        StoreError: If there is no store, or the disk refuses to write.
    """
    folder = Path(path)
    with contextlib.nullcontext() if dry_run else locked(folder, "the repaired store"):
        manifest, data, unread = _readable(folder)
        source = Version(StoreFiles(folder, max(manifest_versions(folder))), manifest)
        above = {n: what for n, what in unread.items() if n > manifest.version}
        left = (
            [name for name in left_over(folder, manifest) if not name.startswith(TEMPORARY)] if above else []
        )
        others = list(unnamed(folder, left))
        asked = {level: _ids(others, level) for level in LEVELS}
        found = _look(source, keep_vectors, bring_back, asked)
        _refuse_dropped(others, found, bring_back)
        wrong = [Wrong(f"manifest-{n}.json", what) for n, what in sorted(unread.items(), reverse=True)]
        wrong += [each for one in found.values() for each in one.wrong]
        wrong += [
            Wrong(
                each.path.name, "it is not what its name says, and only a version that is given up named it"
            )
            for each in others
            if each.ids is None
        ]
        lost, unnamed_rows = _lost(found, others)
        report = Repaired(
            folder,
            manifest.version,
            tuple(wrong),
            tuple(sorted(above)),
            lost,
            unnamed_rows,
            {level: one.bare for level, one in found.items() if one.bare},
        )
        if dry_run or not wrong:
            return report
        with writing(folder, "the repaired store"):
            aside = {each.file for each in wrong if os.path.lexists(folder / each.file)}
            aside.update(left)  # what only those versions named
            kept = _keep(folder, sorted(aside))
            version, needed = manifest.version, names_of(manifest) | {manifest.name}
            if above or any(one.wrong for one in found.values()):
                new = _commit(source, data, found)
                version, needed = new.version, names_of(new) | {new.name}
            for name in aside - needed:
                (folder / name).unlink(missing_ok=True)
            sync_folder(folder)
        return replace(report, version=version, kept=tuple(kept))


def _readable(folder: Path) -> tuple[Manifest, bytes, dict[int, str]]:
    """The newest version that can be read, its bytes, and what is wrong with which others."""
    unread, best = dict[int, str](), None
    for version in sorted(manifest_versions(folder), reverse=True):
        try:
            manifest, data = read_manifest(folder, version)
            before = best[0] if best else None
            if before and version == before.version - 1 and hashlib.sha256(data).hexdigest() != before.parent:
                unread[version] = f"version {before.version} does not follow from it"
            best = best or (manifest, data)
        except StoreCorruptError as error:
            unread[version] = said(error)
    if best is None:
        what = f"no manifest of {len(unread)} can be read" if unread else "there is no manifest"
        raise StoreCorruptError(
            f"{folder} cannot be repaired: {what}, and only a manifest says which rows count. Fetch the "
            "store again, or extract into a new folder."
        )
    return *best, unread


def _ids(others: Iterable[Unnamed], level: Level) -> set[int | str]:
    """Ids of a level in files that only versions that are given up may have named."""
    return {name for each in others if each.level == level for name in each.ids or ()}


def _refuse_dropped(others: Iterable[Unnamed], found: Mapping[Level, Salvaged], bring_back: bool) -> None:
    """Ask before rows count again that a version dropped which is given up."""
    for each in others:
        if not each.dropped or bring_back:
            continue
        counting = found[each.level].counting if each.level and each.level in found else set[int | str]()
        if each.ids is None or not counting.isdisjoint(each.ids):
            raise StoreCorruptError(
                f"{each.path} lists ids that were dropped, and the versions that may have named it cannot be "
                "read. Write --bring-back to let those rows count again (they may be of an older log), or "
                "fetch the store again."
            )


def _lost(
    found: Mapping[Level, Salvaged], others: Collection[Unnamed]
) -> tuple[dict[Level, list[int | str]], dict[Level, int]]:
    """Ids that are lost, and how many more cannot be read, with what only given-up versions named."""
    lost, more = dict[Level, list[int | str]](), dict[Level, int]()
    for level in LEVELS:
        one = found.get(level, Salvaged())
        files = [each for each in others if not each.dropped and each.level == level]
        rows = [name for each in files for name in each.ids or () if name not in one.counting]
        if names := list(dict.fromkeys([*one.lost, *rows])):
            lost[level] = names
        unread = [each.rows for each in others if each.ids is None and each.level == level]
        if count := one.unnamed + sum(unread):
            more[level] = count
    return lost, more


def _look(
    source: Version, keep_vectors: bool, bring_back: bool, asked: Mapping[Level, Set[int | str]]
) -> dict[Level, Salvaged]:
    """What each level comes to."""
    for made in source.manifest.maps:
        read_map(source.files, made)  # nothing else says what its vectors mean
    rows = sum(entry.rows for entry in source.manifest.shards if isinstance(entry, Shard))
    found = dict[Level, Salvaged]()
    with progress("examining", rows) as advance:
        for level in source.manifest.shape:
            one = salvage(
                source,
                level,
                keep_vectors=keep_vectors,
                bring_back=bring_back,
                asked=asked[level],
                advance=advance,
            )
            if not one.wrong:
                one.wrong = other_index(source, level)
                one.reindex = bool(one.wrong)
            found[level] = one
    return found


def _commit(source: Version, data: bytes, found: Mapping[Level, Salvaged]) -> Manifest:
    """Write what is left as a new version, above every one that is there."""
    folder, old = source.files.folder, source.manifest
    with removing_new(folder):
        shards = list[Entry]()
        for one in found.values():
            for entry in one.entries:
                shards += entry.write(source, folder) if isinstance(entry, Rest) else [entry]
        kept = {level: index for level, index in old.index.items() if not found[level].reindex}
        new = old.model_copy(update={"shards": tuple(shards), "index": kept})
        new = numbered(new, source.files.version + 1, hashlib.sha256(data).hexdigest())
        new = new.model_copy(update={"index": indexes(source.files, new, finish=True)})
        commit(folder, old, new)
    return new


def _keep(folder: Path, names: Iterable[str]) -> list[Path]:
    """Give files a second name in the folder for damaged ones, or copy them there; folders are moved."""
    kept, place = list[Path](), folder / DAMAGED
    for name in names:
        place.mkdir(0o750, exist_ok=True)
        target, number = place / name, 1
        while os.path.lexists(target) and not _same(folder / name, target):
            number += 1
            target = place / f"{name}.{number}"
        if (folder / name).is_symlink() or (folder / name).is_dir():
            os.rename(folder / name, target)
        elif not target.exists():
            try:
                os.link(folder / name, target)
            except OSError:  # a file system without links
                shutil.copyfile(folder / name, target)
        kept.append(target)
    if kept:
        sync_folder(place)
    return kept


def _same(path: Path, target: Path) -> bool:
    return os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target)
