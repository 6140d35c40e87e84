"""Markdown of a card on the Hub: foreign facts as a table in which they are text and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONGEST = 200


def facts_table(facts: Mapping[str, Any]) -> str:
    """Facts as a table of two columns; inner mappings are `outer.inner`, and what is empty is left out."""
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {as_code(name)} | {as_code(value)} |" for name, value in _flat(facts))]
    )


def as_code(said: str) -> str:
    """Foreign text as text, in a code span: no markup, no links, no control characters, one line."""
    line = "".join(char if char.isprintable() and char != "`" else " " for char in said).strip()
    return f"`{line}`".replace("|", "\\|") if line else ""


def _flat(value: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            found += _flat(inner, f"{before}{name}.")
        elif inner not in ([], {}):
            said = str(inner)
            if len(said) > _LONGEST:
                said = f"{said[:_LONGEST]}… ({len(said):,} letters)"
            found.append((f"{before}{name}", said))
    return found
