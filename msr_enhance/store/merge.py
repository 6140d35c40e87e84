"""Merging: the stores of several workers become one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msr_enhance.errors import StoreError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import highest_version, latest_manifest
from msr_enhance.store.writer import StoreWriter


def merge(sources: Sequence[str | Path], out: str | Path) -> KnowledgeStore:
    """Join stores of one extraction that differ in their users.

    The rows appear in one commit: a call that is interrupted leaves `out` as it was, and may be made
    again. Files are hard links where the file system allows them, else copies.

    Args:
        sources: Folders of the stores, made the same way, no id in two of them.
        out: Folder of the joined store: a new one, or a store made the same way, which gets what it
            lacks.

    Returns:
        The joined store.

    Raises:
        StoreIdentityError: If the stores were made in different ways; lists them field by field.
        StoreError: If an id is in two of them, or a folder cannot be used.
        StoreCorruptError: If a store is damaged.
    """
    return KnowledgeStore.load(join(sources, out).path, verify=False)


def join(sources: Sequence[str | Path], out: str | Path) -> StoreWriter:
    """Merge without loading a vector; see ``merge``."""
    if not sources:
        raise StoreError("no store was given to merge; write one folder or more.")
    folder = Path(out)
    made = latest_manifest(folder)[0] if highest_version(folder) else None
    if made is None or not made.shards:
        made = latest_manifest(Path(sources[0]))[0]
    writer = StoreWriter.open(folder, made.provenance, made.dtype)
    writer.adopt(sources)
    return writer
