"""Keys, taps and mistakes of `enhance()`, each named with what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from in_house import (
    DIM,
    KEYS,
    SCENARIOS,
    USERS,
    WIDTH,
    InHouse,
    batch,
    knowledge,
    shake,
    wrap,
)
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.wrap.output import as_logit, shifted_probability


def test_unknown_users_are_zero_knowledge_and_unknown_scenarios_an_error() -> None:
    ids = {"user": [f"u{n}" for n in range(USERS)], "scenario": SCENARIOS}
    few = {"user": (["u1", "u2"], knowledge()["user"][1][:2]), "scenario": knowledge()["scenario"]}
    model = shake(wrap(InHouse().eval(), knowledge=few, vocabulary=ids))
    data = batch(4)
    data["user"] = torch.tensor([5, 6, 1, 2])
    scores = model(data)
    data["user"] = torch.tensor([-1, 6, 1, 2])  # only the key; the backbone reads users 5 and 6 below
    assert torch.isfinite(scores).all()
    branch = model.meta["user"]
    x = torch.randn(2, WIDTH)
    torch.testing.assert_close(
        branch.generate(x, torch.tensor([5, -1])), branch.generate(x, torch.tensor([-1, 5]))
    )
    data = batch(4)
    data["scenario"] = torch.tensor([0, 1, 3, 0])
    with pytest.raises(UnknownIdError, match="scenario key 3"):
        model(data)
    with pytest.raises(UnknownIdError, match="'feed'"):
        wrap(InHouse(), vocabulary={"scenario": [*SCENARIOS, "feet"]})


def test_string_and_raw_integer_keys() -> None:
    draw = np.random.default_rng(0)
    source = {
        "user": ([70, 30, 50], draw.normal(size=(3, DIM)).astype(np.float32)),
        "scenario": knowledge()["scenario"],
    }
    keys = {"user": lambda data: data["uid"], "scenario": lambda data: data["place"]}
    model = shake(wrap(InHouse().eval(), knowledge=source, keys=keys, vocabulary=None))
    data = batch(3) | {"uid": torch.tensor([50, 70, 31]), "place": ["shop", "feed", "shop"]}
    by_position = shake(
        wrap(InHouse().eval(), knowledge=source, vocabulary={"user": [70, 30, 50], "scenario": SCENARIOS})
    )
    by_position.backbone.load_state_dict(model.backbone.state_dict())
    for level, rows in {"user": [2, 0, -1], "scenario": [2, 0, 2]}.items():
        assert model.whose.index[level](model._sources[level](data)).tolist() == rows
    bad = data | {"place": ["shop", "moon", "shop"]}
    with pytest.raises(UnknownIdError, match="'moon'"):
        model(bad)


@dataclasses.dataclass
class Call:
    user: Tensor
    item: Tensor


class Awkward(nn.Module):
    """Takes a dataclass, a positional and a keyword-only tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InHouse()

    def forward(self, call: Call, weight: float, *, scenario: Tensor) -> Tensor:
        return self.inner({"user": call.user, "item": call.item, "scenario": scenario}) * weight


def test_keys_are_found_in_dataclasses_and_keywords() -> None:
    model = shake(wrap(Awkward().eval(), tap="inner.concat"))
    data = batch()
    result = model(Call(data["user"], data["item"]), 1.0, scenario=data["scenario"])
    assert result.shape == (12,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap": "conct"}, "tap 'conct' is not known; allowed: 'concat'"),
        ({"keys": {"user": "usr", "scenario": "scenario"}}, "key 'usr' is not known; allowed: 'user'"),
        ({"keys": {"user": "user"}}, "'scenario' is placed"),
        ({"placement": {"user": "top"}}, "allowed: 'bottom', 'parallel', 'None'"),
        ({"placement": {"item": "bottom"}}, "level 'item' is not known"),
        ({"placement": {"user": None}}, "places no level"),
        ({"output": "score"}, "allowed: 'logit', 'probability'"),
        ({"width": None}, "pass example=BATCH"),
        ({"knowledge": {"user": knowledge()["user"]}}, "level 'scenario' is not known"),
        ({"knowledge": knowledge() | {"user": (["a"], np.full((1, 3), np.nan, np.float32))}}, "NaN"),
        ({"knowledge": knowledge() | {"user": ([1, 2], np.zeros((1, 3), np.float32))}}, "2 user ids"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EnhanceError, match=message):
        wrap(InHouse(), **options)(batch())


class Sneaky(InHouse):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.concat.forward(self.users(batch["user"]), self.items(batch["item"]))
        return self.deep(e).squeeze(1)


class Twice(InHouse):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return super().forward(batch)


class Recurrent(InHouse):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return self.deep(self.gru(e)[0]).squeeze(1)


def test_a_tap_that_never_fires_or_fires_twice_is_an_error() -> None:
    with pytest.raises(EnhanceError, match="never fired"):
        wrap(Sneaky())(batch())
    with pytest.raises(EnhanceError, match="fired twice"):
        wrap(Twice())(batch())
    with pytest.raises(EnhanceError, match="never fired"):
        wrap(Sneaky(), example=batch())
    with pytest.raises(EnhanceError, match=r"gives tuple.0: .* allowed: a floating tensor"):
        wrap(Recurrent(), tap="gru")(batch())
    with pytest.raises(EnhanceError, match="5 user keys for a batch of 12"):
        wrap(InHouse(), keys=KEYS | {"user": lambda data: data["user"][:5]})(batch())


def test_probabilities_are_mixed_in_logit_space_up_to_saturation() -> None:
    p = torch.tensor([0.0, 1e-30, 0.2, 0.5, 0.9, 1.0], dtype=torch.double, requires_grad=True)
    for shift in (-30.0, -1.0, 0.0, 2.0, 30.0):
        mixed = shifted_probability(p, torch.full_like(p, shift))
        inside = slice(2, 5)
        torch.testing.assert_close(mixed[inside], torch.sigmoid(torch.logit(p[inside]) + shift))
        assert torch.isfinite(torch.autograd.grad(mixed.sum(), p)[0]).all()
    single = torch.rand(1000)
    assert torch.equal(shifted_probability(single, torch.zeros(1000)), single)


def test_parameter_groups_hold_everything_once_and_alpha_without_decay() -> None:
    model = wrap(InHouse(), placement={"user": "parallel", "scenario": "parallel"})
    groups = model.parameter_groups(0.01, meta_factor=0.5, weight_decay=0.1)
    listed = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(listed) == sorted(id(weight) for weight in model.parameters())
    assert [group["lr"] for group in groups] == [0.01, 0.005, 0.01]
    assert groups[2]["weight_decay"] == 0.0
    assert model.alphas() == {"scenario": 0.5, "user": 0.5}
    torch.optim.AdamW(groups)


def test_a_store_of_another_width_and_duplicate_ids_are_refused() -> None:
    model = wrap(InHouse())
    wide = {level: (ids, np.pad(vectors, ((0, 0), (0, 2)))) for level, (ids, vectors) in knowledge().items()}
    other = wrap(InHouse(), knowledge=wide)
    with pytest.raises(EnhanceError, match="trained on vectors of 7 numbers, and this store's have 9"):
        other.load_state_dict(model.state_dict())
    twice = knowledge() | {"user": ([1, 2, 1], np.zeros((3, DIM), np.float32))}
    with pytest.raises(EnhanceError, match="user id 1 stands twice"):
        wrap(InHouse(), knowledge=twice)


def test_lists_and_tensors_of_positions_mean_the_same() -> None:
    ids = {"user": [*range(1, USERS), 0], "scenario": SCENARIOS}
    index = wrap(InHouse(), vocabulary=ids).whose.index["user"]
    for values in ([0, 3, 19], np.array([0, 3, 19]), torch.tensor([0, 3, 19])):
        assert index(values).tolist() == [0, 3, 19]
    numpy_ids = {"user": (np.arange(USERS), knowledge()["user"][1]), "scenario": knowledge()["scenario"]}
    index = wrap(InHouse(), knowledge=numpy_ids).whose.index["user"]
    assert index(torch.tensor([4, 2])).tolist() == [4, 2]


def test_zero_vectors_are_no_knowledge() -> None:
    source = knowledge()
    source["user"][1][3] = 0
    table = wrap(InHouse(), knowledge=source).meta["user"].table
    assert not table(torch.tensor([3])).any()
    torch.testing.assert_close(table.mean, torch.from_numpy(np.delete(source["user"][1], 3, 0).mean(0)))


def test_fidelity_and_meta_must_agree() -> None:
    with pytest.raises(EnhanceError, match="disagree"):
        wrap(InHouse(), fidelity="paper", meta=MetaConfig(hidden=4))


@pytest.mark.parametrize(("rank", "path"), [(2, "mix"), (2, "gen"), (None, "auto")])
def test_an_empty_batch_and_a_batch_of_one(rank: int | None, path: Any) -> None:
    model = shake(wrap(InHouse().eval(), meta=MetaConfig(rank=rank, path=path)))
    assert model(batch(0)).shape == (0,)
    assert model(batch(1)).shape == (1,)
    model.train()
    model.backbone.deep[1].eval()
    assert model(batch(1)).shape == (1,)


class Stopped(InHouse):
    """Goes on without gradients after the embedding: nothing before would learn."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            e = self.concat(self.users(batch["user"]), self.items(batch["item"])) * 2
        return self.deep(e).squeeze(1)


class Unread(InHouse):
    """Computes an embedding and reads another."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return self.deep(torch.ones(len(batch["user"]), WIDTH)).squeeze(1)


@pytest.mark.parametrize("backbone", [Stopped, Unread])
def test_a_bottom_tap_that_no_gradient_comes_back_to_is_refused(backbone: type[InHouse]) -> None:
    with pytest.raises(EnhanceError, match="No gradient of the scores comes back to tap 'concat'"):
        wrap(backbone(), example=batch())
    wrap(backbone(), example=batch(), placement={"scenario": "parallel"})
    with torch.no_grad():
        wrap(InHouse(), example=batch())


def test_saturated_probabilities_keep_their_gradient_in_the_papers_form() -> None:
    x = torch.tensor([-80.0, -40.0, -3.0, 0.0, 3.0, 12.0], requires_grad=True)
    logit = as_logit(torch.sigmoid(x))
    torch.testing.assert_close(logit, x, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(torch.autograd.grad(logit.sum(), x)[0], torch.ones(6), rtol=0.1, atol=0)
    assert torch.isfinite(as_logit(torch.tensor([0.0, 1.0]))).all()
