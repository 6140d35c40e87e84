"""The place of each row inside its group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def ranks(groups: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the rows of each group in the order they come.

    Args:
        groups: The group of each row ``[rows]``.

    Returns:
        For each row, how many rows of its group come before it, and how many its group has, ``[rows]`` each.
    """
    rows = len(groups)
    by_group = np.argsort(groups, kind="stable")
    ordered = groups[by_group]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    sizes = np.diff(starts, append=rows)
    rank, size = np.empty((2, rows), np.int64)
    rank[by_group] = np.arange(rows) - np.repeat(starts, sizes)
    size[by_group] = np.repeat(sizes, sizes)
    return rank, size
