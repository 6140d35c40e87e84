"""What became of the rows of a store: how many of each status, and why some failed."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.record import Level, Status

_NUMBER = re.compile(r"\d[\d,.]*")


class LevelSummary(NamedTuple):
    """A level in numbers.

    Attributes:
        statuses: Rows of each status that occurs, most frequent first.
        reasons: Why rows failed, most frequent first; numbers in a reason are written as ``N``, so that
            rows that failed alike count together. Empty for a store that was saved without texts.
        looked_at: Failed rows that were read for `reasons`.
    """

    statuses: dict[Status, int]
    reasons: dict[str, int]
    looked_at: int


def summarize(store: KnowledgeStore, look_at: int = 1_000) -> dict[Level, LevelSummary]:
    """Count the rows of a store.

    Args:
        store: The store.
        look_at: Failed rows of a level whose reason is read; only their texts are.

    Returns:
        A summary of each level that has rows.
    """
    return {level: _summary(store, level, look_at) for level in store.levels}


def _summary(store: KnowledgeStore, level: Level, look_at: int) -> LevelSummary:
    ids, statuses = store.ids(level), store.statuses(level)
    failed = [ids[at] for at, status in enumerate(statuses) if status == "failed"]
    reasons: Counter[str] = Counter()
    try:
        for name in failed[:look_at]:
            reason = str(store.record(level, name).facts.get("reason", "no reason was kept"))
            reasons[_NUMBER.sub("N", reason)] += 1
    except StoreCorruptError:
        raise
    except StoreError:  # saved without texts
        reasons.clear()
    return LevelSummary(dict(Counter(statuses).most_common()), dict(reasons.most_common()), reasons.total())
