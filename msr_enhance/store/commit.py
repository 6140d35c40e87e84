"""Committing: a new version of a store, which counts as a whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from msr_enhance.atomic import create_exclusive
from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import MANIFEST_BYTES, Manifest
from msr_enhance.store.sweep import forget_versions, names_of, retire, sweep
from msr_enhance.store.versions import manifest_versions


def commit(folder: Path, old: Manifest, new: Manifest) -> str:
    """Make a version durable; every file that it names must be there already.

    Args:
        folder: The store's folder.
        old: The version before.
        new: The version.

    Returns:
        The digest of the new manifest.

    Raises:
        StoreError: If another writer came first, or there are too many shards; nothing was added.
        OSError: If the disk refuses; nothing was added.
    """
    data = readable(new, folder)
    before, now = (*old.shards, *old.index.values()), (*new.shards, *new.index.values())
    known, stays = set(map(id, before)), set(map(id, now))
    for part in now:
        if id(part) not in known:
            for file in part.files():  # somebody may have taken it for the rest of an ended run
                StoreFiles(folder, new.version).present(file)
    try:
        create_exclusive(folder, new.name, data)
    except FileExistsError as error:
        raise other_writer(folder) from error
    except OSError as error:
        if (folder / new.name).exists():
            raise StoreIOError(
                f"the disk of {folder} refused ({error}) when version {new.version} was there already: it "
                "may count or not. Open the store again, and look."
            ) from error
        raise
    digest = hashlib.sha256(data).hexdigest()
    versions = manifest_versions(folder)
    # A faster writer may have made and removed this version already, and then a higher one stands.
    if max(versions, default=0) > new.version and not _continued(folder, new.version + 1, digest):
        (folder / new.name).unlink(missing_ok=True)
        raise other_writer(folder)
    # From here on the rows count, and whatever fails is made good by the next run.
    forget_versions(folder, versions, new.version)
    if replaced := {file.name for part in before if id(part) not in stays for file in part.files()}:
        keep = names_of(new)
        retire(folder, replaced - keep)
        with contextlib.suppress(OSError):
            sweep(folder, keep | names_of(old), (folder / new.name).stat().st_mtime)
    return digest


def numbered(new: Manifest, version: int, parent: str | None) -> Manifest:
    """A manifest as some version; what is said of levels that have no rows any more is left out."""
    held = {entry.level for entry in new.shards if isinstance(entry, Shard)}
    return new.model_copy(
        update={
            "shards": tuple(entry for entry in new.shards if entry.level in held),
            "version": version,
            "parent": parent,
            "shape": {level: shape for level, shape in new.shape.items() if level in held},
            "id_type": {level: kind for level, kind in new.id_type.items() if level in held},
            "index": {level: index for level, index in new.index.items() if level in held},
            "maps": tuple(made for made in new.maps if made.level in held),
            "keyed": {level: keyed for level, keyed in new.keyed.items() if level in held},
        }
    )


def readable(new: Manifest, folder: Path) -> bytes:
    """The bytes of a manifest, once it is sure that a reader takes them.

    Raises:
        StoreError: If it is too large, or its identity or facts are such as no reader takes.
    """
    data = new.to_bytes()
    if len(data) > MANIFEST_BYTES:
        raise StoreError(
            f"the manifest of {folder} would be {len(data):,} bytes with {len(new.shards):,} shards; "
            f"{MANIFEST_BYTES:,} are allowed. Append more rows at once, or write a smaller identity or facts."
        )
    try:
        Manifest.from_bytes(data, new.name)
    except StoreError as error:
        raise StoreError(
            f"nobody could read the next version of {folder} ({error.__cause__ or error}); its identity or "
            "facts are too deep or hold too many values. Nothing was written."
        ) from error
    return data


@contextlib.contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Name what could not be written when the disk refuses."""
    try:
        yield
    except OSError as error:
        raise StoreIOError(
            f"{what} could not be written to {folder}: {error}. Rows committed before are safe; "
            "make room and run the same command again."
        ) from error


def other_writer(folder: Path) -> StoreError:
    """The error for the slower of two writers."""
    return StoreError(
        f"another writer is adding to {folder}; nothing of this batch was added. "
        "Let the other end, then run the same command again."
    )


def _continued(folder: Path, version: int, parent: str) -> bool:
    """Whether a version was written on top of the one with this digest."""
    path = folder / f"manifest-{version}.json"
    try:
        return Manifest.from_bytes(path.read_bytes(), str(path)).parent == parent
    except (OSError, StoreCorruptError):
        return False
