"""A text-free source of vectors: what a perfect summary of the prompt would know. A control, no LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msr_enhance.errors import ModelError
from msr_enhance.llm.protocol import Answer

NAME = "category-frequency"


class CategoryFrequency:
    """Shares of the item categories and scenarios among the positives that a user's prompt shows.

    The vector is `[categories + scenarios + 1]`: share of each category, share of each scenario, and the
    log of the number of positives. It reads the facts a prompt was written from, not its text.
    Scenario prompts get a one-hot vector of their scenario.

    Args:
        categories: Every category of the log, in a fixed order.
        scenarios: Every scenario of the log, in a fixed order.
    """

    def __init__(self, categories: Sequence[str], scenarios: Sequence[str]) -> None:
        if not categories:
            raise ModelError(
                "category-frequency needs a category column, and this log has none; "
                "write --column category=NAME."
            )
        self._categories = {name: place for place, name in enumerate(categories)}
        self._scenarios = {name: len(categories) + place for place, name in enumerate(scenarios)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector."""
        return (len(self._categories) + len(self._scenarios) + 1,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What changes a vector."""
        return {
            "reader": NAME,
            "model": NAME,
            "categories": list(self._categories),
            "scenarios": list(self._scenarios),
        }

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Count; a prompt must carry its facts (`Prompt`)."""
        return [self._count(getattr(prompt, "facts", None)) for prompt in prompts]

    def _count(self, facts: Mapping[str, Any] | None) -> Answer:
        if facts is None:
            raise ModelError("category-frequency reads the facts of a Prompt; got plain text.")
        vector = np.zeros(self.shape, np.float32)
        if "scenario" in facts:
            vector[self._scenarios[facts["scenario"]]] = 1.0
            return Answer("", vector, reason="no text")
        shown = sum(facts["shown"].values())
        for name, count in facts["categories"].items():
            vector[self._categories[name]] = count / shown
        for name, count in facts["shown"].items():
            vector[self._scenarios[name]] = count / shown
        vector[-1] = np.log1p(shown)
        return Answer("", vector, reason="no text")
