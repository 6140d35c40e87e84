"""The map: principal components, against a singular value decomposition of everything at once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from msr_enhance.report.projection import project
from msr_enhance.report.rows import spread


def in_blocks(values, step=100):
    return lambda: (values[start : start + step] for start in range(0, len(values), step))


def slowly(values):
    """Reference: centre, decompose, turn each axis so that its largest entry is positive."""
    centred = values.astype(np.float64) - values.astype(np.float64).mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    found = []
    for axis in axes[:2]:
        largest = max(range(len(axis)), key=lambda at: abs(axis[at]))
        found.append(centred @ (axis if axis[largest] > 0 else -axis))
    return np.stack(found, axis=1), sizes[:2] ** 2 / (sizes**2).sum()


def planted(rows, dim, seed=0):
    """Vectors with two strong directions, far from the origin as the states of a model are."""
    draw = np.random.default_rng(seed)
    basis = np.linalg.qr(draw.normal(size=(dim, 2)))[0].T
    strength = draw.normal(size=(rows, 2)) * [6, 3]
    return (strength @ basis + draw.normal(size=(rows, dim)) * 0.5 + 40).astype(np.float32)


@pytest.mark.parametrize(("rows", "dim"), [(300, 20), (60, 200), (1024, 64), (3000, 30), (2500, 400)])
def test_points_are_those_of_a_full_decomposition(rows, dim):
    values = planted(rows, dim)
    points, share = slowly(values)
    found = project(in_blocks(values), rows, dim)
    assert found.points.shape == (rows, 2)
    assert np.abs(found.points - points).max() < 2e-3 * np.abs(points).max()
    np.testing.assert_allclose(found.share, share, rtol=1e-4)
    np.testing.assert_allclose(found.norms, np.linalg.norm(values.astype(np.float64), axis=1))


def test_noise_without_directions_is_shown_nearly_as_well_as_can_be():
    values = np.random.default_rng(1).normal(size=(5000, 100)).astype(np.float32)
    _, share = slowly(values)
    assert sum(project(in_blocks(values), 5000, 100).share) > 0.9 * share.sum()


@pytest.mark.parametrize("step", [1, 7, 100, 5000])
def test_the_same_picture_however_vectors_come_in_blocks(step):
    values = planted(1500, 12)
    first, again = project(in_blocks(values), 1500, 12), project(in_blocks(values, step), 1500, 12)
    np.testing.assert_allclose(first.points, again.points, atol=1e-6)


def test_the_same_picture_each_time():
    values = planted(1500, 12)
    first, again = (project(in_blocks(values), 1500, 12) for _ in range(2))
    assert first.points.tobytes() == again.points.tobytes()


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_few_rows(rows):
    values = planted(rows, 8) if rows else np.zeros((0, 8), np.float32)
    found = project(in_blocks(values), rows, 8)
    assert found.points.shape == (rows, 2)
    assert np.isfinite(found.points).all()
    if rows == 2:
        assert abs(found.points[0, 0]) == pytest.approx(np.linalg.norm(values[0] - values[1]) / 2, rel=1e-5)
    if rows <= 2:
        assert (found.points[:, 1] == 0).all()
    if rows <= 1:
        assert found.share == (0.0, 0.0)


def test_equal_vectors_lie_in_one_place():
    found = project(in_blocks(np.full((2000, 8), 7.25, np.float32)), 2000, 8)
    assert not found.points.any()
    assert found.share == (0.0, 0.0)


def test_wide_vectors_of_many_users_are_never_held_together():
    rows, dim, step = 12_000, 1024, 256

    def blocks():
        for start in range(0, rows, step):
            draw = np.random.default_rng(start)
            yield draw.normal(size=(min(step, rows - start), dim)).astype(np.float32)

    tracemalloc.start()
    found = project(blocks, rows, dim)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.points) == rows
    assert most < rows * dim * 4, "less than the vectors themselves, which are 49 MB"


@pytest.mark.parametrize(("count", "limit"), [(0, 5), (1, 5), (5, 5), (7, 3), (100, 7), (10, 1), (9, 0)])
def test_a_spread_is_even_and_begins_at_the_first(count, limit):
    found = spread(count, limit).tolist()
    assert len(found) == len(set(found)) == min(count, limit)
    assert found == sorted(found)
    assert all(0 <= at < count for at in found)
    assert found[:1] == [0][: min(count, limit)]
    gaps = np.diff([*found, count])
    assert not len(found) or gaps.max() - gaps.min() <= 1
