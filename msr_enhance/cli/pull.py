"""The work of `store pull`."""

from __future__ import annotations

from pathlib import Path

from msr_enhance.cli.output import emit, say, show
from msr_enhance.errors import StoreError
from msr_enhance.store import lock
from msr_enhance.store.hub.remote import open_remote
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.sweep import OURS
from msr_enhance.store.versions import manifest_versions


def run(name: str, out: Path, *, revision: str | None, as_json: bool) -> None:
    """Fetch a store and say what it is."""
    _refuse_used(out)
    files, manifest, data = open_remote(name, revision, None)
    store, snapshot = KnowledgeStore(files, manifest, data, "error", None), files.snapshot
    say(f"{snapshot.repo} is at commit {snapshot.commit}")
    if snapshot.note:
        say(f"warning: {snapshot.note}")
    store.save(out)
    rows = {level: store.count(level) for level in store.levels}
    if as_json:
        found = {"store": str(out.resolve()), "commit": snapshot.commit, "fingerprint": store.fingerprint}
        emit({**found, "rows": rows, "note": snapshot.note})
        return
    for level, count in rows.items():
        show(f"{level}: {count:,} rows")
    show(f"store: {out.resolve()}   {store.fingerprint[:12]}")


def _refuse_used(out: Path) -> None:
    """Refuse what ``save`` would refuse, before the Hub is asked for anything."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; a store is a folder. Write another path: --out NEW_FOLDER")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    made = manifest_versions(out)  # without one it is what a pull that was killed has left
    if other := [name for name in names if made or not (OURS.fullmatch(name) or name == lock.NAME)]:
        raise StoreError(f"{out} holds {other[0]!r}; write the path of a new or empty folder.")
