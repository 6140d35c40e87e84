"""A real process is killed by SIGKILL at random moments; the same command goes on and ends the same.

Run as a script, this file is that process.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.store.knowledge import KnowledgeStore

ROWS, BATCH = 900, 4


def table_of(kind: str) -> InteractionTable:
    """90 users in two scenarios; in the `new` log every third user has one title more in the window."""
    draw = np.random.default_rng(3)
    time_of = np.arange(ROWS)
    user = draw.integers(90, size=ROWS)
    late = (time_of < ROWS // 2) & (user % 3 == 0) & (kind == "new")
    return InteractionTable.from_arrays(
        {
            "user_id": user,
            "item_id": draw.integers(40, size=ROWS),
            "scenario": np.array(["feed", "shop"], object)[draw.integers(2, size=ROWS)],
            "label": draw.integers(2, size=ROWS),
            "timestamp": time_of,
            "title": np.array([f"t{row}{'new' if late[row] else ''}" for row in range(ROWS)], object),
        }
    )


def run(folder: str, kind: str, refresh: str) -> None:
    """Extract slowly; before each batch say on stdout how many rows are committed by now."""
    from conftest import FakeLLM  # a script finds the files beside it

    class Slow(FakeLLM):
        def answer(self, prompts):
            print(f"asked {len(self.asked)}", flush=True)
            time.sleep(0.01)
            return super().answer(prompts)

    llm = Slow(plans=BATCH, limit=62)
    table = table_of(kind)
    print("ready", flush=True)
    KnowledgeExtractor(llm, commit_every=16).extract(table, folder, refresh=refresh == "refresh")


def killed_until_done(folder: Path, kind: str, refresh: str, most: int, check) -> int:
    draw, kills = random.Random(most), 0
    while True:
        command = [sys.executable, __file__, str(folder), kind, refresh]
        environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout.readline() == "ready\n"
            if kills < most:
                time.sleep(draw.uniform(0, 0.15))
                child.kill()
            said = child.stdout.read().split()
        if child.returncode == 0:
            return kills
        assert child.returncode == -9
        kills += 1
        check(int(said[-1]) if said else 0)


@pytest.fixture
def uninterrupted(tmp_path, fake_llm):
    def make(kind):
        llm = fake_llm(plans=BATCH, limit=62)
        return KnowledgeExtractor(llm, commit_every=16).extract(table_of(kind), tmp_path / f"whole-{kind}")

    return make


def rows_in(folder: Path) -> int:
    store = KnowledgeStore.load(folder) if any(folder.glob("manifest-*.json")) else None
    return sum(len(store.ids(level)) for level in store.levels) if store else 0


@pytest.mark.parametrize("most", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_extraction_loses_at_most_the_batch_in_flight(tmp_path, uninterrupted, contents, most):
    folder, before = tmp_path / "store", 0

    def check(asked: int) -> None:
        nonlocal before
        now = rows_in(folder)
        assert now >= before + asked, "all batches but the one in flight were durable"
        before = now

    assert killed_until_done(folder, "old", "-", most, check) >= 3
    assert contents(KnowledgeStore.load(folder)) == contents(uninterrupted("old"))


@pytest.mark.parametrize("most", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_refresh_ends_as_a_fresh_extraction(tmp_path, uninterrupted, contents, most):
    fresh, old = contents(uninterrupted("new")), uninterrupted("old")
    window = KnowledgeStore.load(tmp_path / "whole-new").provenance.window
    folder = tmp_path / "whole-old"

    def check(asked: int) -> None:
        store = KnowledgeStore.load(folder)
        if (
            store.provenance.window == window
            and store.provenance.identity["seen_texts"] != old.provenance.identity["seen_texts"]
        ):
            for key, row in contents(store).items():
                assert row[1] == fresh[key][1], "no row of another window under the name of this one"

    assert killed_until_done(folder, "new", "refresh", most, check) >= 2
    assert contents(KnowledgeStore.load(folder)) == fresh


if __name__ == "__main__":
    run(*sys.argv[1:])
