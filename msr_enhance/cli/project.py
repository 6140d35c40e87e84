"""The work of `store project`."""

from __future__ import annotations

from pathlib import Path

from msr_enhance.cli.output import emit, show
from msr_enhance.errors import StoreError, not_one_of
from msr_enhance.progress import progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.derive.make import project
from msr_enhance.store.level import LevelReader
from msr_enhance.store.numbers import DTYPES
from msr_enhance.store.record import LEVELS


def run(store: Path, dim: int, out: Path, *, level: str, dtype: str | None, seed: int, as_json: bool) -> None:
    """Make the store and say what it keeps."""
    if level not in LEVELS:
        raise StoreError(not_one_of("level", level, LEVELS))
    if dtype is not None and dtype not in DTYPES:
        raise StoreError(not_one_of("dtype", dtype, DTYPES))
    source, chosen = Version.of(store), level
    manifest = source.manifest
    readers = {one: LevelReader(source.files, manifest, one) for one in manifest.shape}
    with progress("projecting", sum(reader.count for reader in readers.values())) as advance:
        kept = project(source, out, dim, level=chosen, dtype=dtype, seed=seed, advance=advance)
    before = readers[chosen].shape
    if as_json:
        emit(
            {
                "store": str(out.resolve()),
                "level": level,
                "shape_before": list(before),
                "dim": dim,
                "kept_energy": kept[chosen],
            }
        )
        return
    show(f"store: {out.resolve()}")
    show(
        f"{level}: {readers[chosen].count:,} rows, {' x '.join(map(str, before))} numbers became {dim}; "
        f"kept {kept[chosen]:.2%} of the squares about the mean"
    )
