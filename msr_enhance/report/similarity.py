"""How alike scenarios are to a language model: cosines of their vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Cosines = list[list[float | None]]


def cosines(vectors: npt.NDArray[np.float32], *, centred: bool = False) -> Cosines:
    """Cosine of every two vectors.

    States of a language model share a large common part, so that raw cosines are all near one; without
    their mean they show what differs.

    Args:
        vectors: ``[scenarios, dim]``.
        centred: Take the mean away first.

    Returns:
        A matrix in rows; None where one of the two has no direction.
    """
    values = vectors.astype(np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    if centred and len(values):
        values = values - values.mean(axis=0)
    norms = np.sqrt((values**2).sum(axis=1))
    norms[norms <= largest * 1e-6] = np.nan  # what is left of equal vectors is rounding
    found = np.clip((values / norms[:, None]) @ (values / norms[:, None]).T, -1.0, 1.0)
    return [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in found]
