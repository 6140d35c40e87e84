"""The work of `store merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msr_enhance.cli.output import emit, show
from msr_enhance.store.merge import join


def run(sources: Sequence[Path], out: Path, *, as_json: bool) -> None:
    """Join stores and say what the joined one holds."""
    joined = join(sources, out)
    rows = joined.statuses()
    if as_json:
        emit(
            {
                "store": str(joined.path.resolve()),
                "fingerprint": joined.fingerprint,
                "sources": len(sources),
                "rows": rows,
            }
        )
        return
    for level, statuses in rows.items():
        said = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
        show(f"{level}: {sum(statuses.values()):,} rows ({said})")
    show(f"store: {joined.path.resolve()}   {joined.fingerprint[:12]}")
