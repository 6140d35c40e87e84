"""AUC and log-loss per scenario with counts, and how sure a difference between two models is.

A function returns nan where its value is not defined; a record says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msr_enhance.errors import DataError, TrainingError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True)
class ScenarioScore:
    """How well one scenario is predicted.

    Attributes:
        auc: Area under the ROC curve; None where it is not defined.
        log_loss: Mean log-loss; nan without rows.
        rows: Number of rows.
        positives: Number of rows with label 1.
        reason: Why `auc` is None; empty where it is not.
    """

    auc: float | None
    log_loss: float
    rows: int
    positives: int
    reason: str = ""


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences.

    Attributes:
        mean: Mean of the differences.
        error: Standard error of `mean`; None with a single pair.
        n: Number of pairs.
    """

    mean: float
    error: float | None
    n: int


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Share of (positive, negative) pairs in the right order; a tie counts one half.

    Args:
        labels: 0 or 1, ``[rows]``.
        scores: Any scores, probabilities or logits, ``[rows]``.

    Returns:
        The area under the ROC curve; nan where only one class is there.

    Raises:
        DataError: Lengths differ, or a label is not 0 or 1.
        TrainingError: A score is nan.
    """
    y, s = _checked(labels, scores)
    return _weighted_auc(y, 1 - y, _ranks(s))


def log_loss(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean negative log-likelihood, exact for large logits too.

    Args:
        labels: 0 or 1, ``[rows]``.
        logits: Logits, not probabilities, ``[rows]``.

    Returns:
        The log-loss in nats; nan without rows.

    Raises:
        DataError: Lengths differ, or a label is not 0 or 1.
        TrainingError: A logit is nan.
    """
    y, s = _checked(labels, logits)
    return float(np.logaddexp(0.0, (1 - 2 * y) * s).mean()) if len(y) else math.nan


def scenario_scores(
    labels: ArrayLike, logits: ArrayLike, scenario_index: ArrayLike, names: Sequence[str]
) -> dict[str, ScenarioScore]:
    """Score every scenario on its own rows.

    Args:
        labels: 0 or 1, ``[rows]``.
        logits: Logits, ``[rows]``.
        scenario_index: Position of each row's scenario in `names`, ``[rows]``.
        names: Name of each scenario.

    Returns:
        One score for each name, in the order of `names`, also where a scenario has no rows.

    Raises:
        DataError: Lengths differ, a label is not 0 or 1, or an index has no name.
        TrainingError: A logit is nan.
    """
    y, s = _checked(labels, logits)
    index = np.asarray(scenario_index)
    if index.shape != y.shape:
        raise DataError(f"{len(y)} labels and scenario_index of shape {index.shape}; write one index a row.")
    wrong = np.flatnonzero((index < 0) | (index >= len(names)))
    if len(wrong):
        raise DataError(
            f"row {wrong[0]} is in scenario {index[wrong[0]]}; allowed 0 to {len(names) - 1}. Write one name "
            "for each scenario."
        )
    return {name: _score(y[index == i], s[index == i]) for i, name in enumerate(names)}


def mean_auc(scores: Mapping[str, ScenarioScore]) -> float:
    """Mean AUC over the scenarios where it is defined, each counted once whatever its size.

    Raises:
        TrainingError: It is defined in none.
    """
    defined = [score.auc for score in scores.values() if score.auc is not None]
    if not defined:
        reasons = "; ".join(f"{name}: {score.reason}" for name, score in scores.items()) or "no scenario"
        raise TrainingError(
            f"AUC is defined in no scenario ({reasons}). It needs both labels in at least one: write another "
            "split, or bring more rows."
        )
    return sum(defined) / len(defined)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare two models over seeds, position i of both made with the same seed.

    Args:
        a: One value a seed.
        b: One value a seed, taken from `a`.

    Returns:
        Mean of ``a - b`` and its standard error over seeds.

    Raises:
        DataError: No value, or not as many of each.
    """
    if len(a) != len(b) or len(a) == 0:
        raise DataError(f"{len(a)} values against {len(b)}; write one pair a seed, at least one.")
    difference = np.subtract(a, b)
    n = len(difference)
    error = float(difference.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return Difference(float(difference.mean()), error, n)


def bootstrap_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike,
    seed: int,
    n: int = 200,
    strata: ArrayLike | None = None,
) -> float:
    """Standard error of ``AUC(a) - AUC(b)`` when other users had been drawn.

    Rows of one user are not independent, so whole users are drawn with replacement.

    Args:
        labels: 0 or 1, ``[rows]``.
        scores_a: Scores of one model, ``[rows]``.
        scores_b: Scores of the other on the same rows, ``[rows]``.
        groups: User of each row, ``[rows]``.
        seed: Seed of the draws.
        n: Number of draws.
        strata: Scenario of each row, ``[rows]``: then of the mean over scenarios of ``AUC(a) - AUC(b)``,
            over those where it is defined.

    Returns:
        The standard error; nan where fewer than two draws hold both classes.

    Raises:
        DataError: Lengths differ, or a label is not 0 or 1.
        TrainingError: A score is nan.
    """
    y, a = _checked(labels, scores_a)
    _, b = _checked(labels, scores_b)
    users, user = np.unique(np.asarray(groups), return_inverse=True)
    if user.shape != y.shape:
        raise DataError(f"{len(y)} labels and {user.size} groups; write the user of each row.")
    # A user drawn k times is a weight of k on the user's rows, so scores are ranked once, not once a draw.
    kinds = (
        np.zeros(len(y), np.intp) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    )
    parts = [np.flatnonzero(kinds == kind) for kind in range(int(kinds.max(initial=-1)) + 1)]
    ranks = [(_ranks(a[part]), _ranks(b[part])) for part in parts]
    rng = np.random.default_rng(seed)
    draws = np.empty(n)
    for i in range(n):
        times = np.bincount(rng.integers(len(users), size=len(users)), minlength=len(users))[user]
        positive, negative = times * y, times * (1 - y)
        gaps = [
            _weighted_auc(positive[part], negative[part], rank_a)
            - _weighted_auc(positive[part], negative[part], rank_b)
            for part, (rank_a, rank_b) in zip(parts, ranks, strict=True)
        ]
        defined = [gap for gap in gaps if not math.isnan(gap)]
        draws[i] = sum(defined) / len(defined) if defined else math.nan
    draws = draws[~np.isnan(draws)]
    return float(draws.std(ddof=1)) if len(draws) > 1 else math.nan


def _score(y: Floats, logits: Floats) -> ScenarioScore:
    rows, positives = len(y), int(y.sum())
    reason = ""
    if not rows:
        reason = "no rows"
    elif positives in (0, rows):
        reason = f"all {rows} labels are {int(y[0])}"
    return ScenarioScore(None if reason else auc(y, logits), log_loss(y, logits), rows, positives, reason)


def _ranks(scores: Floats) -> Ints:
    """Dense rank of each score, equal for ties."""
    return np.unique(scores, return_inverse=True)[1]


def _weighted_auc(positive: Floats, negative: Floats, rank: Ints) -> float:
    """AUC where each row counts as often as its weight in its own class, 0 in the other."""
    up, down = np.bincount(rank, positive), np.bincount(rank, negative)
    pairs = up.sum() * down.sum()
    return float(up @ (down.cumsum() - down / 2) / pairs) if pairs else math.nan


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    y, s = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise DataError(f"labels have shape {y.shape} and scores {s.shape}; write [rows] for both.")
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if len(wrong):
        raise DataError(f"label of row {wrong[0]} is {y[wrong[0]]}; allowed 0 and 1.")
    lost = np.flatnonzero(np.isnan(s))
    if len(lost):
        raise TrainingError(
            f"score of row {lost[0]} is nan, as {len(lost)} of {len(s)} are; allowed: numbers. The model has "
            "diverged: write a lower learning rate, or remove nan from its inputs."
        )
    return y, s
