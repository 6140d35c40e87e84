"""The work of `store pull`."""

from __future__ import annotations

from pathlib import Path

from msr_enhance.cli.output import emit, say, show
from msr_enhance.store.knowledge import KnowledgeStore


def run(name: str, out: Path, *, revision: str | None, as_json: bool) -> None:
    """Fetch a store and say what it is."""
    store = KnowledgeStore.from_pretrained(name, revision)
    if store.commit:
        say(f"{name} is at commit {store.commit}")
    store.save(out)
    rows = {level: store.count(level) for level in store.levels}
    if as_json:
        found = {"store": str(out.resolve()), "commit": store.commit, "fingerprint": store.fingerprint}
        emit({**found, "rows": rows})
        return
    for level, count in rows.items():
        show(f"{level}: {count:,} rows")
    show(f"store: {out.resolve()}   {store.fingerprint[:12]}")
