"""What a hostile review found: each a promise now."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from in_house import DIM, KEYS, SCENARIOS, USERS, WIDTH, InHouse, batch, knowledge, shake, wrap
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.wrap.index import KeyIndex

EVERYBODY = {"user": list(range(USERS)), "scenario": SCENARIOS}


def test_positions_are_positions_in_whatever_they_come() -> None:
    index = KeyIndex("user", list(range(20))[::-1], positions=True)
    mixed = np.array([np.int64(0), np.int64(1)], dtype=object)
    for values in (
        [0, 1],
        list(np.array([0, 1])),
        list(torch.tensor([0, 1])),
        mixed,
        np.array([0, 1], np.int32),
    ):
        assert index(values).tolist() == [0, 1]
    for values in (np.array([0.0, 1.0]), [0.0, 1.0], [b"0"], ["0"], [True]):
        with pytest.raises(EnhanceError, match="the store's ids are integers"):
            index(values)
    names = KeyIndex("user", ["a", "b"], positions=False)
    assert names(["b", None, "c"]).tolist() == [1, -1, -1]
    for wrong in ([0, 1], [b"a"], torch.tensor([0])):
        with pytest.raises(EnhanceError, match="the store's ids are strings"):
            names(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_knowledge_survives_modules_without_memory(dtype: torch.dtype) -> None:
    model = shake(wrap(InHouse().eval())).to(dtype)
    expected, state = model(batch()), copy.deepcopy(model.state_dict())
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    assert torch.equal(model(batch()), expected)
    with torch.device("meta"):
        backbone = InHouse()
    late = wrap(backbone).to(dtype)
    late.to_empty(device="cpu")
    late.load_state_dict(state)
    assert torch.equal(late.eval()(batch()), expected)


def test_averages_of_weights_leave_knowledge_alone() -> None:
    source = knowledge()
    source["user"] = ([10**10 + 7 * number for number in range(USERS)], source["user"][1])
    keys = KEYS | {"user": lambda data: data["user"] * 7 + 10**10}
    model = shake(wrap(InHouse().eval(), knowledge=source, keys=keys))
    for options in ({"multi_avg_fn": get_ema_multi_avg_fn(0.9)}, {}):
        average = AveragedModel(model, use_buffers=True, **options)
        for _ in range(2):
            average.update_parameters(model)
        torch.testing.assert_close(average(batch()), model(batch()))
    assert model.unknown_counts()["user"] == 0


def test_a_model_is_pickled_for_another_process() -> None:
    model = shake(wrap(InHouse().eval()))
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(twin(batch()), model(batch()))
    twin.load_state_dict(
        wrap(InHouse(), training_ids={"user": [1, 2, 3]}).state_dict()
    )  # reads vectors again


class WithLoss(InHouse):
    """Computes its own loss, and a probability."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = super().forward(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        norm = self.users.weight.norm()
        return {"loss": loss, "logits": logits, "probs": logits.sigmoid(), "norm": norm}


def test_what_a_backbone_makes_of_a_score_before_the_layers_is_warned_of() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        wrap(WithLoss(), output="logit[logits]", example=batch())
    assert [str(one.message)[:40] for one in seen] == [
        "The backbone computes result[loss] (a lo",
        "The backbone computes result[probs] (a l",
    ]
    with pytest.warns(UserWarning, match="before parallel layers are added") as seen:
        wrap(WithLoss(), output=["logit[logits]", "probability[probs]"], example=batch())
    assert "leave it out of output=" in str(seen[-1].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap(WithLoss(), output="logit[logits]", placement={"user": "bottom"}, example=batch())


class Split(InHouse):
    """Two scores of one product, taken apart: neither is made of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(WIDTH, 2)

    def forward(self, batch: dict[str, Tensor]) -> list[Tensor]:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return list(self.heads(e).unbind(1))


def test_parts_of_one_split_do_not_come_of_each_other() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap(Split(), output=["logit[0]", "logit[1]"], example=batch())
        wrap(Split(), output="logit[1]", example=batch())


class Beside(InHouse):
    """Gives the embedding away, and scores something else."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return {"logit": self.deep(torch.ones_like(e)).squeeze(1), "embedding": e}


def test_a_tap_that_the_score_does_not_read_is_refused() -> None:
    with pytest.raises(EnhanceError, match="No gradient of the scores"):
        wrap(Beside(), output="logit[logit]", example=batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training_ids": {"user": ["0", "1"]}}, "None of the 2 training ids .* is among the 20 ids"),
        ({"training_ids": {"user": []}}, "None of the 0 training ids"),
        ({"training_ids": {"users": [1]}}, "level of training_ids 'users' is not known"),
        ({"vocabulary": {"users": [1]}}, "level of vocabulary 'users' is not known"),
        ({"learned": ["users"]}, "level of learned 'users' is not known"),
        ({"knowledge": "store"}, "knowledge is str; allowed: a KnowledgeStore"),
    ],
)
def test_ids_and_levels_that_match_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EnhanceError, match=message):
        wrap(InHouse(), **options)


def test_training_ids_without_vectors_are_no_reason_to_centre_over_others() -> None:
    source = knowledge()
    source["user"][1][:3] = 0
    with pytest.raises(EnhanceError, match=r"None of the 3 training ids .* has a vector"):
        wrap(InHouse(), knowledge=source, training_ids={"user": [0, 1, 2]})
    model = wrap(InHouse(), training_ids={"user": torch.tensor([3, 4])})
    wanted = torch.from_numpy(knowledge()["user"][1][3:5].mean(0))
    torch.testing.assert_close(model.branches["user"].table.mean, wanted)


def test_a_sample_is_drawn_among_training_ids_that_have_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_enhance.wrap.build._SAMPLE", 400)
    monkeypatch.setattr("msr_enhance.wrap.build._BLOCK", 64)
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(2000, DIM)).astype(np.float32)
    vectors[::2] += 10  # what goes by position must not be what is drawn
    few = {"user": (list(range(0, 4000, 2)), vectors), "scenario": knowledge()["scenario"]}
    model = wrap(InHouse(), knowledge=few, vocabulary=EVERYBODY | {"user": list(range(4000))})
    torch.testing.assert_close(model.branches["user"].table.mean, torch.full((DIM,), 5.0), atol=0.9, rtol=0)
    known = {"user": ([1, 3, 5], vectors[:3]), "scenario": knowledge()["scenario"]}
    rare = wrap(InHouse(), knowledge=known, vocabulary=EVERYBODY | {"user": list(range(4000))})
    torch.testing.assert_close(rare.branches["user"].table.mean, torch.from_numpy(vectors[:3].mean(0)))


class Matrix(InHouse):
    """Ids beside measurements in one matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward({"user": x[:, 0].long(), "item": x[:, 1].long()})


def test_columns_that_are_no_ids_are_refused() -> None:
    x = torch.stack([batch()["user"], batch()["item"], batch()["scenario"]], 1).double()
    keys = {"user": "x[:,0]", "scenario": "x[:,2]"}
    model = shake(wrap(Matrix().eval(), keys=keys))
    expected = model(x)
    assert torch.equal(model(x.float()), expected)
    for wrong in (x + torch.tensor([0, 0, 0.5]), x.float() + torch.tensor([2.0**24 + 4, 0, 0])):
        with pytest.raises(EnhanceError, match="allowed: whole numbers up to"):
            model(wrong)


def test_compiled_calls_do_not_take_a_padding_value_for_somebody() -> None:
    model = shake(wrap(InHouse().eval(), vocabulary=EVERYBODY))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    data = batch() | {"user": torch.full((12,), -1)}

    class Padded(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return model.whose.index["user"](values)

    rows = torch.compile(Padded(), fullgraph=True, backend="eager")(torch.tensor([3, -2, -1, 20]))
    assert rows.tolist() == [3, -1, -1, -1]
    assert compiled(batch()).shape == data["user"].shape
    torch._dynamo.reset()


def test_functional_gradients_equal_those_of_autograd() -> None:
    model = shake(wrap(InHouse().eval(), vocabulary=EVERYBODY, placement={"user": "bottom"}))
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, weights, (batch(),)).square().sum()

    found = torch.func.grad(loss)(weights)
    model(batch()).square().sum().backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-5)


def test_newer_knowledge_takes_the_type_of_the_old() -> None:
    model = wrap(InHouse().eval(), unknown={"user": "learned"}).to(torch.bfloat16)
    model.refresh(knowledge(seed=1), vocabulary={"scenario": SCENARIOS})
    table = model.branches["user"].table
    assert (table.rows.dtype, table.stranger.dtype) == (torch.bfloat16, torch.bfloat16)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_tracing_the_live_model_names_freeze() -> None:
    with pytest.raises(EnhanceError, match=r"Export model\.freeze\(\)"):
        torch.jit.trace(wrap(InHouse().eval()), (batch(),), strict=False)


class Three(InHouse):
    def forward(self, user: Tensor, item: Tensor, scenario: Tensor) -> Tensor:
        return super().forward({"user": user, "item": item})


def test_names_of_arguments_are_those_inside_a_wrapper() -> None:
    data = batch()
    inner = shake(wrap(Three().eval(), placement={"user": "bottom"}))
    outer = shake(wrap(inner, tap="backbone.concat", placement={"scenario": "parallel"}))
    assert outer(data["user"], data["item"], data["scenario"]).shape == (12,)
    named = {group["name"]: group for group in outer.parameter_groups(0.1, weight_decay=0.1)}
    listed = [id(weight) for group in named.values() for weight in group["params"]]
    assert sorted(listed) == sorted(id(weight) for weight in outer.parameters())
    inside = {id(weight) for weight in inner.meta.parameters()}
    assert inside <= {id(weight) for weight in named["meta"]["params"]}
    assert not inside & {id(weight) for weight in named["backbone"]["params"]}


def test_unwrapping_one_leaves_the_hook_that_another_needs() -> None:
    backbone = InHouse().eval()
    one, two = wrap(backbone), shake(wrap(backbone))
    one.unwrap()
    assert len(backbone.concat._forward_hooks) == 1
    compiled = torch.compile(two, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch()), two(batch()))
    torch._dynamo.reset()
    two.unwrap()
    assert not backbone.concat._forward_hooks


def test_a_trial_is_not_counted() -> None:
    data = batch() | {"user": torch.full((12,), 19)}
    few = knowledge() | {"user": (list(range(5)), knowledge()["user"][1][:5])}
    model = wrap(InHouse(), knowledge=few, example=data).eval()
    assert model.unknown_counts() == {"scenario": 0, "user": 0}
    model(data)
    assert model.unknown_counts() == {"scenario": 0, "user": 12}


@pytest.mark.parametrize("rank", [None, 32, 8])
def test_factored_layers_of_the_papers_form_start_at_the_full_ones_size(rank: int | None) -> None:
    draw = np.random.default_rng(0)
    wide = (draw.normal(size=(300, 128)) * 0.98 ** np.arange(128)).astype(np.float32)
    source = {"user": (list(range(300)), wide), "scenario": knowledge()["scenario"]}
    model = wrap(InHouse(), knowledge=source, meta=MetaConfig(fidelity="paper", rank=rank, hidden=64))
    branch = model.branches["user"]
    made = branch.generated[0].made(branch.condition(torch.arange(300)))[0]
    assert made.var().item() == pytest.approx(2 / WIDTH, rel=0.2)


def test_errors_of_unknown_users_are_looked_up_errors() -> None:
    with pytest.raises(UnknownIdError, match="no position in a vocabulary of 20"):
        wrap(InHouse().eval(), vocabulary=EVERYBODY)(batch() | {"user": torch.full((12,), -2)})
