"""Prompt: the text a language model reads, and the facts it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class Prompt(str):
    """A string that remembers which facts it shows.

    A store keeps the facts beside the answer, so that a comparison can measure
    what a prompt gave away without reading its text again.

    Attributes:
        facts: JSON-able facts. A user's: ``shown`` and ``total`` (scenario → events), ``categories``
            (category → shown events) and ``by_scenario`` (scenario → category → shown events); where it
            was shortened to fit a context window, ``dropped`` (scenario → events left out).
            A scenario's: ``scenario`` and ``scenarios``, the counts of every scenario.
    """

    facts: dict[str, Any]

    def __new__(cls, text: str, facts: Mapping[str, Any] | None = None) -> Self:
        """Make a prompt.

        Args:
            text: What the model reads.
            facts: What the text was made of.
        """
        prompt = super().__new__(cls, text)
        prompt.facts = dict(facts or {})
        return prompt
