"""The paired t-test, against scipy and against tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from msr_enhance.errors import DataError
from msr_enhance.train.student import paired_test, t_survival


@pytest.mark.parametrize("freedom", [0.3, 1, 2, 3, 4, 9, 29, 30.5, 200, 10_000])
def test_the_tail_is_scipys(freedom):
    for t in (0.0, 1e-9, 0.01, 0.5, 1.0, 1.5, 2.0, 3.3, 12.7, 40.0, 1e3, 1e8):
        for signed in (t, -t):
            wanted = stats.t.sf(signed, freedom)
            assert t_survival(signed, freedom) == pytest.approx(wanted, rel=1e-8, abs=1e-300), (
                signed,
                wanted,
            )


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042)])
def test_the_tail_is_that_of_the_printed_tables(freedom, t):
    assert 2 * t_survival(t, freedom) == pytest.approx(0.05, abs=5e-5)


def test_the_ends():
    assert t_survival(math.inf, 3) == 0
    assert t_survival(-math.inf, 3) == 1
    for t, freedom in ((math.nan, 3), (1.0, 0), (1.0, -1), (1.0, math.nan), (1.0, math.inf)):
        with pytest.raises(DataError, match="degrees of freedom; allowed"):
            t_survival(t, freedom)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_test_is_scipys(seeds):
    draw = np.random.default_rng(seeds)
    for shift in (0.0, 0.01, 1.0):
        a, b = draw.normal(size=seeds) + shift, draw.normal(size=seeds)
        found, wanted = paired_test(a.tolist(), b.tolist()), stats.ttest_rel(a, b)
        assert found.mean == pytest.approx((a - b).mean())
        assert found.error == pytest.approx(stats.sem(a - b))
        assert found.t == pytest.approx(wanted.statistic)
        assert found.p == pytest.approx(wanted.pvalue)
        other = paired_test(b.tolist(), a.tolist())
        assert (other.t, other.p) == (pytest.approx(-found.t), pytest.approx(found.p))


def test_without_spread_there_is_no_test():
    assert (paired_test([0.7], [0.6]).t, paired_test([0.7], [0.6]).p) == (None, None)
    steady = paired_test([0.7, 0.8], [0.6, 0.7])
    assert (steady.t, steady.p) == (None, None)
    assert steady.mean == pytest.approx(0.1)
    with pytest.raises(DataError, match="one pair a seed"):
        paired_test([0.7, 0.8], [0.6])
