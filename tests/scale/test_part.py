"""A user belongs to one part, the same everywhere; torchrun and Slurm say which part a process has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from msr_enhance.errors import DataError, StoreError
from msr_enhance.scale.part import Part

IDS = [0, 7, -1, 2**63 - 1, "7", "user-7", "é", ""]
PARTS_OF_IDS = [802, 688, 838, 689, 477, 234, 818, 694]  # of 1,000


def places(ids, count):
    return [[part.index for part in Part.all(count) if part.holds(name)] for name in ids]


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_every_user_is_in_exactly_one_part(count):
    assert all(len(found) == 1 for found in places([*IDS, *range(200)], count))


@pytest.mark.parametrize("kind", ["counted", "text", "even", "far"])
def test_parts_are_of_equal_size(kind):
    """Chi-square against equal shares: 27.0 is the 99.9th percentile of 8 degrees, 9 cells."""
    ids = {
        "counted": range(20_000),
        "text": [f"user_{n}" for n in range(20_000)],
        "even": range(0, 40_000, 2),
        "far": range(2**62, 2**62 + 20_000 * 900, 900),
    }[kind]
    counts = np.zeros(9)
    for part in Part.all(9):
        counts[part.index] = sum(map(part.holds, ids))
    assert counts.sum() == 20_000
    expected = 20_000 / 9
    assert ((counts - expected) ** 2 / expected).sum() < 27.0


def test_parts_within_a_part_are_of_equal_size_too():
    """A user's part of 3 says nothing about its part of 5."""
    third = [name for name in range(15_000) if Part(0, 3).holds(name)]
    shares = Counter(found[0] for found in places(third[:2_500], 5))
    assert max(shares.values()) - min(shares.values()) < 150


def test_the_part_of_a_user_never_changes():
    """Another hash would tear every unfinished run apart."""
    assert [found[0] for found in places(IDS, 1_000)] == PARTS_OF_IDS


def test_the_part_does_not_depend_on_the_process():
    code = (
        "import sys; from msr_enhance.scale.part import Part;"
        "print([next(p.index for p in Part.all(50) if p.holds(i)) for i in (1, 'a', 'b', 2**40)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{[found[0] for found in places([1, 'a', 'b', 2**40], 50)]}\n"}


def test_numpy_ids_are_as_plain_ones():
    part = Part(2, 5)
    assert [part.holds(name) for name in np.arange(50)] == [part.holds(name) for name in range(50)]
    assert [part.holds(np.str_(f"u{n}")) for n in range(50)] == [part.holds(f"u{n}") for n in range(50)]


@pytest.mark.parametrize("bad", [1.0, True, None, b"7"])
def test_what_no_store_keeps_is_in_no_part(bad):
    with pytest.raises(StoreError, match="cannot be an id"):
        Part(0, 2).holds(bad)


def test_reading_a_part():
    assert Part.parse("3/16") == Part(3, 16)
    assert Part.parse("0/1").name == "part-00000-of-00001"
    assert [part.name for part in Part.all(2)] == ["part-00000-of-00002", "part-00001-of-00002"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "i/n with i counted from 0, or auto"),
        ("3/", "--shard 0/4"),
        ("-1/4", "i/n"),
        ("1 of 4", "i/n"),
        ("１/４", "i/n"),
        ("", "i/n"),
        ("9" * 30 + "/4", "i/n"),
        ("4/4", "no part 4 of 4.*0/4 to 3/4"),
        ("0/0", "0 parts cannot be made"),
        ("0/100001", "1 to 100,000"),
    ],
)
def test_a_part_that_cannot_be(text, said):
    with pytest.raises(DataError, match=said):
        Part.parse(text)


ARRAY = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "4"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"RANK": "2", "WORLD_SIZE": "8"}, Part(2, 8)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, Part(0, 3)),
        ({"RANK": "2", "WORLD_SIZE": "8", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Part(2, 8)),
        (ARRAY, Part(1, 4)),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}, Part(2, 4)),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "10", "SLURM_ARRAY_TASK_STEP": "2"}, Part(3, 4)),
        (ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Part(1, 4)),
        (ARRAY | {"RANK": "2", "WORLD_SIZE": "3"}, Part(5, 12)),
    ],
)
def test_a_launcher_says_the_part(environment, part):
    assert Part.parse("auto", environment) == part


def test_tasks_of_an_array_with_several_processes_cover_everything_once():
    found = [
        Part.parse(
            "auto",
            ARRAY | {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_PROCID": str(rank), "SLURM_NTASKS": "3"},
        )
        for task in range(4, 8)
        for rank in range(3)
    ]
    assert sorted(found, key=lambda part: part.index) == Part.all(12)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "RANK with WORLD_SIZE.*SLURM_PROCID with SLURM_NTASKS.*SLURM_ARRAY_TASK_ID"),
        ({"RANK": "1"}, "found neither"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, r"RANK says 8 of 8 \(torchrun\), which is out of range"),
        ({"RANK": "one", "WORLD_SIZE": "8"}, "RANK is 'one'"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "-3"}, "SLURM_NTASKS is '-3'"),
        ({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3"}, "out of range"),
        (ARRAY | {"SLURM_ARRAY_TASK_STEP": "2"}, "no step of 2 from 4"),
    ],
)
def test_a_launcher_that_says_nothing_of_use(environment, said):
    with pytest.raises(DataError, match=said):
        Part.parse("auto", environment)


def test_auto_reads_the_environment_of_the_process(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Part.parse("auto") == Part(1, 2)
