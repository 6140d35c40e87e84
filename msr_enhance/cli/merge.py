"""The work of `store merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msr_enhance.cli.output import emit, say, show
from msr_enhance.scale.part import Part
from msr_enhance.store.merge import join


def run(sources: Sequence[Path], out: Path, *, as_json: bool) -> None:
    """Join stores and say what the joined one holds."""
    joined = join(sources, out)
    _warn_of_gaps(sources)
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


def _warn_of_gaps(sources: Sequence[Path]) -> None:
    """A forgotten or unfinished part would go unnoticed: the joined store just holds fewer users."""
    named = {path.resolve(): part for path in sources if (part := Part.named(path.resolve().name))}
    for count in {part.count for part in named.values()}:
        given = {part.index for part in named.values() if part.count == count}
        if absent := [other.name for other in Part.all(count) if other.index not in given]:
            say(f"warning: {len(absent)} of {count} parts were not given: {', '.join(absent[:5])}")
    for path, part in named.items():
        if not (path.parent / f"{part.name}.json").is_file():
            say(f"warning: {part.name} is not marked as finished; some of its users may be missing")
