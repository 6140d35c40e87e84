"""A tiny log as a file, and a store made from it."""

from __future__ import annotations

import polars as pl
import pytest
from running import run


@pytest.fixture
def log(titled_log, tmp_path):
    """A CSV log of 20 users."""
    path = tmp_path / "log.csv"
    pl.DataFrame(titled_log(users=20, each=20)).write_csv(path)
    return path


@pytest.fixture
def store(log, tmp_path):
    run("extract", "--data", log, "--model", "category-frequency", "--out", tmp_path / "store")
    return tmp_path / "store"
