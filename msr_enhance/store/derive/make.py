"""Making a store from another one: in a new folder, and with what was done to it on record."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msr_enhance.atomic import create_exclusive, make_folder
from msr_enhance.errors import StoreError
from msr_enhance.fingerprint import fingerprint
from msr_enhance.progress import Advance
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change
from msr_enhance.store.care.compact import rewrite_store
from msr_enhance.store.commit import writing
from msr_enhance.store.derive.squeeze import ToComponents, ToInt8
from msr_enhance.store.entry import Keyed, Map
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import write_index
from msr_enhance.store.level import LevelReader
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.numbers import Dtype, KeptDtype, as_kept
from msr_enhance.store.record import Layout, Level
from msr_enhance.store.sweep import OURS
from msr_enhance.store.transform import write_map
from msr_enhance.store.versions import manifest_versions

Transform = Mapping[str, Any]


def project(
    source: Version,
    out: Path,
    dim: int,
    *,
    level: Level = "user",
    dtype: Dtype = "float32",
    seed: int = 0,
    advance: Advance | None = None,
) -> dict[Level, float]:
    """Make a store of fewer numbers: the principal components of one level, the other level as it is.

    The mean and the components are kept in the store. Nothing but the store's own vectors is looked at,
    so no label can leak into them.

    Args:
        source: The store.
        out: A folder that is empty or not there yet.
        dim: Numbers of a vector.
        level: The level that is projected.
        dtype: How all vectors are kept.
        seed: Of the rows that are looked at, where there are more than 100,000.
        advance: Is told how many rows were written.

    Returns:
        The share of the squares about the mean that is kept, of the level.

    Raises:
        StoreError: If the level has fewer numbers or too few rows, or the folder holds something.
        StoreCorruptError: If the store is damaged.
    """
    manifest = source.manifest
    _known_level(manifest, level, source.files.folder)
    fit = ToComponents.fitted(LevelReader(source.files, manifest, level), dim, seed)
    changes = {other: Change(convert=lambda some: as_kept(some, dtype)) for other in manifest.shape}
    changes[level] = Change(convert=lambda some: as_kept(fit(some), dtype), shape=(dim,))
    # The scales of the numbers before are used up; maps of the other level stay as they are.
    old = tuple(made for made in manifest.maps if made.level != level and made.kind != "int8")
    derive(
        source,
        out,
        dtype=dtype,
        changes=changes,
        transform={"kind": "project", "level": level, "dim": dim, "dtype": dtype, "seed": seed},
        maps=lambda folder: (*old, write_map(folder, level, "project", fit.offset, fit.matrix)),
        old_maps=old,
        kept=lambda: {level: fit.kept.energy},
        advance=advance,
    )
    return {level: fit.kept.energy}


def to_int8(source: Version, out: Path, *, advance: Advance | None = None) -> dict[Level, float]:
    """Make a store of eight bits a number, with a scale for each dimension; see ``project``."""
    manifest = source.manifest
    fits = {level: ToInt8.fitted(LevelReader(source.files, manifest, level)) for level in manifest.shape}
    old = tuple(made for made in manifest.maps if made.kind != "int8")

    def energies() -> dict[Level, float]:
        return {level: fit.kept.energy for level, fit in fits.items()}

    derive(
        source,
        out,
        dtype="int8",
        changes={level: Change(convert=fit) for level, fit in fits.items()},
        transform={"kind": "int8"},
        maps=lambda folder: (
            *old,
            *(write_map(folder, level, "int8", fit.offset, fit.matrix) for level, fit in fits.items()),
        ),
        old_maps=old,
        kept=energies,
        advance=advance,
    )
    return energies()


def derive(
    source: Version,
    out: Path,
    *,
    dtype: KeptDtype | None = None,
    changes: Mapping[Level, Change] | None = None,
    transform: Transform | None = None,
    maps: Callable[[Path], tuple[Map, ...]] | None = None,
    old_maps: Sequence[Map] | None = None,
    kept: Callable[[], Mapping[Level, float]] | None = None,
    keyed: Mapping[Level, Keyed] | None = None,
    provenance: Provenance | None = None,
    texts: bool = True,
    advance: Advance | None = None,
) -> Manifest:
    """Write a store's rows, changed, into a new folder; a call that was killed may be made again.

    Args:
        source: The store.
        out: A folder that is empty or not there yet.
        dtype: How vectors are kept; default: as before.
        changes: What becomes of the rows of some levels.
        transform: What was done to the vectors: part of the new store's identity.
        maps: Writes what the new vectors are read with, into a folder.
        old_maps: Those of the source that still hold; default: all.
        kept: Says, after all rows were written, what is left of them; recorded as a fact.
        keyed: Levels whose ids are keyed hashes now.
        provenance: What the store says of its making; default: the source's.
        texts: Also write prompts, answers and facts.
        advance: Is told how many rows were written.

    Returns:
        The manifest of the new store.

    Raises:
        StoreError: If the folder holds something else, or the disk refuses.
        StoreCorruptError: If the source is damaged.
    """
    _check_new(out)
    manifest = source.manifest
    stay = manifest.maps if old_maps is None else tuple(old_maps)
    made = provenance or manifest.provenance
    with writing(out, "the new store"):
        make_folder(out)
        parts = rewrite_store(source, out, dtype=dtype, changes=changes, texts=texts, advance=advance)
        index = dict(parts.index)
        for level, kind in parts.id_type.items():
            # Over all shards, not only full ones: whoever opens the store on the Hub then fetches none.
            layout = Layout(level, math.prod(parts.shape[level]), parts.dtype, kind)
            entries = [entry for entry in parts.shards if entry.level == level]
            if len(entries) > 1:
                index[level] = write_index(StoreFiles(out, 1), layout, entries)
        for each in stay:
            source.files.copy(each.file, out, link=True)
        if transform is not None:
            identity = {
                **made.identity,
                "transforms": [*made.identity.get("transforms", []), dict(transform)],
            }
            shares = {level: round(share, 6) for level, share in (kept() if kept else {}).items()}
            facts = {**made.facts, "kept_energy": [*made.facts.get("kept_energy", []), shares]}
            made = Provenance(identity=identity, window=made.window, facts=facts)
        new = Manifest(
            # Made twice from the same version, it is the same store, byte for byte.
            store=fingerprint({"of": manifest.store, "transform": transform, "keyed": sorted(keyed or ())})[
                :32
            ],
            version=manifest.version,
            provenance=made,
            maps=tuple(each for each in (maps(out) if maps else stay) if each.level in parts.shape),
            keyed={
                level: each
                for level, each in {**manifest.keyed, **(keyed or {})}.items()
                if level in parts.shape
            },
            shape=parts.shape,
            dtype=parts.dtype,
            id_type=parts.id_type,
            shards=parts.shards,
            index=index,
        )
        create_exclusive(out, new.name, new.to_bytes())
    return new


def _check_new(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; a store is a folder. Write another path.")
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = [path.name for path in out.iterdir()]
    if manifest_versions(out) or (other := [name for name in names if not OURS.fullmatch(name)]):
        seen = "a store" if manifest_versions(out) else repr(other[0])
        raise StoreError(f"{out} holds {seen} already; write the path of a new or empty folder.")


def _known_level(manifest: Manifest, level: Level, folder: Path) -> None:
    if level not in manifest.shape:
        raise StoreError(f"{folder} has no {level} rows; its levels: {', '.join(manifest.shape) or 'none'}.")
