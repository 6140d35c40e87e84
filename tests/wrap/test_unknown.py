"""Cold start: what unknown users and scenarios get, how it is trained, and that they are counted."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from in_house import DIM, SCENARIOS, USERS, InHouse, batch, knowledge, shake, wrap
from torch import nn

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.meta.config import MetaConfig

FEW = knowledge() | {"user": (list(range(5)), knowledge()["user"][1][:5])}
EVERYBODY = {"user": list(range(USERS)), "scenario": SCENARIOS}


def step(model: nn.Module, seed: int = 0) -> None:
    loss = nn.functional.binary_cross_entropy_with_logits(model(batch(64, seed)), torch.arange(64) % 2.0)
    loss.backward()


def test_zero_knowledge_is_what_minus_one_gets_and_its_path_is_trained() -> None:
    model = shake(wrap(InHouse(), knowledge=FEW, vocabulary=EVERYBODY, meta=MetaConfig(rank=3)))
    branch = model.branches["user"]
    x = torch.randn(3, 6)
    stranger = branch.generate(x, torch.tensor([7, 8, -1]))
    torch.testing.assert_close(stranger, branch.generate(x, torch.tensor([-1, -1, -1])))
    first = branch.generated[0]
    by_hand = torch.relu(branch.scaled(x) @ first.weight[0] + first.bias[0])
    last = branch.generated[1]
    torch.testing.assert_close(stranger, by_hand @ last.weight[0] + last.bias[0])


def test_dropped_rows_train_the_learned_vector() -> None:
    model = wrap(InHouse(), unknown={"user": "learned"}, meta=MetaConfig(knowledge_dropout=0.5, rank=3))
    shake(model).train()
    step(model)
    vector = model.branches["user"].table.stranger
    assert vector.grad.abs().sum() > 0
    model.eval()
    before = model.branches["user"].generate(torch.ones(1, 6), torch.tensor([-1]))
    with torch.no_grad():
        vector.add_(1)
    assert not torch.allclose(model.branches["user"].generate(torch.ones(1, 6), torch.tensor([-1])), before)
    known = model.branches["user"].generate(torch.ones(1, 6), torch.tensor([3]))
    with torch.no_grad():
        vector.add_(1)
    assert torch.equal(model.branches["user"].generate(torch.ones(1, 6), torch.tensor([3])), known)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_as_many_rows_are_dropped_as_asked(share: float) -> None:
    model = wrap(InHouse(), unknown={"user": "learned"}, meta=MetaConfig(knowledge_dropout=share))
    branch = model.branches["user"].train()
    table, seen = branch.table, []
    table.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    branch.config = branch.config.model_copy(update={"path": "mix"})
    branch.generate(torch.randn(4000, 6), torch.zeros(4000, dtype=torch.long))
    assert (seen[0] == -1).float().mean().item() == pytest.approx(share, abs=0.03)
    branch.eval().generate(torch.randn(10, 6), torch.zeros(10, dtype=torch.long))
    assert not (seen[1] == -1).any()


def test_scenarios_are_an_error_unless_told_otherwise() -> None:
    vocabulary = EVERYBODY | {"scenario": [*SCENARIOS, "live"]}
    with pytest.raises(UnknownIdError, match=r"scenario 'live' is not known.*unknown=\{'scenario': 'zero'\}"):
        wrap(InHouse(), vocabulary=vocabulary)
    model = shake(wrap(InHouse().eval(), vocabulary=vocabulary, unknown={"scenario": "zero"}))
    assert torch.isfinite(model(batch() | {"scenario": torch.full((12,), 3)})).all()
    assert model.unknown_counts() == {"scenario": 12, "user": 0}
    learned = wrap(InHouse(), vocabulary=vocabulary, unknown={"scenario": "learned"})
    assert "meta.scenario.table.stranger" in learned.state_dict()


def test_users_may_be_an_error() -> None:
    with pytest.raises(UnknownIdError, match="user '5' is not known"):
        wrap(InHouse(), knowledge=FEW, vocabulary=EVERYBODY, unknown={"user": "error"})
    model = wrap(InHouse().eval(), knowledge=FEW, unknown={"user": "error"})
    with pytest.raises(UnknownIdError, match=r"user '19' .*Unknown: \[19, 6\]"):
        model(batch(3) | {"user": torch.tensor([19, 2, 6])})
    assert model.unknown_counts()["user"] == 0  # a call that was refused
    positions = wrap(InHouse().eval(), unknown={"user": "error"}, vocabulary=EVERYBODY)
    with pytest.raises(UnknownIdError, match="'-1'"):
        positions(batch(2) | {"user": torch.tensor([-1, 2])})


def test_vectors_of_zeros_are_strangers_too() -> None:
    keys = {"scenario": "scenario"}
    model = shake(wrap(InHouse().eval(), keys=keys, vectors={"user": "state"}, unknown={"user": "learned"}))
    state = torch.randn(12, DIM)
    state[[2, 5]] = 0
    model(batch() | {"state": state})
    assert model.unknown_counts() == {"scenario": 0, "user": 2}
    strict = wrap(InHouse().eval(), keys=keys, vectors={"user": "state"}, unknown={"user": "error"})
    with pytest.raises(UnknownIdError, match="vectors of zeros"):
        strict(batch() | {"state": state})
    with pytest.raises(EnhanceError, match=rf"allowed: a floating tensor \[batch, {DIM}\]"):
        model(batch() | {"state": state[:, 1:]})


def test_counts_are_right_from_many_threads() -> None:
    model = wrap(InHouse().eval(), knowledge=FEW, vocabulary=EVERYBODY)
    data = batch(40)
    strangers = int((data["user"] >= 5).sum())

    def work() -> None:
        for _ in range(50):
            model(data)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.unknown_counts() == {"scenario": 0, "user": 400 * strangers}


@pytest.mark.parametrize(
    ("unknown", "message"),
    [
        ({"usr": "zero"}, "level 'usr' is not known"),
        ({"user": "none"}, "allowed: 'zero', 'learned', 'error'"),
    ],
)
def test_mistakes_are_named(unknown: dict[str, Any], message: str) -> None:
    with pytest.raises(EnhanceError, match=message):
        wrap(InHouse(), unknown=unknown)


def test_wide_vectors_are_kept_compact_and_their_layers_read_the_same() -> None:
    draw = np.random.default_rng(0)
    wide = {
        "user": (list(range(USERS)), draw.normal(size=(USERS, 600)).astype(np.float32)),
        "scenario": (SCENARIOS, draw.normal(size=(3, 600)).astype(np.float32)),
    }
    model = wrap(InHouse(), knowledge=wide, meta=MetaConfig(compact=64, rank=8))
    tables = {level: branch.table for level, branch in model.branches.items()}
    assert (tables["user"].kept, tables["scenario"].kept) == (64, 2)
    whole = wrap(InHouse(), knowledge=wide, meta=MetaConfig(rank=None)).branches["user"].table
    rows, full = (table(torch.arange(USERS)) for table in (tables["user"], whole))
    assert full.shape == (USERS, 600)  # and 20 users span 19 directions
    rows = rows / tables["user"].statistics_on("cpu").gain
    torch.testing.assert_close(rows @ rows.T, full @ full.T, atol=1e-4, rtol=1e-4)


def test_a_factored_layer_learns_as_fast_as_a_full_one() -> None:
    """A step of Adam moves a weight by its rate times the absolute sum of what the weight is made from."""
    draw = np.random.default_rng(0)
    wide = (draw.normal(size=(400, 300)) * 0.97 ** np.arange(300)).astype(np.float32)
    source = {"user": (list(range(400)), wide), "scenario": knowledge()["scenario"]}
    every, moved, made = torch.arange(400), {}, {}
    for rank in (None, 64, 8):
        branch = wrap(InHouse(), knowledge=source, meta=MetaConfig(rank=rank)).branches["user"]
        moved[rank] = branch.condition(every).abs().sum(1).mean().item()
        made[rank] = branch.generated[0].made(branch.condition(every))[0].std().item()
    assert moved[8] == pytest.approx(moved[None], rel=0.05)
    assert moved[64] == pytest.approx(moved[None], rel=0.05)
    assert made[8] == pytest.approx(made[None], rel=0.3)  # and it starts at the same size


@pytest.mark.parametrize(("policy", "share"), [("zero", 0.1), ("learned", 0.1), ("error", 0.0)])
def test_vectors_are_dropped_only_for_a_path_that_is_taken(policy: Any, share: float) -> None:
    model = wrap(InHouse(), unknown={"user": policy})
    assert model.branches["user"].config.knowledge_dropout == share
    assert model.branches["scenario"].config.knowledge_dropout == 0.0
