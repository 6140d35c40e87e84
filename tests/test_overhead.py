"""The benchmark of costs: every row is produced, floors are right, and the plain side is what it says."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_every_row_is_produced_with_a_finite_ratio(tmp_path):
    tiny = {"pairs": 1, "items": 50, "users": 60, "batch": 64, "request": 20, "full-width": 24}
    words = [f"--{name}={value}" for name, value in tiny.items()]
    done = subprocess.run(
        [
            sys.executable,
            BENCHMARKS / "overhead.py",
            "--quick",
            "--json",
            *words,
            "--out",
            tmp_path / "page.md",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    from cost.cases import CASES

    said = json.loads(done.stdout)
    assert [figure["name"] for figure in said["figures"]] == [case.name for case in CASES]
    for figure in said["figures"]:
        assert math.isfinite(figure["ratio"]), figure
        assert figure["ratio"] > 0, figure
        assert figure["floor"] > 1, figure
        if figure["name"].startswith("train"):
            plain, ours = figure["memory"]
            assert 0 < plain < ours
        else:
            assert figure["eager"] > 0
        judged = (
            "-"
            if figure["target"] is None
            else "reached"
            if figure["ratio"] <= figure["target"]
            else "missed"
        )
        assert figure["verdict"] == judged
    assert said.keys() >= {"commit", "versions", "machine", "threads", "allocator", "seed", "rows_a_user"}
    assert said["threads"] == 1
    assert said["rows_a_user"]["request"] == 20
    page = (tmp_path / "page.md").read_text("utf-8")
    assert all(f"| {case.name} |" in page for case in CASES)


def test_floors_by_hand():
    from cost.floors import floor, star_operations

    # 128-256-128-64-1 and 128-64-1: 65,536 + 65,536 + 16,384 + 128 and 16,384 + 128
    operations = star_operations(128, (256, 128, 64), (64,), 0)
    assert operations == 164_096
    assert star_operations(128, (256, 128, 64), (64,), 16) == 164_096 + 2_048
    shape = {"width": 128, "hidden": 64, "rank": 16, "rho": 32.0, "operations": operations}
    scenario = 16_384 + 128
    assert floor("none", **shape, training=True) == pytest.approx(1 + scenario / operations)
    assert floor("cached", **shape, training=False) == pytest.approx(1 + (scenario + 32_768) / operations)
    assert floor("mix", **shape, training=True) == pytest.approx(1 + (scenario + 17 * 32_768) / operations)
    made = 2 * 17 * 16_576 / 32
    gen = 1 + (scenario + 32_768 + made) / operations
    assert floor("gen", **shape, training=False) == pytest.approx(gen)
    assert floor("gen", **shape, training=True) == pytest.approx(gen - made / 3 / operations)


@pytest.fixture
def star():
    from cost.batches import World

    from msr_enhance.backbones.star import STAR

    torch.manual_seed(0)
    world = World(users=40, items=70, batch=50, request=9, seed=0)
    model = STAR(world.fields, 3, 16, hidden=(24, 8), auxiliary=(6,), dropout=0.0)
    for batch in world.draw("shuffled", 3):
        model(batch)  # running averages that are not those of the start
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return world, model.eval()


@pytest.mark.parametrize("kind", ["shuffled", "blocks", "sorted", "request"])
def test_the_frozen_star_gives_the_scores_of_the_star(star, kind):
    from cost.frozen_star import FrozenSTAR

    world, model = star
    for batch in world.draw(kind, 2):
        torch.testing.assert_close(FrozenSTAR(model)(batch), model(batch).detach(), rtol=1e-5, atol=1e-5)


def test_the_frozen_star_refuses_a_scenario_that_is_not_there(star):
    from cost.frozen_star import FrozenSTAR

    world, model = star
    batch = world.draw("request", 1)[0]
    with pytest.raises(ValueError, match="scenario"):
        FrozenSTAR(model)(batch | {"scenario": batch["scenario"] * 0 + 3})


def test_lazy_adam_makes_dense_adams_first_step_on_touched_rows_alone():
    from cost.lazy_adam import LazyAdam

    torch.manual_seed(0)
    lazy = nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 1))
    dense = copy.deepcopy(lazy)
    before = lazy[0].weight.detach().clone()
    ids = torch.tensor([3, 7, 3, 19, 0])
    ours = LazyAdam(lazy[0], list(lazy[1].parameters()), lr=0.01)
    theirs = torch.optim.Adam(dense.parameters(), lr=0.01)
    for model, optimizer in ((lazy, ours), (dense, theirs)):
        optimizer.zero_grad()
        model(ids).square().sum().backward()
        optimizer.step()
    assert lazy[0].weight.grad.is_sparse
    for one, other in zip(lazy.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    untouched = [row for row in range(20) if row not in ids.tolist()]
    assert torch.equal(lazy[0].weight[untouched], before[untouched])
    assert not torch.equal(lazy[0].weight[ids], before[ids])


def test_batches_are_what_they_are_called(star):
    from cost.batches import rho

    world, _ = star
    for batch in world.draw("request", 3):
        assert len(batch["user"].unique()) == len(batch["scenario"].unique()) == 1
        assert len(batch["user"]) == 9
    assert all((batch["user"].diff() >= 0).all() for batch in world.draw("sorted", 2))
    assert rho(world.draw("blocks", 2)) > 3 * rho(world.draw("shuffled", 2))
    for kind in ("shuffled", "blocks", "sorted", "request"):
        for batch in world.draw(kind, 2):
            assert torch.equal(batch["fields"][:, 0], batch["user"])
            assert (batch["fields"] < torch.tensor(world.fields)).all()
