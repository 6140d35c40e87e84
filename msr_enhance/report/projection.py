"""Projection: vectors of any number and width on a plane, with a few passes and bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.report.rows import Blocks, spread

Floats = npt.NDArray[np.float64]

_SAMPLE = 1_024  # rows whose principal axes are the start; up to so many, the result is exact
_AXES = 16
_PASSES = 3
_ZERO = 1e-10  # of the largest variance: what rounding leaves


class Projection(NamedTuple):
    """Where vectors lie on a plane.

    Attributes:
        points: Coordinates ``[rows, 2]``; the second is 0 where the vectors lie on a line.
        share: Of the variance, what each of the two axes shows; zeros where all vectors are equal.
        norms: Euclidean norms ``[rows]``.
    """

    points: Floats
    share: tuple[float, float]
    norms: Floats


def project(blocks: Blocks, rows: int, width: int) -> Projection:
    """The first two principal components.

    The axes of a sample are the start of a block power iteration over all rows (Halko, Martinsson & Tropp
    2011, SIAM Review 53, algorithm 4.4), so that the vectors are never held together. No random number is
    drawn, and of each axis the largest entry is positive: the same vectors give the same picture.

    Args:
        blocks: Gives the vectors, the same each time, in blocks ``[some, width]``.
        rows: How many there are.
        width: Numbers of a vector.

    Returns:
        The points, in the order of the rows.
    """
    total, norms, sample = np.zeros(width), [np.empty(0)], list[Floats]()
    wanted, seen = spread(rows, _SAMPLE), 0
    for block in blocks():
        values = block.astype(np.float64)
        total += values.sum(axis=0)
        norms.append(np.sqrt((values**2).sum(axis=1)))
        low, high = np.searchsorted(wanted, (seen, seen + len(values)))
        sample.append(values[wanted[low:high] - seen])
        seen += len(values)
    if not rows:
        return Projection(np.zeros((0, 2)), (0.0, 0.0), np.zeros(0))
    mean = total / rows
    basis = _axes(np.concatenate(sample) - mean)
    for _ in range(_PASSES if rows > _SAMPLE and basis.shape[1] else 0):
        grown = np.zeros_like(basis)
        for block in blocks():
            centred = block - mean
            grown += centred.T @ (centred @ basis)
        basis = np.linalg.qr(grown)[0]
    low, variance = [np.empty((0, basis.shape[1]))], 0.0
    for block in blocks():
        centred = block - mean
        low.append(centred @ basis)
        variance += float((centred**2).sum())
    return _plane(np.concatenate(low), basis, variance, np.concatenate(norms))


def _axes(sample: Floats) -> Floats:
    """Principal axes of a few centred vectors ``[some, width]``, the strongest first ``[width, few]``."""
    wide = sample.shape[0] < sample.shape[1]
    values, vectors = np.linalg.eigh(sample @ sample.T if wide else sample.T @ sample)
    kept = np.flatnonzero(values > max(values[-1], 0) * _ZERO)[::-1][:_AXES]
    axes = sample.T @ vectors[:, kept] if wide else vectors[:, kept]
    return np.linalg.qr(axes)[0] if len(kept) else np.zeros((sample.shape[1], 0))


def _plane(low: Floats, basis: Floats, variance: float, norms: Floats) -> Projection:
    """The best plane inside a few axes."""
    points, share = np.zeros((len(norms), 2)), [0.0, 0.0]
    if basis.shape[1]:
        values, turn = np.linalg.eigh(low.T @ low)
        for place, at in enumerate(range(len(values) - 1, max(len(values) - 3, -1), -1)):
            if values[at] > values[-1] * _ZERO:
                axis = basis @ turn[:, at]
                sign = np.sign(axis[np.argmax(np.abs(axis))])
                points[:, place] = low @ turn[:, at] * sign
                share[place] = float(values[at] / variance)
    return Projection(points, (share[0], share[1]), norms)
