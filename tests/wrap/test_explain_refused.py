"""`explain()` leaves the model as it was, and says by name what it cannot explain."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from in_house import SCENARIOS, USERS, InHouse, batch, knowledge, shake, wrap
from torch import nn
from zoo import NAMED, PARALLEL

from msr_enhance import explain
from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.bars import drawn
from msr_enhance.wrap.enhance import enhance
from msr_enhance.wrap.explain import Part

ROWS = batch()


def everything(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [part.training for part in model.modules()],
        "state": copy.deepcopy(model.state_dict()),
        "counts": model.unknown_counts(),
        "random": torch.get_rng_state(),
        "gradients": [weight.grad is None or weight.grad.clone() for weight in model.parameters()],
        "wanted": [weight.requires_grad for weight in model.parameters()],
        "enabled": torch.is_grad_enabled(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("breaks", [False, True])
def test_the_model_is_as_it_was(breaks: bool) -> None:
    """A model in training, half of it in eval mode, that has met strangers; also after an error."""
    inner = wrap(
        InHouse(),
        knowledge=knowledge(users=5),
        vocabulary={"user": list(range(USERS)), "scenario": SCENARIOS},
    )
    model = enhance(
        inner, knowledge(), tap="backbone.deep:input", keys={"user": "user", "scenario": "scenario"},
        vocabulary={"scenario": SCENARIOS}, width=6,
    )  # fmt: skip
    shake(model)
    model.train()
    inner.deep[1].eval()
    model.meta["user"].layers[0].weight.requires_grad_(False)
    nn.functional.binary_cross_entropy_with_logits(model(ROWS), torch.arange(12) % 2.0).backward()
    assert inner.unknown_counts()["user"] > 0
    before, counts = everything(model), inner.unknown_counts()
    assert same(before, everything(model))
    if breaks:
        with pytest.raises(EnhanceError, match=r"row is 12 in a batch of 12 rows; allowed: 0 to 11"):
            explain(model, ROWS, row=12)
    else:
        explain(model, ROWS | {"user": torch.full((12,), USERS - 1)}, row=1)
    assert same(before, everything(model))
    assert inner.unknown_counts() == counts


def test_no_graph_is_made_and_none_is_lost() -> None:
    model = shake(wrap(InHouse()))
    result = model(ROWS)
    explain(model, ROWS, row=0)
    result.sum().backward()
    assert model.backbone.users.weight.grad is not None
    with torch.inference_mode():
        again = explain(model, ROWS, row=0)
    assert again == explain(model, ROWS, row=0)


def test_it_is_explained_as_enhanced_inside_disabled() -> None:
    model = shake(wrap(InHouse()))
    with model.disabled():
        found = explain(model, ROWS, row=0)
    assert found == explain(model, ROWS, row=0)
    assert found.logit != found.parts[0].logit


# Numbers at the edge, and what is refused


class Fixed(InHouse):
    """Returns what it is told."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        super().forward(batch)
        return batch["told"]


def told(value: float, output: str) -> Any:
    model = shake(wrap(Fixed().eval(), output=output, placement=PARALLEL))
    return explain(model, ROWS | {"told": torch.full((12,), value)}, row=0)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 0.5])
def test_a_saturated_probability_has_a_finite_logit(value: float) -> None:
    found = told(value, "probability")
    assert np.isfinite([part.logit for part in found.parts]).all()
    assert sum(part.logit for part in found.parts) == pytest.approx(found.logit, abs=1e-9)
    assert 0 <= found.probability <= 1
    # The nearest float32 to 1 is 2**-24 below it, and the smallest one with all its digits is 2**-126.
    nearest = {0.0: -126 * np.log(2), 1.0: np.log(2.0**24 - 1), 1e-30: np.log(1e-30), 0.5: 0.0}
    assert found.parts[0].logit == pytest.approx(nearest[value], abs=1e-6)


@pytest.mark.parametrize(
    ("value", "output", "message"),
    [
        (float("nan"), "logit", r"logit of row 0 is nan; allowed: finite numbers"),
        (float("inf"), "logit", r"logit of row 0 is inf"),
        (1.7, "probability", r"probability of row 0 is 1.7; allowed: 0 to 1.*output="),
        (float("nan"), "probability", r"probability of row 0 is nan"),
    ],
)
def test_a_score_that_is_none_is_refused(value: float, output: str, message: str) -> None:
    with pytest.raises(EnhanceError, match=message):
        told(value, output)


@pytest.mark.parametrize("row", [-1, 12, True, 1.0, "0", None])
def test_a_row_that_is_not_there(row: Any) -> None:
    with pytest.raises(EnhanceError, match=r"in a batch of 12 rows; allowed: 0 to 11"):
        explain(wrap(InHouse()), ROWS, row=row)


def test_numpys_integers_are_rows() -> None:
    model = wrap(InHouse())
    assert explain(model, ROWS, row=np.int64(3)) == explain(model, ROWS, row=3)


def test_what_is_no_enhanced_model() -> None:
    model = wrap(InHouse()).eval()
    for other in (model.backbone, model.freeze(), None):
        with pytest.raises(EnhanceError, match=r"allowed: an enhanced model, as enhance\(\) made it"):
            explain(other, ROWS, row=0)


def test_a_task_by_numpys_number_and_what_is_none() -> None:
    model = wrap(InHouse())
    assert explain(model, ROWS, row=0, task=np.int64(0)) == explain(model, ROWS, row=0)  # type: ignore[arg-type]
    for wrong in (-1, 1, True, 0.0, np.True_, np.int64(1)):
        with pytest.raises(EnhanceError, match=r"task '.*' is not known; allowed: "):
            explain(model, ROWS, row=0, task=wrong)  # type: ignore[arg-type]


def test_bars_of_numbers_at_the_end_of_their_type() -> None:
    lines = drawn([Part("backbone", 1.7e308), Part("user", -0.7e308)], 1.0e308, 1.0).splitlines()
    assert lines[1].endswith("|" + "+" * 16)
    assert lines[2].endswith("-" * 7 + "|")


def test_a_result_that_is_no_score_names_what_to_write() -> None:
    """User layers alone need no output; an explanation does."""
    case = NAMED["a member of a dict in a dict"]
    model = case.enhanced(case.backbone().eval(), placement={"user": "bottom"}, output="logit").eval()
    args, kwargs = case.batch()
    with pytest.raises(EnhanceError, match=r"Write output='logit\[MEMBER\]'"):
        explain(model, *args, row=0, **kwargs)
