"""Erasing: what a store's newest version does not need is removed at once, not after the usual time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msr_enhance.atomic import sync_folder
from msr_enhance.errors import StoreError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.hold import Held, left_over
from msr_enhance.store.commit import numbered
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.sweep import names_of
from msr_enhance.store.versions import manifest_versions, read_manifest


def older(held: Held) -> list[Version]:
    """Versions below the newest that are still there and can be read."""
    found = list[Version]()
    for version in manifest_versions(held.folder):
        if version < held.manifest.version:
            try:
                manifest, _ = read_manifest(held.folder, version)
                found.append(Version(StoreFiles(held.folder, held.manifest.version), manifest))
            except (StoreError, FileNotFoundError):
                continue  # what only it names is a file that no version names
    return found


def erase(held: Held, before: Iterable[Version], new: Manifest) -> tuple[Manifest, int]:
    """Remove all files of a store that its newest version does not need.

    The version is committed once more where the one before it is another: one damaged manifest then costs
    nothing, as the one below names the same files and nothing that was removed.

    Vectors go last but for the manifests: as long as a row is there, its file says which it is, and so
    a call that was killed finds it when it is made again.

    Args:
        held: The store.
        before: Its older versions.
        new: The version that stands.

    Returns:
        The version that stands then, and how many files were removed.

    Raises:
        StoreError: If another writer came first all the same.
        OSError: If the disk refuses.
    """
    folder, named = held.folder, names_of(held.manifest).union(*(names_of(each.manifest) for each in before))
    same = {
        each.manifest.version for each in before if numbered(each.manifest, new.version, new.parent) == new
    }
    numbers = {version for version in manifest_versions(folder) if version < new.version}
    if numbers and numbers != same & {new.version - 1}:
        new = Held.of(folder, new).commit(new)
    keep = {new.version, new.version - 1}
    files = left_over(folder, new)
    files.sort(key=lambda name: (name in named, name.startswith("vec-"), name))
    gone = [f"manifest-{version}.json" for version in manifest_versions(folder) if version not in keep]
    return new, remove(folder, [*files, *gone])


def remove(folder: Path, names: Iterable[str]) -> int:
    """Remove files, or empty folders, from a store's folder.

    Args:
        folder: The folder.
        names: Their names, in the order to go.

    Returns:
        How many files.

    Raises:
        OSError: If the disk refuses.
    """
    count = 0
    for path in (folder / name for name in names):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
            count += 1
    sync_folder(folder)
    return count
