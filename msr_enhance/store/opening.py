"""Opening a store to write to it: a new one, or one made the same way."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from msr_enhance.atomic import TEMPORARY, create_exclusive, make_folder, sync_folder
from msr_enhance.errors import StoreError, StoreIdentityError, not_one_of
from msr_enhance.store import lock
from msr_enhance.store.commit import other_writer, readable
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.lock import Lock
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.numbers import DTYPES, Dtype
from msr_enhance.store.record import Level
from msr_enhance.store.rows import Rows, read_rows
from msr_enhance.store.sweep import sweep_at_open
from msr_enhance.store.versions import highest_version, latest_manifest


class Opened(NamedTuple):
    """A store that is open for writing.

    Attributes:
        lock: Held as long as it is open.
        manifest: The newest version, with the provenance of the rows to come.
        written: The provenance that it has on disk.
        data: Its bytes on disk.
        rows: The rows of each level.
    """

    lock: Lock
    manifest: Manifest
    written: Provenance
    data: bytes
    rows: Mapping[Level, Rows]


def open_folder(folder: Path, provenance: Provenance, dtype: Dtype | None, refresh: bool) -> Opened:
    """Create a store, or resume one; see ``StoreWriter.open``."""
    if dtype not in (*DTYPES, None):
        raise StoreError(not_one_of("dtype", dtype, DTYPES))
    if not isinstance(provenance, Provenance):
        raise StoreError(
            f"provenance is {type(provenance).__name__}; write Provenance(identity=…, window=…)."
        )
    provenance = provenance.model_copy(deep=True)  # the caller's dictionaries may change
    there = bool(highest_version(folder))
    try:
        if not make_folder(folder) and not there:
            _refuse_others(folder)
        held = Lock.take(folder)
    except FileExistsError as error:
        raise StoreError(f"{folder} is a file; a store is a folder. Write another path.") from error
    except OSError as error:
        raise StoreError(f"a store cannot be written in {folder}: {error}. Write another path.") from error
    try:
        if there or highest_version(folder):  # somebody may have made it before we had the lock
            return _resume(held, folder, provenance, dtype, refresh)
        return _create(held, folder, provenance, dtype or "float32")
    except BaseException:
        held.release()
        raise


def check_writable(folder: Path) -> None:
    """Refuse a store that cannot be written, or that somebody is writing, before a model is loaded for it.

    Args:
        folder: Its folder, which need not be there yet.

    Raises:
        StoreLockedError: If another writer has it open.
        StoreError: If it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is a folder. Write another path.")
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"{place} cannot be written (rights, or a read-only mount). Write another path.")
    if highest_version(folder):
        try:
            Lock.take(folder).release()
        except OSError as error:
            raise StoreError(
                f"a store cannot be written in {folder}: {error}. Write another path."
            ) from error


def _refuse_others(folder: Path) -> None:
    other = [name for name in os.listdir(folder) if not name.startswith(TEMPORARY) and name != lock.NAME]
    if other and not highest_version(folder):
        raise StoreError(
            f"{folder} holds {other[0]!r} and is no store; write the path of a new or empty folder."
        )


def _create(held: Lock, folder: Path, provenance: Provenance, dtype: Dtype) -> Opened:
    manifest = Manifest(store=uuid.uuid4().hex, dtype=dtype, provenance=provenance)
    data = readable(manifest, folder)
    try:
        sync_folder(folder.parent)  # a run that ended right after making the folder may not have
        create_exclusive(folder, manifest.name, data)
    except FileExistsError as error:
        raise other_writer(folder) from error
    except OSError as error:
        raise StoreError(f"a store cannot be made in {folder}: {error}. Write another path.") from error
    if highest_version(folder) > manifest.version:  # one that was faster has removed this version
        (folder / manifest.name).unlink(missing_ok=True)
        raise other_writer(folder)
    return Opened(held, manifest, provenance, data, {})


def _resume(held: Lock, folder: Path, provenance: Provenance, dtype: Dtype | None, refresh: bool) -> Opened:
    manifest, data = latest_manifest(folder)
    changes = manifest.provenance.changes(provenance, refresh)
    if dtype not in (manifest.dtype, None):
        changes.append(f"dtype: {manifest.dtype!r} in the store, {dtype!r} now")
    if changes and manifest.shards:  # a store without rows is of no kind yet
        raise StoreIdentityError(
            f"{folder} was made another way, and rows of two kinds do not mix:\n  "
            + "\n  ".join(line[:300] for line in changes[:20])
            + f"\nAsk for what the store has, or write into a new folder, for example {folder}-2."
        )
    sweep_at_open(folder, manifest)  # before the long part, so that what it keeps is what stands
    files = StoreFiles(folder, manifest.version)
    rows = {level: read_rows(files, manifest, level, verify=True) for level in manifest.shape}
    new = manifest.model_copy(update={"provenance": provenance, "dtype": dtype or manifest.dtype})
    return Opened(held, new, manifest.provenance, data, rows)
