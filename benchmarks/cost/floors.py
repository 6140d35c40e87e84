"""Floors: the ratio that the floating-point operations of the products alone allow.

Work common to both sides (embeddings, optimizer) is not in them, so that a measured ratio can lie below its
floor; elementwise work and launches are not either, so that it usually lies above. `E`: width of the
embedding, `H`: hidden width, `r1`: rank + 1, `N`: generated numbers of a user, `rho`: rows a distinct user,
`F`: operations a row of the plain backbone, forward. A backward pass takes twice the forward's operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

Way = Literal["mix", "gen", "cached", "none"]


def star_operations(width: int, hidden: Sequence[int], auxiliary: Sequence[int], known: int) -> int:
    """F of a STAR: its own tower, and the auxiliary network, which also reads `known` numbers."""
    towers = [(width, *hidden, 1), (width + known, *auxiliary, 1)]
    return sum(2 * a * b for widths in towers for a, b in pairwise(widths))


def floor(
    way: Way,
    *,
    width: int,
    hidden: int,
    rank: int,
    rho: float,
    operations: int,
    training: bool,
) -> float:
    """The floor of a ratio.

    Args:
        way: ``mix`` mixes outputs row by row, ``gen`` makes the weights of every distinct user, ``cached``
            has them already, ``none`` has no user layers.
        width: E.
        hidden: H, of the user's and of the scenario's layers.
        rank: r; the width of whole vectors for the full network.
        rho: Rows a distinct user in a batch.
        operations: F.
        training: Whether there is a backward pass, whose weights are made in two products, not three.
    """
    scenario = (2 * width * hidden + 2 * hidden) / operations
    numbers = 2 * width * hidden + hidden + width
    apply, made = 4 * width * hidden, 2 * (rank + 1) * numbers / rho
    user = {
        "mix": (rank + 1) * apply,
        "gen": apply + made * (2 / 3 if training else 1),
        "cached": apply,
        "none": 0,
    }[way]
    return 1 + scenario + user / operations
