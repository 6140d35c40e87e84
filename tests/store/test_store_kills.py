"""kill -9 at any moment, and writers that know nothing of each other: see `kills.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kills.py")


def kill(folder, what, seed=0):
    done = subprocess.run(
        [sys.executable, PROGRAM, folder, what, str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_random_kills_lose_nothing_and_change_nothing(tmp_path):
    assert kill(tmp_path, "at_random")["kills"] >= 40


def test_a_kill_at_some_calls_leaves_the_old_or_the_new(tmp_path):
    assert kill(tmp_path, "at_calls", 7)["kills"] > 40


def test_writers_without_a_lock_lose_nothing(tmp_path):
    found = kill(tmp_path, "writers")
    assert found["rows"] == 48
    assert found["conflicts"] > 0


@pytest.mark.slow
def test_a_kill_at_any_call_leaves_the_old_or_the_new(tmp_path):
    assert kill(tmp_path, "at_calls", 1)["kills"] > 300


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_random_kills(tmp_path, seed):
    kill(tmp_path, "at_random", seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_writers_without_a_lock(tmp_path, seed):
    kill(tmp_path, "writers", seed)
