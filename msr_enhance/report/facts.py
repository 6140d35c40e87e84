"""What the facts of a prompt say of a user, whoever wrote them: counts by scenario and category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

History = list[tuple[str, int, int, list[tuple[str, int]]]]
"""Scenario, events shown, events before the list was cut, and shown events by category, most first."""


class Said(NamedTuple):
    """The facts of one user in short.

    Attributes:
        shown: Events in the prompt.
        total: Events before the lists were cut.
        category: The category with the most events, ``""`` where none is known.
        scenario: The scenario with the most events, ``""`` where there are none.
        reason: Why the row has its status, as the reader said it.
    """

    shown: int
    total: int
    category: str
    scenario: str
    reason: str


def said(facts: Mapping[str, Any]) -> Said:
    """The facts of a user in short; what is not there, or not as a `UserPrompt` writes it, counts nothing.

    Args:
        facts: As they stand in the store.

    Returns:
        The summary; of equal counts the first name by alphabet.
    """
    shown = _counts(facts.get("shown"))
    total = _counts(facts.get("total")) or shown
    reason = facts.get("reason")
    return Said(
        sum(shown.values()),
        sum(total.values()),
        _most(_counts(facts.get("categories"))),
        _most(shown),
        reason if isinstance(reason, str) else "",
    )


def history(facts: Mapping[str, Any]) -> History:
    """What a prompt showed, scenario by scenario, in the order of the facts."""
    shown, total = _counts(facts.get("shown")), _counts(facts.get("total"))
    by = facts.get("by_scenario")
    parts = {str(name): _counts(value) for name, value in by.items()} if isinstance(by, dict) else {}
    names = dict.fromkeys([*shown, *parts])
    return [
        (
            name,
            shown.get(name, sum(parts.get(name, {}).values())),
            total.get(name, shown.get(name, 0)),
            sorted(parts.get(name, {}).items(), key=lambda pair: (-pair[1], pair[0])),
        )
        for name in names
    ]


def _counts(value: Any) -> Counter[str]:
    """Whole numbers by name."""
    found = Counter[str]()
    if isinstance(value, dict):
        for name, count in value.items():
            if isinstance(count, int | float) and not isinstance(count, bool) and 0 < count < 2**53:
                found[str(name)] = int(count)
    return found


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda name: (-counts[name], name), default="")
