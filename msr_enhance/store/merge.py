"""Merging: the stores of several workers become one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msr_enhance.errors import StoreError
from msr_enhance.store.adopt import Version
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.rows import read_rows
from msr_enhance.store.versions import highest_version, latest_manifest
from msr_enhance.store.writer import StoreWriter


def merge(sources: Sequence[str | Path], out: str | Path) -> KnowledgeStore:
    """Join stores of one extraction that differ in their users.

    The rows appear in one commit: a call that is interrupted leaves `out` as it was, and may be made
    again. One that is refused may leave a store without rows, which takes any others. Files are hard
    links where the file system allows them, else copies.

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
    if isinstance(sources, (str, Path)):
        raise StoreError(f"{sources} is one store; write a list of folders.")
    sources = list(sources)  # a generator can be read once only
    if not sources:
        raise StoreError("no store was given to merge; write one folder or more.")
    found = [latest_manifest(Path(source))[0] for source in sources]  # before a folder is made
    folder = Path(out)
    made = latest_manifest(folder)[0] if highest_version(folder) else None
    if made is None or not made.shards:
        made = found[0]
    if made.maps or made.keyed or made.dtype == "int8":
        raise StoreError(
            f"{sources[0]} was made from another store (int8, projected or keyed ids); merge the stores that "
            "were extracted, then make it again."
        )
    writer = StoreWriter.open(folder, made.provenance, made.dtype)
    with writer:
        writer.adopt(sources)
    return writer


def leave_out(source: str | Path, out: str | Path) -> bool:
    """Drop from a store the rows that another one holds too; the other's rows stand.

    For a part that lay waiting while another run read its users into `out`. A store of another model or
    template is left alone.

    Args:
        source: Folder of the store that loses rows.
        out: Folder of the store that has them.

    Returns:
        Whether the source has rows that `out` lacks, or is of another kind.
    """
    mine, theirs = Version.of(source), Version.of(out)
    if theirs.manifest.provenance.changes(mine.manifest.provenance, refresh=True):
        return True
    left = False
    for level in mine.manifest.shape:
        waiting = read_rows(mine.files, mine.manifest, level, verify=False).live
        held = read_rows(theirs.files, theirs.manifest, level, verify=False).live
        both = [name for name in waiting if name in held]
        left = left or len(both) < len(waiting)
        if both:
            with StoreWriter.open(source, mine.manifest.provenance) as writer:
                writer.drop(level, both)
    return left
