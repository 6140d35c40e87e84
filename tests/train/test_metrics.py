"""Metrics against scikit-learn, slow pair counts and hand-made cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from msr_enhance.errors import DataError, TrainingError
from msr_enhance.train.metrics import (
    Difference,
    ScenarioScore,
    auc,
    bootstrap_difference,
    log_loss,
    mean_auc,
    paired_difference,
    scenario_scores,
)

pairs = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs)
def test_auc_counts_pairs_and_halves_ties(rows: list[tuple[bool, int]]) -> None:
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    value = auc([label for label, _ in rows], [score for _, score in rows])
    if not positives or not negatives:
        assert math.isnan(value)
    else:
        wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
        assert value == pytest.approx(wins / (len(positives) * len(negatives)))


@pytest.mark.parametrize("decimals", [1, 8])
def test_auc_and_log_loss_equal_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    labels = rng.integers(2, size=500)
    logits = (rng.normal(size=500) + labels).round(decimals)
    assert auc(labels, logits) == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    expected = sklearn_log_loss(labels, 1 / (1 + np.exp(-logits)))
    assert log_loss(labels, logits) == pytest.approx(expected, abs=1e-12)


def test_auc_reads_float32_and_infinite_scores() -> None:
    assert auc(np.array([0, 1], np.float32), np.array([-np.inf, np.inf], np.float32)) == 1.0


def test_log_loss_is_exact_where_a_probability_would_round() -> None:
    assert log_loss([1, 0], [1000.0, 1000.0]) == 500.0
    assert log_loss([1], [50.0]) == pytest.approx(math.exp(-50.0), rel=1e-12)
    assert math.isnan(log_loss([], []))


@pytest.mark.parametrize("metric", [auc, log_loss])
@pytest.mark.parametrize(
    ("labels", "scores", "error", "message"),
    [
        ([0, 2], [0.0, 1.0], DataError, "label of row 1 is 2.0; allowed 0 and 1"),
        ([math.nan, 1], [0.0, 1.0], DataError, "label of row 0 is nan"),
        ([0, 1], [0.0], DataError, r"shape \(2,\) and scores \(1,\)"),
        ([0, 1, 1], [0.0, math.nan, math.nan], TrainingError, "score of row 1 is nan, as 2 of 3"),
    ],
)
def test_bad_rows_are_refused(
    metric: Any, labels: list[float], scores: list[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        metric(labels, scores)


def test_each_scenario_is_scored_on_its_own_rows() -> None:
    labels = [0, 1, 0, 1, 1, 1]
    logits = [0.1, 0.2, 3.0, -3.0, 1.0, 2.0]
    scores = scenario_scores(labels, logits, [0, 0, 2, 2, 1, 1], ["home", "search", "video", "new"])
    assert list(scores) == ["home", "search", "video", "new"]
    assert scores["home"] == ScenarioScore(1.0, log_loss([0, 1], [0.1, 0.2]), rows=2, positives=1)
    assert scores["video"] == ScenarioScore(0.0, log_loss([0, 1], [3.0, -3.0]), rows=2, positives=1)
    assert scores["search"].auc is None
    assert scores["search"].reason == "all 2 labels are 1"
    assert scores["search"].log_loss == pytest.approx(log_loss([1, 1], [1.0, 2.0]))
    assert (scores["new"].auc, scores["new"].rows, scores["new"].reason) == (None, 0, "no rows")
    assert mean_auc(scores) == 0.5


@pytest.mark.parametrize(
    ("index", "message"), [([0, 1], r"row 1 is in scenario 1; allowed 0 to 0"), ([0], r"shape \(1,\)")]
)
def test_an_index_without_a_name_is_refused(index: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scenario_scores([0, 1], [0.0, 1.0], index, ["home"])


def test_mean_auc_says_why_there_is_none() -> None:
    scores = scenario_scores([0, 0], [0.0, 1.0], [0, 0], ["home", "new"])
    with pytest.raises(TrainingError, match="home: all 2 labels are 0; new: no rows"):
        mean_auc(scores)


def test_paired_difference_over_seeds() -> None:
    assert paired_difference([0.5], [0.25]) == Difference(0.25, None, 1)
    result = paired_difference([1.0, 2.0, 6.0], [0.0, 0.0, 3.0])
    assert (result.mean, result.n) == (2.0, 3)
    assert result.error == pytest.approx(1 / math.sqrt(3))
    for a, b in [([], []), ([0.5], [0.5, 0.6])]:
        with pytest.raises(DataError, match="one pair a seed"):
            paired_difference(a, b)


def clustered(users: int, seed: int) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(users), rng.integers(1, 6, size=users))
    labels = (rng.normal(size=users)[group] + rng.normal(size=len(group)) > 0).astype(int)
    a, b = labels + rng.normal(size=(2, len(group))) * [[1.0], [2.0]]
    return labels, a.round(1), b.round(1), group


def test_bootstrap_equals_drawing_the_rows_of_whole_users() -> None:
    labels, a, b, group = clustered(users=30, seed=3)
    draws = []
    rng = np.random.default_rng(7)
    for _ in range(50):
        chosen = rng.integers(30, size=30)
        rows = np.concatenate([np.flatnonzero(group == user) for user in chosen])
        draws.append(roc_auc_score(labels[rows], a[rows]) - roc_auc_score(labels[rows], b[rows]))
    names = np.array([f"u{user:02d}" for user in group])
    assert bootstrap_difference(labels, a, b, names, seed=7, n=50) == pytest.approx(np.std(draws, ddof=1))


def test_bootstrap_is_the_spread_over_new_users() -> None:
    worlds = [clustered(users=150, seed=seed) for seed in range(200)]
    truth = np.std([auc(labels, a) - auc(labels, b) for labels, a, b, _ in worlds], ddof=1)
    guesses = [bootstrap_difference(*world, seed=0, n=100) for world in worlds[:20]]
    assert np.mean(guesses) == pytest.approx(truth, rel=0.2)


def test_bootstrap_of_equal_models_is_zero_and_of_one_class_undefined() -> None:
    labels, a, _, group = clustered(users=20, seed=0)
    assert bootstrap_difference(labels, a, a, group, seed=0) == 0.0
    assert math.isnan(bootstrap_difference(np.ones(4), a[:4], a[:4], group[:4], seed=0))


def test_bootstrap_refuses_groups_of_another_length() -> None:
    with pytest.raises(DataError, match="2 labels and 3 groups"):
        bootstrap_difference([0, 1], [0.0, 1.0], [1.0, 0.0], ["a", "b", "c"], seed=0)
