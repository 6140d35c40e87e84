"""What an extraction says at its end: rows of each status, why some failed, and how fast it was."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msr_enhance.cli.counting import Asked
from msr_enhance.cli.output import emit, say, show
from msr_enhance.errors import StoreError
from msr_enhance.extract.summary import summarize
from msr_enhance.machine import time_text
from msr_enhance.store.entry import Shard, Tombstone
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.record import STATUSES, Level
from msr_enhance.store.shard import read_heads
from msr_enhance.store.versions import highest_version, latest_manifest

_REASONS = 5


class Report:
    """Takes the time from now on, and tells what a run added.

    Args:
        places: The stores that the run goes on with.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._started = time.perf_counter()
        self._before = safe_rows(places)
        self._asked = Asked()
        self._reading = self._started

    def reading(self, asked: Asked) -> None:
        """Log and model are loaded; the time of the users begins.

        Args:
            asked: Counts of the reader.
        """
        self._asked, self._reading = asked, time.perf_counter()

    def joining(self, stores: Sequence[Path], before: Asked) -> None:
        """Parts that workers made are about to be joined.

        Args:
            stores: Their stores.
            before: What these held when the run began.
        """
        held = asked_in(stores)
        self._asked = Asked(held.prompts - before.prompts, held.tokens - before.tokens)

    def show(self, store: KnowledgeStore, as_json: bool) -> None:
        """Print the store and the speed, as sentences or as JSON."""
        data = self._data(store)
        for level, reasons in data["failed"].items():
            failed = data["rows"][level]["failed"]
            say(f"warning: {failed:,} {level} prompts failed and count as zero knowledge:")
            for reason, count in list(reasons.items())[:_REASONS]:
                say(f"  {count:,} x {reason}")
            if len(reasons) > _REASONS:
                say(f"  and {len(reasons) - _REASONS} other reasons")
            say("  --retry-failed reads them again; `msr-enhance show --user ID` shows one")
        if as_json:
            emit(data)
            return
        for level, statuses in data["rows"].items():
            said = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
            width = " x ".join(map(str, data["shape"][level]))
            show(f"{level}: {said}; vectors of {width} numbers")
        show(f"store: {data['store']} ({data['seconds']:.1f} s)")
        say(_speed(data))

    def _data(self, store: KnowledgeStore) -> dict[str, Any]:
        now = time.perf_counter()
        found = summarize(store)
        rows = {level: sum(summary.statuses.values()) for level, summary in found.items()}
        resumed = {level: min(rows[level], self._before.get(level, 0)) for level in found}
        spent, read, tokens = now - self._reading, self._asked.prompts, self._asked.tokens
        return {
            "store": str(store.path.resolve()),
            "rows": {level: dict(summary.statuses) for level, summary in found.items()},
            "failed": {level: summary.reasons for level, summary in found.items() if summary.reasons},
            "dim": {level: store.dim(level) for level in found},
            "shape": {level: list(store.shape(level)) for level in found},
            "fingerprint": store.fingerprint,
            "seconds": round(now - self._started, 2),
            "resumed": resumed,
            "read": read,
            "seconds_per_prompt": round(spent / read, 6) if read else None,
            "tokens_per_second": round(tokens / spent, 1) if tokens else None,
        }


def _speed(data: dict[str, Any]) -> str:
    resumed = sum(data["resumed"].values())
    before = f"; {resumed:,} rows were there before" if resumed else ""
    if not data["read"]:
        return f"read nothing{before}"
    tokens = data["tokens_per_second"]
    rate = f", {tokens:,.0f} tokens/s" if tokens else ""
    return f"read {data['read']:,} prompts, {time_text(data['seconds_per_prompt'])} each{rate}{before}"


def safe_rows(places: Iterable[Path]) -> dict[Level, int]:
    """Rows that are on disk, from the manifests alone.

    Args:
        places: Folders; what is no store holds none.

    Returns:
        Rows of each level that has some, over all places.
    """
    found: Counter[Level] = Counter()
    for place in places:
        try:
            manifest, _ = latest_manifest(place)
        except StoreError:
            continue
        for entry in manifest.shards:
            found[entry.level] += -entry.rows if isinstance(entry, Tombstone) else entry.rows
    return {level: max(0, count) for level, count in found.items()}


def asked_in(places: Iterable[Path]) -> Asked:
    """Prompts and their tokens in stores that are made in parts; their vectors are not read."""
    asked = Asked()
    for place in places:
        if not highest_version(place):
            continue
        manifest, _ = latest_manifest(place)
        files = StoreFiles(place, manifest.version)
        for entry in manifest.shards:
            if isinstance(entry, Shard):
                with files.open(entry.vectors) as opened:
                    layout = manifest.layout(entry.level)
                    heads = read_heads(opened, entry.vectors, entry.rows, layout, entry.heads)
                asked.prompts += int((heads.status != STATUSES.index("empty")).sum())
                asked.tokens += int(heads.tokens.sum())
    return asked
