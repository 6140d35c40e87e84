"""What the report of `enhance(example=...)` says of scores: their kind, and which follow from others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_report import knowledge, pasted, reported, suggested
from torch import Tensor, nn
from zoo_case import Base, raw

Make = Callable[[Tensor], Any]
sigmoid = torch.sigmoid


class Scored(Base):
    """Four linear outputs of a row, from which a case makes what it likes."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep[2], self.make = nn.Linear(8, 4), make

    def forward(self, data: Any) -> Any:
        return self.make(3 * self.deep(self.embed(data)))


def told(make: Make) -> tuple[str, list[str]]:
    """The report, and its outputs; the suggestion is tried where it holds one."""
    backbone, data = Scored(make).eval(), raw()
    text = reported(backbone, data)
    if 'output="NAME"' not in text:
        with warnings.catch_warnings():
            # What the report says of members that follow from others, said once more.
            warnings.filterwarnings("ignore", "The backbone computes result", UserWarning)
            pasted(text, backbone, data, knowledge())(data)
    found = re.search(r"output=(.*), example=batch\)", suggested(text))
    assert found is not None
    written = eval(found[1])
    return text, [written] if isinstance(written, str) else written


def product(clicked: Tensor, bought: Tensor) -> Any:
    return {"ctr": clicked, "cvr": bought, "ctcvr": clicked * bought}


DERIVED: list[tuple[str, Make, list[str], str]] = [
    (
        "a product",
        lambda z: product(sigmoid(z[:, 0]), sigmoid(z[:, 1])),
        ["probability[ctr]", "probability[cvr]"],
        "Its [ctcvr] is computed from [ctr] and [cvr] alone",
    ),
    (
        "a product of columns",
        lambda z: tuple(one.squeeze(1) for one in product(sigmoid(z[:, :1]), sigmoid(z[:, 1:2])).values()),
        ["probability[0]", "probability[1]"],
        "Its [2] is computed from [0] and [1] alone",
    ),
    (
        "a product in one matrix",
        lambda z: torch.stack([*product(sigmoid(z)[:, 0], sigmoid(z)[:, 1]).values()], 1),
        ["probability[:,0]", "probability[:,1]"],
        "Its [:,2] is computed from [:,0] and [:,1] alone",
    ),
    (
        "selected twice",
        lambda z: (lambda p: [p[:, 0], p[:, 1], p[:, 0] * p[:, 1]])(sigmoid(z)),
        ["probability[0]", "probability[1]"],
        "Its [2] is computed from [0] and [1] alone",
    ),
    (
        "logit and probability",
        lambda z: {"logits": z[:, :1], "probs": sigmoid(z[:, :1])[:, 0]},
        ["logit[logits]"],
        "Its [probs] is computed from [logits] alone",
    ),
    (
        "probability and logit",
        lambda z: (lambda one: {"probs": sigmoid(one), "logits": one})(z[:, 0]),
        ["logit[logits]"],
        "Its [probs] is computed from [logits] alone",
    ),
    (
        "wide ones",
        lambda z: {"probs": sigmoid(z), "logits": z},
        ["logit[logits]"],
        "Its [probs] is computed from [logits] alone",
    ),
    (
        "the same twice",
        lambda z: (lambda one: {"a": one, "b": one.view(-1, 1)})(z[:, 0]),
        ["logit[a]"],
        "Its [b] is computed from [a] alone",
    ),
    (
        "partly",
        lambda z: (lambda p: {"ctr": p[:, 0], "ctcvr": p[:, 0] * sigmoid(z[:, 1] * 2)})(sigmoid(z)),
        ["probability[ctr]", "probability[ctcvr]"],
        "Its [ctcvr] is computed from [ctr] and more, and stays a task of its own",
    ),
    (
        "terms of a sum",
        lambda z: (lambda w, d: {"wide": w, "deep": d, "logit": w + d})(z[:, 0], z[:, 1]),
        ["logit[logit]"],
        "Its [wide] and [deep] are terms of a sum",
    ),
    (
        "a difference of two",
        lambda z: (lambda a, b: {"good": a, "bad": b, "margin": a - b})(z[:, 0], z[:, 1]),
        ["logit[good]", "logit[bad]"],
        "Its [margin] is computed from [good] and [bad] alone",
    ),
    ("two of one", lambda z: list(z[:, :2].unbind(1)), ["logit[0]", "logit[1]"], ""),
    ("a constant column", lambda z: torch.cat([z[:, :1], z.new_zeros(len(z), 1)], 1), ["logit[:,0]"], ""),
]


@pytest.mark.parametrize(
    ("make", "outputs", "note"), [row[1:] for row in DERIVED], ids=[r[0] for r in DERIVED]
)
def test_what_is_computed_from_other_members_is_named_and_no_task(
    make: Make, outputs: list[str], note: str
) -> None:
    text, written = told(make)
    assert written == outputs
    assert note in text
    if not note:
        assert "computed from" not in text


CLASSES: list[tuple[str, Make, list[str], str]] = [
    ("two", lambda z: z[:, :2].softmax(1), ["probability[:,1]"], "a softmax over classes"),
    ("two members", lambda z: z[:, :2].softmax(1).unbind(1), ["probability[1]"], "a softmax over classes"),
    ("many", lambda z: z.softmax(1), ["NAME"], "a softmax over classes"),
    ("logarithms", lambda z: z.log_softmax(1), ["NAME"], "a log_softmax over classes"),
]


@pytest.mark.parametrize(
    ("make", "outputs", "note"), [row[1:] for row in CLASSES], ids=[r[0] for r in CLASSES]
)
def test_classes_that_sum_to_one_are_not_mixed_one_by_one(make: Make, outputs: list[str], note: str) -> None:
    text, written = told(make)
    assert written == outputs
    assert note in text
    assert "cannot be mixed one by one. Return the numbers before it with output='logit'" in text


def calibrated(p: Tensor) -> Tensor:
    return p / (p + (1 - p) / 0.1)


PROBABILITIES: dict[str, Make] = {
    "gated experts": lambda z: (z[:, :2].softmax(1) * sigmoid(z[:, 2:])).sum(1),
    "a mean": lambda z: sigmoid(z).mean(1),
    "the other": lambda z: 1 - sigmoid(z[:, 0]),
    "gathered": lambda z: sigmoid(z).gather(1, torch.zeros(len(z), 1, dtype=torch.int64)),
    "indexed": lambda z: sigmoid(z)[torch.arange(len(z)), 0],
    "chosen": lambda z: torch.where(z[:, 0] > 0, sigmoid(z[:, 1]), sigmoid(z[:, 2])),
    "calibrated": lambda z: calibrated(sigmoid(z[:, 0])),
    "hard": lambda z: nn.functional.hardsigmoid(z[:, 0]),
    "by tanh": lambda z: (1 + z[:, 0].tanh()) / 2,
    "by einsum": lambda z: torch.einsum("bi,bi->b", z[:, :2].softmax(1), sigmoid(z[:, 2:])),
    "by a clamp": lambda z: z[:, 0].clamp(0, 1),
    "by a ratio": lambda z: 0.5 + 0.5 * z[:, 0] / (1 + z[:, 0].abs()),
    "an interval": lambda z: sigmoid(z[:, 0]).clamp(1e-6, 1 - 1e-6),
}
SURE = ("a mean", "gathered", "indexed", "chosen", "hard", "an interval")
LOGITS: dict[str, Make] = {
    "linear": lambda z: z[:, 0],
    "scaled": lambda z: z[:, 0] / 2 + 0.3,
    "summed": lambda z: z.sum(1),
    "kept in bounds": lambda z: z[:, 0].clamp(-15, 15),
    "gated": lambda z: (z[:, :2].softmax(1) * z[:, 2:]).sum(1),
    "a small one": lambda z: z[:, 0] * 1e-3 + 0.5,
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_are_known_however_they_are_made(name: str) -> None:
    text, written = told(PROBABILITIES[name])
    assert written == ["probability"]
    assert ("That it is a probability is a guess from the values" in text) == (name not in SURE)


@pytest.mark.parametrize("name", LOGITS)
def test_what_comes_from_a_linear_layer_is_a_logit_whatever_its_values(name: str) -> None:
    text, written = told(LOGITS[name])
    assert written == ["logit"]
    assert "guess from the values" not in text


def test_a_product_of_embeddings_is_a_logit_by_its_values_and_a_guess() -> None:
    class Dot(Base):
        def forward(self, data: Any) -> Tensor:
            return (self.users(data["user"]) * self.items(data["item"])).sum(1)

    text = reported(Dot(), raw())
    assert 'output="logit"' in text
    assert "That it is a logit is a guess from the values" in text


def test_an_output_that_cannot_be_written_is_named() -> None:
    text, written = told(lambda z: {("a", 1): z[:, 0], 'say "b': z[:, 1]})
    assert written == ['logit[say "b]']
    assert "Its [('a', 1)]" in text
    assert "cannot be written as output" in text


def test_a_vector_is_one_guess_not_one_for_each_number() -> None:
    text, written = told(lambda z: nn.functional.normalize(z.repeat(1, 5)))
    assert written == ["logit"]
    assert text.count("is a guess from the values") == 1


def test_one_row_without_dimensions_is_a_guess() -> None:
    class One(Base):
        def forward(self, data: Any) -> Tensor:
            return sigmoid(super().forward(data)).squeeze()

    assert "That it is a logit is a guess" in reported(One(), raw(1))
