"""The report of `enhance(backbone, knowledge, example=batch)`: its suggestion, pasted, works."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import public_models
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo import CASES, NAMED, hooks, shaken
from zoo_case import DIM, SCENARIOS, USER_NAMES, Base, Case, raw, tensors

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.enhance import enhance


def knowledge(named: tuple[str, ...] = ()) -> dict[str, Any]:
    names = {"user": USER_NAMES, "scenario": SCENARIOS}
    ids = {level: names[level] if level in named else list(range(30)) for level in names}
    draw = np.random.default_rng(0)
    return {
        level: (known, draw.normal(size=(len(known), DIM)).astype(np.float32)) for level, known in ids.items()
    }


def reported(backbone: nn.Module, example: Any) -> str:
    with pytest.raises(EnhanceError) as caught:
        enhance(backbone, knowledge(), example=example)
    return str(caught.value)


def suggested(text: str) -> str:
    return re.search(r"enhance\(backbone, .*?example=batch\)", text, re.S)[0]


def pasted(text: str, backbone: nn.Module, example: Any, known: dict[str, Any]) -> Any:
    return eval(
        suggested(text), {"enhance": enhance, "backbone": backbone, "knowledge": known, "batch": example}
    )


def works(case: Case, known: dict[str, Any]) -> str:
    backbone = case.backbone().eval()
    args, kwargs = case.batch()
    backbone(*args, **kwargs)
    before = hooks(backbone)
    plain = tensors(backbone(*args, **kwargs))
    text = reported(backbone, (args, kwargs))
    assert hooks(backbone) == before
    assert all(
        torch.equal(one, two) for one, two in zip(tensors(backbone(*args, **kwargs)), plain, strict=True)
    )
    model = pasted(text, backbone, (args, kwargs), known).eval()
    start = tensors(model(*args, **kwargs))
    assert all(torch.equal(one, two) for one, two in zip(start, plain, strict=True))
    changed = tensors(shaken(model)(*args, **kwargs))
    assert not all(torch.allclose(one, two) for one, two in zip(changed, plain, strict=True))
    return text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_suggestion_works_in_the_zoo(case: Case) -> None:
    if case.named:
        pytest.skip("holds users both as names and as positions; which of them the store knows is not said")
    works(case, knowledge())


@pytest.mark.parametrize("case", public_models.CASES, ids=lambda case: case.name)
def test_the_suggestion_for_a_public_model_is_what_a_reader_of_its_code_would_tap(case: Case) -> None:
    text = works(case, knowledge())
    output = re.findall(r'"((?:logit|probability)[^"]*)"', suggested(text))
    if case.name == "ESMM":  # the third column is the product of the others
        assert output == ["probability[:,0]", "probability[:,1]"]
    else:
        assert output == ([case.output] if isinstance(case.output, str) else list(case.output))
    assert 'keys={"user": "x[user_id]", "scenario": "x[domain]"}' in text
    if case.name == "ESMM":
        assert "No tap is passed by all embeddings" in text
        assert 'tap="tower_cvr:input"' in text or 'tap="tower_ctr:input"' in text
    else:
        assert f'tap="{case.tap}"' in text


SAME = [
    "a dict",
    "per field",
    "the network's input",
    "an embedding bag",
    "names with dots",
    "a table without a module",
]


@pytest.mark.parametrize(
    "name", [*SAME, "sparse embeddings", "an embedding under no_grad", "tied weights", "batch norm"]
)
def test_the_suggestion_is_where_all_embeddings_pass(name: str) -> None:
    case = NAMED[name]
    text = works(case, knowledge())
    assert f'tap="{case.tap}"' in text
    if name != "a table without a module":
        assert re.search(rf"  {re.escape(case.tap)} +\S+ \[12, .*<- all embeddings pass here", text)


def test_taps_are_listed_with_shapes_and_keys_as_they_are_written() -> None:
    case = NAMED["nested dicts"]
    text = reported(case.backbone(), case.batch())
    for line in (r"users +float32 \[12, 3\]", r"concat +float32 \[12, 6\]", r"deep.2 +float32 \[12, 1\]"):
        assert re.search(rf"^  {line}", text, re.M), text
    assert '"features[ids][user]"' in text
    assert '"meta[where][scenario]"' in text
    assert "features[ids][dense]" not in text
    assert "It returned float32 [12]." in text


class Shared(Base):
    """Two layers read the embedding: the input of one of them is not the way of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(6, 1)

    def forward(self, data: Any) -> Tensor:
        e = torch.cat([self.users(data["user"]), self.items(data["item"])], 1)
        return (self.deep(e) + self.wide(e)).squeeze(1)


def test_the_input_of_one_of_two_readers_is_not_called_the_way_of_all() -> None:
    text = reported(Shared(), raw())
    assert "all embeddings pass here" not in text
    assert "No tap is passed by all embeddings" in text


class Checkpointed(Base):
    reentrant = False

    def forward(self, data: Any) -> Tensor:
        return checkpoint(super().forward, data, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True

    def forward(self, data: Any) -> Tensor:
        e = torch.cat([self.users(data["user"]), self.items(data["item"])], 1)
        return checkpoint(self.deep, e, use_reentrant=True).squeeze(1)


def test_places_inside_checkpointing_are_not_suggested() -> None:
    text = reported(Checkpointed(), raw())
    assert "inside activation checkpointing, and so no tap: users" in text
    assert 'tap="concat"' not in text
    text = reported(Reentrant(), raw())
    assert re.search(r"inside activation checkpointing, and so no tap: .*deep.0:input", text)


class Often(Base):
    def forward(self, data: Any) -> Tensor:
        return self.deep(self.embed(data)).squeeze(1) + self.deep(self.embed(data) + 1).squeeze(1)


def test_places_that_are_passed_twice_are_named_and_not_suggested() -> None:
    text = reported(Often(), raw())
    assert re.search(r"called more than once, and so no tap: .*concat", text)
    assert 'tap="NAME"' in text


def test_a_guess_from_values_says_so() -> None:
    data = {"a": raw()["user"], "b": raw()["item"], "c": raw()["scenario"]}

    class Unnamed(Base):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return super().forward({"user": a, "item": b})

    text = reported(Unnamed(), data)
    assert 'keys={"user": "a", "scenario": "c"}' in text
    assert "The keys of user and scenario are a guess from values, not from names: check them." in text


def test_the_report_leaves_random_numbers_modes_and_buffers_alone() -> None:
    case = NAMED["buffers that move"]
    backbone, state = case.backbone().train(), torch.get_rng_state()
    frozen = backbone.users.weight.requires_grad_(False)
    reported(backbone, case.batch())
    assert torch.equal(torch.get_rng_state(), state)
    assert int(backbone.calls) == 0
    assert backbone.training
    assert not frozen.requires_grad
    assert all(weight.grad is None for weight in backbone.parameters())
