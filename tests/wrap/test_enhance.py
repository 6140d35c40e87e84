"""The promises of `enhance()`, on backbones it has never seen."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.wrap.enhance import enhance
from msr_enhance.wrap.model import EnhancedModel, shifted_probability

USERS, SCENARIOS, DIM, WIDTH = 20, ["feed", "search", "shop"], 7, 6
KEYS = {"user": "user", "scenario": "scenario"}


class InHouse(nn.Module):
    """A backbone with its own batch format."""

    def __init__(self, probability: bool = False, fields: bool = False, column: bool = False) -> None:
        super().__init__()
        self.probability, self.fields, self.column = probability, fields, column
        self.users = nn.Embedding(USERS, 3)
        self.items = nn.Embedding(9, 3)
        self.concat = Concat(fields)
        self.deep = nn.Sequential(
            nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"])).flatten(1)
        out = self.deep(e)
        out = torch.sigmoid(out) if self.probability else out
        return out if self.column else out.squeeze(1)


class Concat(nn.Module):
    def __init__(self, fields: bool) -> None:
        super().__init__()
        self.fields = fields

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.stack(parts, 1) if self.fields else torch.cat(parts, 1)


def knowledge(seed: int = 0, users: int = USERS) -> dict[str, tuple[list[Any], np.ndarray]]:
    draw = np.random.default_rng(seed)
    return {
        "user": (list(range(users)), draw.normal(size=(users, DIM)).astype(np.float32)),
        "scenario": (SCENARIOS, draw.normal(size=(3, DIM)).astype(np.float32)),
    }


def batch(rows: int = 12, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "user": torch.randint(USERS, (rows,), generator=draw),
        "item": torch.randint(9, (rows,), generator=draw),
        "scenario": torch.randint(3, (rows,), generator=draw),
    }


def wrap(backbone: nn.Module, **options: Any) -> EnhancedModel:
    options = {"tap": "concat", "keys": KEYS, "vocabulary": {"scenario": SCENARIOS}, "width": WIDTH} | options
    return enhance(backbone, options.pop("knowledge", knowledge()), **options)


def shake(model: EnhancedModel) -> EnhancedModel:
    """Random weights everywhere, as after training."""
    torch.manual_seed(5)
    for weight in model.meta.parameters():
        nn.init.normal_(weight, std=0.4)
    return model.eval()


PLACEMENTS = [
    {"user": user, "scenario": scenario}
    for user, scenario in itertools.product(("bottom", "parallel", None), repeat=2)
    if user or scenario
]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shape", [{}, {"fields": True}, {"column": True}, {"probability": True}])
@pytest.mark.parametrize(("rank", "few"), [(2, 0), (2, 64), (None, 64)])
def test_starts_as_the_plain_model_bit_for_bit(
    placement: dict[str, Any],
    shape: dict[str, bool],
    rank: int | None,
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("msr_enhance.meta.branch.FEW_KEYS", few)
    torch.manual_seed(0)
    backbone = InHouse(**shape).eval()
    plain = backbone(batch())
    output = "probability" if shape.get("probability") else "logit"
    model = wrap(backbone, placement=placement, output=output, meta=MetaConfig(rank=rank)).eval()
    assert torch.equal(model(batch()), plain)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_within_three_steps_everything_has_learned(placement: dict[str, Any], layers: int) -> None:
    torch.manual_seed(0)
    model = wrap(InHouse(), placement=placement, meta=MetaConfig(layers=layers, rank=2))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    moved = {name: False for name, _ in model.meta.named_parameters()}
    for step in range(3):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(
            model(batch(64, step)), torch.arange(64) % 2.0
        ).backward()
        for name, weight in model.meta.named_parameters():
            moved[name] |= weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        optimizer.step()
    assert all(moved.values()), [name for name, did in moved.items() if not did]


def scaled(vectors: np.ndarray) -> Tensor:
    centred = torch.from_numpy(vectors - vectors.mean(0))
    return centred / centred.norm(dim=1, keepdim=True)


def by_the_equations(model: EnhancedModel, data: dict[str, Tensor], source: dict[str, Any]) -> Tensor:
    """A row at a time, from equations 4 to 9: the slow reference, in eval mode."""
    backbone = model.backbone
    results = []
    for row in range(len(data["user"])):
        e = torch.cat([backbone.users(data["user"][row]), backbone.items(data["item"][row])])
        made = {}
        for level in model.meta:
            branch = model.meta[level]
            vector = scaled(source[level][1])[data[level][row]]
            z = vector if branch.projection is None else vector @ branch.projection
            made[level] = (branch, z)

        def generated(level: str, h: Tensor, made: dict[str, Any] = made) -> Tensor:
            branch, z = made[level]
            if branch.config.fidelity == "safe":
                h = h / h.square().mean().sqrt()
            for k, layer in enumerate(branch.layers):
                weight = layer.weight[0] + torch.einsum("k,kij->ij", z, layer.weight[1:])
                bias = layer.bias[0] + z @ layer.bias[1:]
                h = h @ weight + bias
                if branch.config.fidelity == "paper" or k + 1 < len(branch.layers):
                    h = torch.relu(h)
            return h

        h = e
        for level in ("scenario", "user"):
            if level in made and made[level][0].place == "bottom":
                new = generated(level, h)
                h = new if made[level][0].config.fidelity == "paper" else h + new
        y = backbone.deep(h[None])[0, 0]
        for level in ("user", "scenario"):
            if level in made and made[level][0].place == "parallel":
                alpha, g = made[level][0].alpha[0], generated(level, e)[0]
                if made[level][0].config.fidelity == "paper":
                    y = alpha * g + (1 - alpha) * y
                else:
                    y = alpha * (y + g) + (1 - alpha) * y
        results.append(y)
    return torch.stack(results)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("fidelity", ["safe", "paper"])
@pytest.mark.parametrize(("rank", "few"), [(3, 0), (3, 64), (None, 64)])
def test_equals_a_slow_loop_over_the_equations(
    placement: dict[str, Any], fidelity: Any, rank: int | None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msr_enhance.meta.branch.FEW_KEYS", few)  # few=0: outputs are mixed
    torch.manual_seed(1)
    model = shake(
        wrap(InHouse().eval(), placement=placement, meta=MetaConfig(rank=rank, fidelity=fidelity, hidden=5))
    )
    data = batch(17)
    torch.testing.assert_close(model(data), by_the_equations(model, data, knowledge()), rtol=1e-4, atol=1e-5)


def test_fidelity_paper_means_its_defaults() -> None:
    model = wrap(InHouse(), fidelity="paper")
    config = model.meta["user"].config
    assert (config.rank, config.hidden, config.layers, config.alpha) == (None, 64, 2, 0.5)
    assert model.meta["user"].projection is None


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = shake(wrap(InHouse().eval(), meta=MetaConfig(rank=None)))
    data = batch(30)
    whole = model(data)
    for row in range(30):
        alone = model({name: values[row : row + 1] for name, values in data.items()})
        torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-5, atol=1e-6)


def test_the_backbone_is_not_changed() -> None:
    torch.manual_seed(0)
    backbone = InHouse().eval()
    keys, plain = list(backbone.state_dict()), backbone(batch())
    model = shake(wrap(backbone, example=batch()))
    assert list(backbone.state_dict()) == keys
    assert [name for name in model.state_dict() if name.startswith("backbone.")] == [
        f"backbone.{key}" for key in keys
    ]
    assert not torch.allclose(model(batch()), plain)
    assert torch.equal(backbone(batch()), plain)
    with model.disabled():
        assert torch.equal(model(batch()), plain)
    assert model.unwrap() is backbone
    assert all(not module._forward_hooks for module in backbone.modules())


def test_an_example_leaves_modes_and_statistics_alone() -> None:
    backbone = InHouse()
    backbone.deep[3].eval()
    before = copy.deepcopy(backbone.state_dict())
    wrap(backbone, example=batch(), width=None)
    assert backbone.training
    assert not backbone.deep[3].training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    backbone = nn.Module()
    del backbone
    state = torch.get_rng_state()
    wrap(InHouseNoInit.make())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(1), expected)


class InHouseNoInit:
    """A backbone built without touching the global generator."""

    @staticmethod
    def make() -> InHouse:
        with torch.random.fork_rng(devices=[]):
            return InHouse()


def test_deepcopies_are_independent() -> None:
    model = shake(wrap(InHouse().eval()))
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(batch()), model(batch()))
    with torch.no_grad():
        for weight in twin.meta.parameters():
            weight.zero_()
    assert not torch.allclose(twin(batch()), model(batch()))


def test_a_state_dict_round_trip() -> None:
    model, other = shake(wrap(InHouse().eval())), wrap(InHouse(), seed=9).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(batch()), model(batch()))


def test_two_wrappers_of_one_backbone_do_not_disturb_each_other() -> None:
    backbone = InHouse().eval()
    one, two = shake(wrap(backbone)), wrap(backbone).eval()
    plain = backbone(batch())
    assert torch.equal(two(batch()), plain)
    assert not torch.allclose(one(batch()), plain)


def test_threads_do_not_disturb_each_other() -> None:
    model = shake(wrap(InHouse().eval()))
    data = [batch(16, seed) for seed in range(8)]
    expected = [model(one) for one in data]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not torch.equal(model(data[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


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
        assert model.index[level](model._keys[level](data)).tolist() == rows
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
    with pytest.raises(EnhanceError, match="gives tuple; allowed: a tensor"):
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


class InPlace(InHouse):
    """Changes the embedding in place right after the tap."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return self.deep(e.relu_()).squeeze(1)


def test_an_in_place_backbone_does_not_disturb_the_parallel_branch() -> None:
    torch.manual_seed(0)
    model = shake(wrap(InPlace().eval(), placement={"scenario": "parallel"}))
    torch.manual_seed(0)
    data = batch()
    e = torch.cat([model.backbone.users(data["user"]), model.backbone.items(data["item"])], 1)
    plain = model.backbone.deep(e.relu()).squeeze(1)
    branch = model.meta["scenario"]
    torch.testing.assert_close(model(data), branch.mix(plain, e, data["scenario"]))


def test_enhanced_models_nest() -> None:
    torch.manual_seed(0)
    inner = shake(wrap(InHouse().eval(), placement={"user": "bottom"}))
    plain = inner(batch())
    outer = wrap(inner, tap="backbone.concat", placement={"scenario": "parallel"}).eval()
    assert torch.equal(outer(batch()), plain)
    shake(outer)
    assert not torch.allclose(outer(batch()), plain)


def test_unwrapping_one_leaves_another_wrapper_working() -> None:
    backbone = InHouse().eval()
    one, two = wrap(backbone), shake(wrap(backbone))
    expected = two(batch())
    one.unwrap()
    assert torch.equal(two(batch()), expected)


def test_a_failed_enhance_leaves_no_hook() -> None:
    backbone = InHouse()
    with pytest.raises(EnhanceError):
        wrap(backbone, keys=KEYS | {"user": "usr"}, example=batch())
    assert all(not module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("when", ["before", "after"])
def test_other_precisions(dtype: torch.dtype, when: str) -> None:
    backbone = InHouse().eval()
    if when == "before":
        backbone.to(dtype)
    model = wrap(backbone, example=batch()).eval()
    if when == "after":
        model.to(dtype)
    with model.disabled():
        plain = model(batch())
    assert plain.dtype == dtype
    assert torch.equal(model(batch()), plain)
    assert shake(model)(batch()).dtype == dtype


def test_lists_and_tensors_of_positions_mean_the_same() -> None:
    ids = {"user": [*range(1, USERS), 0], "scenario": SCENARIOS}
    index = wrap(InHouse(), vocabulary=ids).index["user"]
    for values in ([0, 3, 19], np.array([0, 3, 19]), torch.tensor([0, 3, 19])):
        assert index(values).tolist() == [0, 3, 19]
    numpy_ids = {"user": (np.arange(USERS), knowledge()["user"][1]), "scenario": knowledge()["scenario"]}
    index = wrap(InHouse(), knowledge=numpy_ids).index["user"]
    assert index(torch.tensor([4, 2])).tolist() == [4, 2]


def test_zero_vectors_are_no_knowledge() -> None:
    source = knowledge()
    source["user"][1][3] = 0
    table = wrap(InHouse(), knowledge=source).meta["user"].table
    assert not table(torch.tensor([3])).any()
    torch.testing.assert_close(table.mean, torch.from_numpy(np.delete(source["user"][1], 3, 0).mean(0)))


def test_a_checkpoint_reads_vectors_centred_as_in_training() -> None:
    torch.manual_seed(0)
    backbone = InHouse().eval()
    trained = shake(wrap(backbone, training_ids={"user": list(range(5))}))
    served = wrap(backbone).eval()
    served.load_state_dict(trained.state_dict())
    torch.testing.assert_close(served(batch()), trained(batch()))


def test_fidelity_and_meta_must_agree() -> None:
    with pytest.raises(EnhanceError, match="disagree"):
        wrap(InHouse(), fidelity="paper", meta=MetaConfig(hidden=4))


def test_disabled_is_of_its_own_thread() -> None:
    model = shake(wrap(InHouse().eval()))
    expected, found = model(batch()), []
    with model.disabled():
        thread = threading.Thread(target=lambda: found.append(model(batch())))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.parametrize(("rank", "few"), [(2, 0), (2, 64), (None, 64)])
def test_an_empty_batch_and_a_batch_of_one(
    rank: int | None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msr_enhance.meta.branch.FEW_KEYS", few)
    model = shake(wrap(InHouse().eval(), meta=MetaConfig(rank=rank)))
    assert model(batch(0)).shape == (0,)
    assert model(batch(1)).shape == (1,)
    model.train()
    model.backbone.deep[1].eval()
    assert model(batch(1)).shape == (1,)
