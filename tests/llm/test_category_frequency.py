"""The text-free control counts what a prompt shows."""

from __future__ import annotations

import numpy as np
import pytest

from msr_enhance.errors import ModelError
from msr_enhance.llm.category_frequency import CategoryFrequency
from msr_enhance.prompts.prompt import Prompt


def test_category_frequency_counts_the_facts() -> None:
    control = CategoryFrequency(["music", "travel"], ["news", "shop"])
    user = Prompt("text", {"shown": {"news": 1, "shop": 3}, "categories": {"music": 4}})
    scenario = Prompt("text", {"scenario": "shop"})
    vectors = [answer.vector for answer in control.answer([user, scenario])]
    np.testing.assert_allclose(vectors[0], [1, 0, 0.25, 0.75, np.log(5)], rtol=1e-6)
    np.testing.assert_allclose(vectors[1], [0, 0, 0, 1, 0])
    with pytest.raises(ModelError, match="category column"):
        CategoryFrequency([], ["shop"])
    with pytest.raises(ModelError, match="got plain text"):
        control.answer(["text"])
