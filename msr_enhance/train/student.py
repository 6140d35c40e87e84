"""The paired t-test: how sure a mean difference over seeds is, from the spread over seeds alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msr_enhance.errors import DataError
from msr_enhance.train.metrics import paired_difference

_NO_SPREAD = 1e-12
"""A standard error below this is rounding: an AUC of a million pairs moves in steps of 1e-6."""


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test of ``a - b``, two-sided.

    Attributes:
        mean: Mean of the differences.
        error: Its standard error; None with a single pair.
        t: ``mean / error``; None with a single pair or without any spread.
        p: Chance of a `t` as far from 0 were the true mean 0 and the differences normal; None with `t`.
    """

    mean: float
    error: float | None
    t: float | None
    p: float | None


def paired_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Compare two models over seeds, position i of both made with the same seed.

    Raises:
        DataError: No value, or not as many of each.
    """
    found = paired_difference(a, b)
    if found.error is None or found.error < _NO_SPREAD:
        return PairedTest(found.mean, found.error, None, None)
    t = found.mean / found.error
    return PairedTest(found.mean, found.error, t, min(1.0, 2 * t_survival(abs(t), found.n - 1)))


def t_survival(t: float, freedom: float) -> float:
    """Chance that Student's t with so many degrees of freedom is above `t`.

    It is half the regularised incomplete beta function of `freedom / (freedom + t**2)`.

    Raises:
        DataError: Degrees of freedom that are not above 0, or a `t` that is no number.
    """
    if not 0 < freedom < math.inf or math.isnan(t):
        raise DataError(f"t is {t} with {freedom} degrees of freedom; allowed: a number, and more than 0.")
    tail = 0.5 * _beta(freedom / 2, freedom / (freedom + t * t), t * t / (freedom + t * t))
    return tail if t >= 0 else 1 - tail


def _beta(a: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function `I_x(a, 1/2)`; `rest` is `1 - x`, exact where x is near 1."""
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    b = 0.5
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    # The fraction converges fast on this side of the mean only; the other is one minus the mirror image.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz' method (Numerical Recipes, 6.4)."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
