"""The benchmark scripts run, and say what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


def printed(script, *words):
    run = subprocess.run(
        [sys.executable, SPEED / script, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.slow
def test_both_ways_read_the_same_prompts_and_agree():
    said = printed("reader.py", "--users", 4, "--rounds", 2, "--tokens", 60, "--new", 6)
    assert said["prompts"] == 8
    assert 0 <= said["largest_difference"] < 1e-3
    assert said["times_faster"].keys() == {"generate, states kept", "generate, no vectors"}
    assert all(value > 0 for value in said["seconds"].values())
    assert said["options"]["seed"] == 0
    assert said["versions"].keys() == {"torch", "transformers", "numpy", "msr-enhance"}


@pytest.mark.slow
def test_the_capture_holds_a_sliver_of_what_all_hidden_states_hold():
    """Sixteen prompts of 512 tokens: 155 MB in one way, a few kB in the other; RSS is read to some MB."""
    held = {
        way: found["held"] for way, found in printed("capture_memory.py", "--new", 4)["megabytes"].items()
    }
    assert held["output_hidden_states=True"] - held["no states"] > 100
    assert held["our capture"] - held["no states"] < 20


@pytest.mark.slow
def test_smaller_stores_are_compared_with_the_whole_one():
    said = printed("../stores/smaller.py", "--users", 200, "--seeds", 1, "--epochs", 1, "--dims", 4)
    results = said["results"]
    assert results.keys() == {"plain", "float32", "float16", "bfloat16", "int8", "project 4"}
    assert all(0 < one["auc"] < 1 for one in results.values())
    assert results["int8"]["bytes"] < results["bfloat16"]["bytes"] < results["float32"]["bytes"]
    assert 0 < results["project 4"]["kept_energy"] < results["int8"]["kept_energy"] < 1
