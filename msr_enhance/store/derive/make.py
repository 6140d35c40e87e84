"""Making a store from another one: in a new folder, and with what was done to it on record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msr_enhance.atomic import create_exclusive
from msr_enhance.errors import StoreError
from msr_enhance.fingerprint import fingerprint
from msr_enhance.progress import Advance
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change
from msr_enhance.store.care.hold import new_folder, refuse_full
from msr_enhance.store.care.rewrite import rewrite_store
from msr_enhance.store.commit import numbered
from msr_enhance.store.derive.squeeze import ToComponents, ToInt8
from msr_enhance.store.entry import Keyed, Map
from msr_enhance.store.level import LevelReader
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.numbers import Dtype, KeptDtype, as_kept
from msr_enhance.store.record import Level
from msr_enhance.store.sweep import OURS
from msr_enhance.store.transform import write_map

Transform = Mapping[str, Any]


def project(
    source: Version,
    out: Path,
    dim: int,
    *,
    level: Level = "user",
    dtype: Dtype | None = None,
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
        dtype: How the vectors of both levels are kept; default: as before, float32 for those of int8.
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
    kept: Dtype = dtype or ("float32" if manifest.dtype == "int8" else manifest.dtype)
    fit = ToComponents.fitted(LevelReader(source.files, manifest, level), dim, seed, kept)
    changes = {other: Change(convert=lambda some: as_kept(some, kept)) for other in manifest.shape}
    changes[level] = Change(convert=fit, shape=(dim,))
    # The scales of the numbers before are used up; how the vectors were projected before is still true.
    old = tuple(made for made in manifest.maps if made.kind != "int8")
    derive(
        source,
        out,
        dtype=kept,
        changes=changes,
        transform={"kind": "project", "level": level, "dim": dim, "dtype": kept, "seed": seed},
        maps=lambda folder: (*old, write_map(folder, level, "project", fit.offset, fit.matrix)),
        old_maps=old,
        kept=lambda: {level: fit.kept.energy},
        advance=advance,
    )
    return {level: fit.kept.energy}


def to_int8(
    source: Version, out: Path, *, advance: Advance | None = None
) -> tuple[Manifest, dict[Level, float]]:
    """Make a store of eight bits a number, with a scale for each dimension; see ``project``.

    Returns:
        Its manifest, and the share of the squares of each level's vectors that is kept.
    """
    manifest = source.manifest
    if manifest.dtype == "int8":
        raise StoreError(f"{source.files.folder} keeps int8 vectors already; copy the folder instead.")
    fits = {level: ToInt8.fitted(LevelReader(source.files, manifest, level)) for level in manifest.shape}
    old = tuple(made for made in manifest.maps if made.kind != "int8")

    def energies() -> dict[Level, float]:
        return {level: fit.kept.energy for level, fit in fits.items()}

    made = derive(
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
    return made, energies()


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
    beside: Callable[[Manifest], object] | None = None,
    ours: re.Pattern[str] = OURS,
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
        beside: Writes other files into the folder, right before the manifest makes it a store.
        ours: Names of files that a call that was killed may have left; they are removed first.
        advance: Is told how many rows were written.

    Returns:
        The manifest of the new store.

    Raises:
        StoreError: If the folder holds something else, or the disk refuses.
        StoreCorruptError: If the source is damaged.
    """
    manifest = source.manifest
    stay = manifest.maps if old_maps is None else tuple(old_maps)
    made = provenance or manifest.provenance
    with new_folder(out, "the new store", ours):
        parts = rewrite_store(
            source,
            out,
            dtype=dtype,
            changes=changes,
            texts=texts,
            whole_index=True,
            advance=advance,
            fits=lambda needed: refuse_full(out, needed, "the new store"),
        )
        stay = tuple(each for each in stay if each.level in parts.shape)
        for each in stay:
            source.files.copy(each.file, out, link=True)
        if transform is not None:
            made = _transformed(made, transform, kept() if kept else {})
        # Made twice from the same version, it is the same store, byte for byte.
        checks = {level: each.check for level, each in (keyed or {}).items()}
        name = {"of": manifest.store, "transform": transform, "keyed": checks, "levels": sorted(parts.shape)}
        draft = Manifest(
            store=fingerprint(name)[:32],
            provenance=made,
            maps=maps(out) if maps else stay,
            keyed={**manifest.keyed, **(keyed or {})},
            **vars(parts),
        )
        new = numbered(draft, manifest.version, None)
        if beside:
            beside(new)
        create_exclusive(out, new.name, new.to_bytes())
    return new


def _transformed(made: Provenance, step: Transform, kept: Mapping[Level, float]) -> Provenance:
    """A provenance with one more change of the vectors in its identity, and what that kept in its facts."""
    identity = {**made.identity, "transforms": [*made.identity.get("transforms", []), dict(step)]}
    shares = {level: round(share, 6) for level, share in kept.items()}
    facts = {**made.facts, "kept_energy": [*made.facts.get("kept_energy", []), shares]}
    return Provenance(identity=identity, window=made.window, facts=facts)


def _known_level(manifest: Manifest, level: Level, folder: Path) -> None:
    if level not in manifest.shape:
        raise StoreError(f"{folder} has no {level} rows; its levels: {', '.join(manifest.shape) or 'none'}.")
