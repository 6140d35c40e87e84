"""Odd ways to be given a batch, and where the keys are then."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor
from zoo_case import SCENARIOS, USER_NAMES, Base, Case


class Positional(Base):
    def forward(self, user: Tensor, item: Tensor, scenario: Tensor | None = None) -> Tensor:
        return super().forward({"user": user, "item": item})


class KeywordOnly(Base):
    def forward(self, *, user: Tensor, item: Tensor, scenario: Tensor) -> Tensor:
        return super().forward({"user": user, "item": item})


class Anything(Base):
    def forward(self, *inputs: Tensor, **more: Tensor) -> Tensor:
        return super().forward({"user": inputs[0], "item": inputs[1]})


@dataclasses.dataclass(frozen=True)
class Record:
    user: Tensor
    item: Tensor
    scenario: Tensor


class Fields(NamedTuple):
    user: Tensor
    item: Tensor
    scenario: Tensor


class OfAttributes(Base):
    def forward(self, row: Any, weight: float = 1.0) -> Tensor:
        return super().forward({"user": row.user, "item": row.item}) * weight


class Plain:
    """A batch class of a house of its own: attributes, and nothing else is known of it."""

    def __init__(self, data: dict[str, Tensor]) -> None:
        self.user, self.item, self.scenario = data["user"], data["item"], data["scenario"]


class Nested(Base):
    def forward(self, features: Any, meta: Any = None) -> Tensor:
        return super().forward({"user": features["ids"]["user"], "item": features["ids"]["item"]})


class Matrix(Base):
    """One matrix of floats, ids among them (DeepCTR's way)."""

    def forward(self, X: Tensor) -> Tensor:
        return super().forward({"user": X[:, 0].long(), "item": X[:, 1].long()})


class Pair(Base):
    """One tuple of tensors (a TensorDataset's way)."""

    def forward(self, batch: tuple[Tensor, ...]) -> Tensor:
        return super().forward({"user": batch[0], "item": batch[1]})


class WholeMatrix(Base):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward({"user": ids[:, 0], "item": ids[:, 1]})


def matrix(data: dict[str, Tensor]) -> Tensor:
    columns = [data["user"].float(), data["item"].float(), data["scenario"].float()]
    return torch.cat([torch.stack(columns, 1), data["dense"]], 1)


def with_names(data: dict[str, Tensor]) -> dict[str, Any]:
    users = [USER_NAMES[row] for row in data["user"].tolist()]
    return data | {"uid": users, "place": [SCENARIOS[row] for row in data["scenario"].tolist()]}


def columned(data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:, None] if value.dim() == 1 else value for name, value in data.items()}


class Columns(Base):
    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return super().forward({name: value.flatten() for name, value in data.items()})


def case(
    name: str, make: Any, call: Any, user: Any = "user", scenario: Any = "scenario", **more: Any
) -> Case:
    return Case(name, make, call, keys={"user": user, "scenario": scenario}, **more)


CASES = [
    Case("a dict", Base),
    case("positional arguments", Positional, lambda d: ((d["user"], d["item"], d["scenario"]), {})),
    case(
        "positional arguments by number",
        Positional,
        lambda d: ((d["user"], d["item"], d["scenario"]), {}),
        0,
        2,
    ),
    case(
        "positional and keyword",
        Positional,
        lambda d: ((d["user"],), {"item": d["item"], "scenario": d["scenario"]}),
    ),
    case(
        "keyword only",
        KeywordOnly,
        lambda d: ((), {"user": d["user"], "item": d["item"], "scenario": d["scenario"]}),
    ),
    case(
        "arguments without names",
        Anything,
        lambda d: ((d["user"], d["item"]), {"scenario": d["scenario"]}),
        0,
    ),
    case("a dataclass", OfAttributes, lambda d: ((Record(d["user"], d["item"], d["scenario"]), 0.5), {})),
    case("a named tuple", OfAttributes, lambda d: ((Fields(d["user"], d["item"], d["scenario"]),), {})),
    case("an object with attributes", OfAttributes, lambda d: ((Plain(d),), {})),
    case(
        "nested dicts",
        Nested,
        lambda d: (({"ids": d}, {"where": {"scenario": d["scenario"]}}), {}),
        "features[ids][user]",
        "meta[where][scenario]",
    ),
    case("a matrix of floats", Matrix, lambda d: ((matrix(d),), {}), "X[:,0]", "X[:,2]"),
    case(
        "a matrix of ids",
        WholeMatrix,
        lambda d: ((torch.stack([d["user"], d["item"], d["scenario"]], 1),), {}),
        "ids[:,0]",
        "ids[:,-1]",
    ),
    case("a tuple", Pair, lambda d: (((d["user"], d["item"], d["scenario"]),), {}), "batch[0]", "batch[2]"),
    case(
        "keys that are names",
        Base,
        lambda d: ((with_names(d),), {}),
        "uid",
        "data[place]",
        named=("user", "scenario"),
        compiles=False,
    ),
    case(
        "keys by a function",
        Base,
        lambda d: ((d,), {}),
        lambda data: data["user"],
        lambda data: data["scenario"],
    ),
    case("keys in a column", Columns, lambda d: ((columned(d),), {})),
]
