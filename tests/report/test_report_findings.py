"""What is computed for a page: cosines, facts in short, unusual norms, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msr_enhance.report.facts import history, said
from msr_enhance.report.outliers import is_refusal, unusual
from msr_enhance.report.similarity import cosines


def cosine(one, other):
    """Reference, number by number."""
    sizes = [math.sqrt(sum(float(value) ** 2 for value in each)) for each in (one, other)]
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True)) / (sizes[0] * sizes[1])


@pytest.mark.parametrize("centred", [False, True])
def test_cosines(centred):
    vectors = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32) + 2
    rows = vectors.astype(np.float64) - (vectors.astype(np.float64).mean(axis=0) if centred else 0)
    wanted = [[cosine(one, other) for other in rows] for one in rows]
    np.testing.assert_allclose(cosines(vectors, centred=centred), wanted, atol=1e-4)


def test_a_cosine_of_nothing_is_none():
    vectors = np.array([[0, 0], [3, 4]], np.float32)
    assert cosines(vectors) == [[None, None], [None, 1.0]]
    assert cosines(np.full((3, 2), 0.1, np.float32), centred=True) == [[None] * 3] * 3
    assert cosines(np.zeros((0, 2), np.float32)) == []


def test_facts_of_a_user_prompt():
    facts = {
        "shown": {"feed": 2, "shop": 3},
        "total": {"feed": 9, "shop": 3},
        "categories": {"sea": 2, "art": 2, "war": 1},
        "by_scenario": {"feed": {"sea": 2}, "shop": {"war": 1, "art": 2}},
        "reason": "end",
    }
    assert said(facts) == (5, 12, "art", "shop", "end"), "of equal counts the first by alphabet"
    assert history(facts) == [("feed", 2, 9, [("sea", 2)]), ("shop", 3, 3, [("art", 2), ("war", 1)])]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"shown": 5, "categories": ["a"], "by_scenario": {"feed": 3}, "reason": 7},
        {"shown": {"feed": True, "shop": "many"}, "by_scenario": [], "total": None},
        {"shown": {"feed": -3, "shop": 1e300}},
    ],
)
def test_facts_of_another_prompt_count_nothing(facts):
    assert said(facts) == (0, 0, "", "", "")
    assert sum(one[1] for one in history(facts)) == 0


def test_norms_far_from_the_others():
    norms = np.array([10.0, 10.1, 9.9, 10.2, 9.8, 10.0, 30.0, 0.1])
    rows, low, high = unusual(norms)
    assert rows.tolist() == [6, 7], "the farthest first"
    assert 8 < low < 9.8 < 10.2 < high < 12


def test_normed_states_have_no_unusual_norm():
    norms = 11.313 * (1 + np.random.default_rng(0).normal(size=500) * 1e-6)
    assert unusual(norms)[0].tolist() == []
    assert unusual(np.append(norms, 12.0))[0].tolist() == [500]
    assert unusual(np.zeros(0))[0].tolist() == []


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm sorry, but I can't", True),
        ("I’m unable to", True),
        ("  As an AI language model, I", True),
        ("I cannot describe", True),
        ("Sorry, there is", True),
        ("很抱歉，我无法", True),
        ("作为一个AI", True),
        ("This user likes sad songs: 'I can't stop'", False),
        ("I canvas the history: football", False),
        ("As an airline fan, the user", False),
        ("", False),
    ],
)
def test_refusals(answer, refuses):
    assert is_refusal(answer) is refuses
