"""Forgetting: rows and every byte of them are gone from a store's folder when this returns."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from msr_enhance.errors import StoreCorruptError, StoreError, UnknownIdError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.absence import Absence, absence
from msr_enhance.store.care.erase import erase, older, remove
from msr_enhance.store.care.gather import read_texts
from msr_enhance.store.care.hold import DAMAGED, Held, hold, left_over, refuse_full
from msr_enhance.store.care.unnamed import unnamed
from msr_enhance.store.entry import Entry, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.keyed import key_check, keyed_id
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import Level, as_list, check_id_types, exact_id
from msr_enhance.store.seal import Source, bury, indexes, rewrite
from msr_enhance.store.shard import checked_frame, read_heads, read_ids, read_vectors
from msr_enhance.store.sweep import LISTINGS
from msr_enhance.store.texts import split


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten.

    Attributes:
        path: The store's folder.
        version: Its version now.
        ids: How many ids of each level.
        rows: How many rows of these lay in files, also such as did not count any more.
        missing: Ids that the store does not have.
        files_removed: How many files were removed, among them older manifests and ones put aside.
        absence: What reading every byte of what is left has shown.
    """

    path: Path
    version: int
    ids: dict[Level, int]
    rows: dict[Level, int]
    missing: dict[Level, list[int | str]]
    files_removed: int
    absence: Absence


class _Found(NamedTuple):
    """Where the rows of some ids lie, and what is in them."""

    ids: set[Any]
    entries: set[str]
    values: set[bytes]
    rows: list[int]


def forget(
    path: str | Path,
    rows: Mapping[Level, Iterable[int | str]],
    *,
    key: bytes | None = None,
    missing_ok: bool = False,
) -> Forgotten:
    """Erase rows, and prove it: every byte of every file that is left is read.

    Only the shards that hold them are written anew. What they replace is removed at once, as is every file
    that no version needs, every older version and whatever ``repair`` has put aside: a reader that has an
    older version open gets an error and loads the store again. Ids are also looked for in the files that no
    version needs. A call that was killed is made again.

    Args:
        path: The store's folder.
        rows: Lists of ids by level.
        key: Of a store with keyed ids: the ids are given as they are, and hashed with this key.
        missing_ok: Pass over ids that the store does not have.

    Returns:
        What was done, and what the search has shown.

    Raises:
        UnknownIdError: If the store does not have an id, or it is of another type; no row was changed, and
            files that no version needs are removed all the same.
        StoreLockedError: If a writer has the store open.
        StoreCorruptError: If a shard is damaged; repair the store first.
        StoreError: If no id was given, there is no store, or the disk is too small or refuses.
    """
    folder = Path(path)
    given = {level: [exact_id(name) for name in as_list(ids)] for level, ids in rows.items()}
    if not any(given.values()):
        raise StoreError(
            'nothing to forget was given, and nothing was changed; write {"user": [7]}, or --user ID, '
            "--scenario NAME or --ids FILE."
        )
    with hold(folder, "what is left of the store") as held:
        if key is not None and key_check(key) not in {one.check for one in held.manifest.keyed.values()}:
            raise StoreError(f"the ids of {folder} were not keyed with this key; write its own, or none.")
        wanted = {level: _wanted(held.manifest, level, names, key) for level, names in given.items() if names}
        before = older(held)
        left = left_over(folder, held.manifest, *(each.manifest for each in before))
        found = {level: _find(held, before, level, names) for level, names in wanted.items()}
        _look_into(folder, left, wanted, found)
        missing = {level: sorted(names - found[level].ids, key=str) for level, names in wanted.items()}
        missing = {level: names for level, names in missing.items() if names}
        if missing and not missing_ok:
            # They may hold what nothing says of which row it was.
            _refuse(folder, missing, remove(folder, left))
        new = _without(held, wanted, found)
        removed = remove(folder, _put_aside(folder))
        new, more = erase(held, before, new)
        values = set[bytes]().union(*(each.values for each in found.values()))
        shown = absence(Version(StoreFiles(folder, new.version), new), wanted, values)
        return Forgotten(
            folder,
            new.version,
            {level: len(each.ids) for level, each in found.items()},
            {level: sum(each.rows) for level, each in found.items()},
            missing,
            removed + more,
            shown,
        )


def _wanted(manifest: Manifest, level: Level, names: Iterable[int | str], key: bytes | None) -> set[Any]:
    """Ids as the level holds them."""
    keyed = manifest.keyed.get(level)
    if key is not None and keyed is not None:
        check_id_types(level, keyed.id_type, names)
        return {keyed_id(key, name) for name in names}
    if level in manifest.id_type:
        check_id_types(level, manifest.id_type[level], names)
    return set(names)


def _find(held: Held, before: Iterable[Version], level: Level, names: set[Any]) -> _Found:
    """Where the ids are, in the version that stands and in those before."""
    found = _Found(set(), set(), set(), [])
    seen = set[str]()
    for version in (held.version, *before):
        for entry in version.manifest.entries(level) if level in version.manifest.shape else ():
            name = next(entry.files()).name
            if name in seen:
                continue
            seen.add(name)
            try:
                _look(version, entry, names, found)
            except StoreError:
                if version.manifest is held.manifest:
                    raise
    return found


def _look(version: Version, entry: Entry, names: set[Any], found: _Found) -> None:
    """Note the rows of an entry that have one of some ids, and all that is in them."""
    files, layout = version.files, version.manifest.layout(entry.level)
    if not isinstance(entry, Shard):
        if listed := names.intersection(read_ids(files.read(entry.ids), entry.ids, entry.rows, layout)):
            found.entries.add(entry.ids.name)
            found.ids.update(listed)
        return
    with files.open(entry.vectors) as opened:
        heads = read_heads(opened, entry.vectors, entry.rows, layout, entry.heads)
        rows = np.flatnonzero([name in names for name in heads.ids])
        if not len(rows):
            return
        ids: list[Any] = [heads.ids[row] for row in rows.tolist()]
        frame = checked_frame(opened, entry.vectors, entry.rows, layout)
        found.values.update(vector.tobytes() for vector in read_vectors(opened, frame, ids, rows))
    if entry.texts:
        with files.open(entry.texts) as opened:
            texts, _ = read_texts(opened, entry.texts, entry.rows, rows)
        found.values.update(itertools.chain(*split((texts.lengths, b"".join(texts.texts)))))
    found.ids.update(ids)
    found.entries.add(entry.vectors.name)
    found.rows.append(len(rows))


def _look_into(
    folder: Path, left: Collection[str], wanted: Mapping[Level, set[Any]], found: Mapping[Level, _Found]
) -> None:
    """Note the rows of files that no version names; such a file is removed whether it can be read or not."""
    for file in unnamed(folder, left):
        if file.ids is None or file.level is None or file.level not in wanted:
            continue
        rows = np.flatnonzero([name in wanted[file.level] for name in file.ids])
        one = found[file.level]
        one.ids.update(file.ids[row] for row in rows.tolist())
        if len(rows) and not file.dropped:
            one.rows.append(len(rows))
            with contextlib.suppress(StoreCorruptError):
                one.values.update(vector.tobytes() for vector in file.vectors(rows))


def _without(held: Held, wanted: Mapping[Level, set[Any]], found: Mapping[Level, _Found]) -> Manifest:
    """The store without the rows, committed; as it is where it has none of them."""
    folder, old = held.folder, held.manifest
    touched = {
        entry.level: True
        for entry in old.shards
        if entry.level in found and next(entry.files()).name in found[entry.level].entries
    }
    if not touched:
        return old
    size = sum(
        file.bytes
        for entry in old.shards
        if entry.level in touched and next(entry.files()).name in found[entry.level].entries
        for file in entry.files()
    )
    size += sum(index.file.bytes for level, index in old.index.items() if level in touched)
    refuse_full(folder, size, "forgetting")
    shards = list[Entry]()
    for entry in old.shards:
        if entry.level in touched and next(entry.files()).name in found[entry.level].entries:
            shards += _rest(held.version, entry, wanted[entry.level])
        else:
            shards.append(entry)
    left = {level: index for level, index in old.index.items() if level not in touched}
    new = old.model_copy(update={"shards": tuple(shards), "index": left})
    index = indexes(held.version.files, new, finish=True)
    return held.commit(new.model_copy(update={"index": index}))


def _rest(version: Version, entry: Entry, names: set[Any]) -> Iterator[Entry]:
    """An entry without some ids, where anything is left of it."""
    files, layout = version.files, version.manifest.layout(entry.level)
    if isinstance(entry, Shard):
        shard, _ = rewrite(files.folder, layout, [Source(files, entry, names)], entry.tier)
        if shard:
            yield shard
        return
    listed = read_ids(files.read(entry.ids), entry.ids, entry.rows, layout)
    if left := [name for name in listed if name not in names]:
        yield bury(files.folder, layout, left, entry.tier)


def _put_aside(folder: Path) -> list[str]:
    """Names of what lists rows or was put aside, in the order to go; it is written again when needed."""
    aside = folder / DAMAGED
    kept = sorted(aside.rglob("*"), reverse=True) if aside.is_dir() and not aside.is_symlink() else []
    listings = [name for name in LISTINGS if (folder / name).exists()]
    return [*listings, *(str(path.relative_to(folder)) for path in kept), *([DAMAGED] if kept else [])]


def _refuse(folder: Path, missing: Mapping[Level, list[Any]], removed: int) -> None:
    listed = "; ".join(
        f"{len(names):,} {level} ids: {', '.join(repr(name)[:80] for name in names[:10])}"
        + (", …" if len(names) > 10 else "")
        for level, names in missing.items()
    )
    changed = f"No row was changed; {removed:,} files that no version needs were removed" if removed else ""
    raise UnknownIdError(
        f"{folder} does not have {listed}. {changed or 'Nothing was changed'}. Write the ids as the "
        "store has them, or --missing-ok to forget the others."
    )
