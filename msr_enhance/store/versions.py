"""Versions: the manifests in a store's folder."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from msr_enhance.atomic import read_small
from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.manifest import MANIFEST_BYTES, Manifest

_NAME = re.compile(r"manifest-([1-9][0-9]{0,17})\.json")


def latest_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """The highest version in a folder; a damaged one is an error, never skipped.

    Args:
        folder: The store's folder.

    Returns:
        The manifest and its bytes.

    Raises:
        StoreError: If there is no store.
        StoreCorruptError: If the manifest is damaged.
        StoreIOError: If the disk refuses.
    """
    for _ in range(100):  # a writer may remove the version we saw before we open it
        version = highest_version(folder)
        if not version:
            what = "has no manifest-<n>.json" if folder.is_dir() else "is not a folder"
            raise StoreError(
                f"{folder} {what}; a store is a folder with manifest-<n>.json and the vec-*.safetensors that "
                f"it names. Write: msr-enhance extract --data LOG --model MODEL --out {folder}"
            )
        with contextlib.suppress(FileNotFoundError):
            return read_manifest(folder, version)
    raise StoreError(f"{folder} changes faster than it can be read; try again.")


def read_manifest(folder: Path, version: int) -> tuple[Manifest, bytes]:
    """One version of a folder; see ``latest_manifest``.

    Raises:
        FileNotFoundError: If it is not there.
    """
    path = folder / f"manifest-{version}.json"
    try:
        data = read_small(path, MANIFEST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreIOError(f"{path} could not be read: {error}. Look at the disk, then try again.") from error
    help_ = f"Fetch the store again, or write: msr-enhance store repair {folder}"
    if len(data) > MANIFEST_BYTES:
        raise StoreCorruptError(f"{path} is larger than {MANIFEST_BYTES >> 20} MiB; no manifest is. {help_}")
    manifest = Manifest.from_bytes(data, str(path))
    if manifest.version != version:
        raise StoreCorruptError(f"{path} says it is version {manifest.version}; a file was renamed. {help_}")
    return manifest, data


def highest_version(folder: Path) -> int:
    """The highest manifest version in a folder, 0 where there is none."""
    return max(manifest_versions(folder), default=0)


def manifest_versions(folder: Path) -> list[int]:
    """All manifest versions in a folder, in no order."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no path holds a NUL
        return []
    except OSError as error:
        raise StoreIOError(
            f"{folder} could not be read: {error}. Look at the disk, then try again."
        ) from error
    return [
        int(match[1]) for name in names if name.startswith("manifest-") and (match := _NAME.fullmatch(name))
    ]
