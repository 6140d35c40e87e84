from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Arrays = dict[str, Any]


@pytest.fixture
def small() -> Arrays:
    """Four rows, two users, two scenarios, one of everything."""
    return {
        "user_id": [2, 1, 2, 1],
        "item_id": ["b", "a", "a", "c"],
        "scenario": ["shop", "feed", "feed", "shop"],
        "label": [1, 0, 1, 1],
        "timestamp": [30, 10, 20, 40],
        "title": ["Boat", "Arch", "Arch", None],
        "category": ["sea", "art", "art", "sea"],
        "price": [1.5, 2.5, None, 4.0],
    }


@pytest.fixture
def random_log() -> Callable[..., Arrays]:
    """Columns of a log with many ties in time."""

    def make(seed: int = 0, rows: int = 600, users: int = 20, moments: int = 40) -> Arrays:
        rng = np.random.default_rng(seed)
        items = rng.integers(0, 30, rows)
        return {
            "user_id": rng.integers(100, 100 + users, rows),
            "item_id": items,
            "scenario": np.array(["a", "b", "c"], object)[rng.choice(3, rows, p=[0.5, 0.3, 0.2])],
            "label": rng.integers(0, 2, rows),
            "timestamp": rng.integers(0, moments, rows),
            "title": np.array([f"title {item}" if item % 5 else "" for item in items], object),
            "category": np.array([f"kind {item % 4}" for item in items], object),
        }

    return make
