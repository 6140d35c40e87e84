"""Source: what a report is made of, a store alone or the folder of a run that names one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import highest_version
from msr_enhance.train.run import NAME, Run


class Source(NamedTuple):
    """What a report is made of.

    Attributes:
        name: Name of the folder that was given.
        store: The store; None where the run's store is not there any more.
        run: What the run measured; None for a store alone.
        missing: What is not as it was, in sentences.
    """

    name: str
    store: KnowledgeStore | None
    run: Run | None
    missing: list[str]


def open_source(path: str | Path) -> Source:
    """Open the folder of a store or of a run.

    Args:
        path: The folder.

    Returns:
        The store and, of a run, what it measured.

    Raises:
        DataError: If a run's file is not what a run writes.
        StoreError: If there is no store in a folder without a run, or the store is damaged.
    """
    folder = Path(path)
    name = os.fsencode(folder.resolve().name).decode(errors="replace")  # the same in every locale
    if not (folder / NAME).is_file():
        return Source(name, KnowledgeStore.load(folder), None, [])
    run = Run.load(folder)
    place = run.store_path(folder)
    if not place.is_dir() or not highest_version(place):
        return Source(
            name, None, run, ["The run's store is not where the run says, so no user is shown here."]
        )
    store, missing = KnowledgeStore.load(place), list[str]()
    if store.fingerprint != run.store_fingerprint:
        missing.append(
            f"The store has changed since the run: {store.fingerprint[:12]} now, "
            f"{run.store_fingerprint[:12]} then. Users and scenarios are those of now."
        )
    return Source(name, store, run, missing)
