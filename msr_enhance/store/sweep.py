"""Sweeping: files that no version of a store needs are removed, once nobody can be about to use them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Final

from msr_enhance.atomic import TEMPORARY, folder_time
from msr_enhance.errors import StoreError
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.versions import manifest_versions

GRACE: Final = 600.0
"""Seconds for which a file stays that no version needs: somebody may just write it, or read it still."""

OURS = re.compile(rf"(?:vec|txt|del|idx|map)-[0-9a-f]{{32}}\.safetensors|{re.escape(TEMPORARY)}.*")


LISTINGS: Final = ("users.jsonl", "scenarios.jsonl")
"""Files of a shared copy that list its rows for a viewer."""


def names_of(manifest: Manifest) -> set[str]:
    """Names of all files of a version."""
    return {file.name for file in manifest.files()}


def retire(folder: Path, names: Iterable[str]) -> None:
    """Start the time of files that were replaced just now, for readers of an older version."""
    for name in names:
        with contextlib.suppress(OSError):
            os.utime(folder / name)


def sweep(folder: Path, keep: Set[str], now: float) -> None:
    """Remove files of our kind whose time is over.

    Args:
        folder: The store's folder.
        keep: Names of files that a version needs.
        now: The time by the clock that dates the folder's files.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if entry.name in keep or not OURS.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                # Looked at right before: another writer may have put the file there again. A hard link
                # keeps the time of writing, and only its time of change says when it was made.
                seen = os.stat(entry.path, follow_symlinks=False)
                if stat.S_ISREG(seen.st_mode) and now - max(seen.st_mtime, seen.st_ctime) > GRACE:
                    os.unlink(entry.path)


def sweep_at_open(folder: Path, manifest: Manifest) -> None:
    """Remove what ended runs left behind; a folder that refuses stays as it is.

    Args:
        folder: The store's folder.
        manifest: Its newest version, read just now.
    """
    before = folder / f"manifest-{manifest.version - 1}.json"
    keep = names_of(manifest)
    try:
        if before.exists():
            keep |= names_of(Manifest.from_bytes(before.read_bytes(), str(before)))
        sweep(folder, keep, folder_time(folder))
    except (OSError, StoreError):
        return
    forget_versions(folder, manifest_versions(folder), manifest.version)


def forget_versions(folder: Path, versions: Iterable[int], newest: int) -> None:
    """Remove manifests but the newest and, for a reader about to open it, the one before.

    Args:
        folder: The store's folder.
        versions: Those that are there.
        newest: The newest.
    """
    for version in versions:
        if version < newest - 1:
            with contextlib.suppress(OSError):  # whatever is left is removed next time
                (folder / f"manifest-{version}.json").unlink()
