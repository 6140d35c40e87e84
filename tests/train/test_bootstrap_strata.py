from __future__ import annotations

import numpy as np
import pytest

from msr_enhance.train.metrics import auc, bootstrap_difference


def test_the_stratified_error_is_that_of_the_mean_over_scenarios() -> None:
    """Against a slow bootstrap that builds every resampled data set."""
    draw = np.random.default_rng(0)
    users = draw.integers(60, size=600)
    scenario = draw.integers(2, size=600)
    labels = draw.integers(2, size=600)
    one = labels * 0.8 + draw.normal(size=600)
    two = labels * 0.3 + draw.normal(size=600)
    rows_of = [np.flatnonzero(users == user) for user in range(60)]
    again = np.random.default_rng(1)
    gaps = []
    for _ in range(400):
        rows = np.concatenate([rows_of[user] for user in again.integers(60, size=60)])
        by_scenario = [rows[scenario[rows] == place] for place in (0, 1)]
        gaps.append(
            np.mean([auc(labels[part], one[part]) - auc(labels[part], two[part]) for part in by_scenario])
        )
    ours = bootstrap_difference(labels, one, two, users, seed=2, n=400, strata=scenario)
    assert ours == pytest.approx(np.std(gaps, ddof=1), rel=0.2)
