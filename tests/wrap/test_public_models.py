"""The promises of `enhance()` over the published models of torch-rechub, which know nothing of us."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from public_models import CASES
from torch import nn
from zoo import BOTTOM, PARALLEL, hooks, shaken
from zoo_case import Case, raw

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def run(model: nn.Module, case: Case, rows: int = 12, seed: int = 0) -> torch.Tensor:
    args, kwargs = case.batch(rows, seed)
    return model(*args, **kwargs)


@every
@pytest.mark.parametrize("placement", [None, PARALLEL, BOTTOM], ids=["default", "parallel", "bottom"])
def test_it_starts_as_the_plain_model_and_then_differs(case: Case, placement: Any) -> None:
    backbone = case.backbone().eval()
    plain, keys, found = run(backbone, case), list(backbone.state_dict()), hooks(backbone)
    model = case.enhanced(backbone, placement=placement).eval()
    assert torch.equal(run(model, case), plain)
    changed = run(shaken(model), case)
    assert changed.shape == plain.shape
    assert not torch.allclose(changed, plain)
    with model.disabled():
        assert torch.equal(run(model, case), plain)
    assert list(backbone.state_dict()) == keys
    assert {f"backbone.{key}" for key in keys} == {k for k in model.state_dict() if k.startswith("backbone.")}
    assert model.unwrap() is backbone
    assert hooks(backbone) == found
    assert torch.equal(run(backbone, case), plain)


@every
def test_gradients_reach_the_generated_layers_and_all_that_learned_before(case: Case) -> None:
    model = shaken(case.enhanced())
    with model.disabled():
        run(model, case, 64).square().sum().backward()
    learned = {name for name, weight in model.named_parameters() if _moves(weight)}
    model.zero_grad()
    run(model, case, 64).square().sum().backward()
    assert learned <= {name for name, weight in model.named_parameters() if _moves(weight)}
    assert all(_moves(weight) for weight in model.meta.parameters())


def _moves(weight: nn.Parameter) -> bool:
    return weight.grad is not None and bool(weight.grad.ne(0).any())


@every
def test_copies_states_and_rows_stay_what_they_are(case: Case) -> None:
    model = shaken(case.enhanced().eval())
    expected = run(model, case)
    assert torch.equal(run(copy.deepcopy(model), case), expected)
    other = case.enhanced(seed=4).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(run(other, case), expected)
    args, kwargs = case.call({name: value[:5] for name, value in raw().items()})
    torch.testing.assert_close(model(*args, **kwargs), expected[:5], rtol=1e-4, atol=1e-5)


@every
def test_it_learns(case: Case) -> None:
    model = case.enhanced().train()
    optimizer = torch.optim.Adam(model.parameter_groups(0.02))
    labels = (torch.arange(64) % 2).float()
    losses = []
    for _ in range(12):
        scores = run(model, case, 64).reshape(64, -1)[:, 0]
        loss = nn.functional.binary_cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0] - 0.02
