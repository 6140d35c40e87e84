"""Odd things for a backbone to return."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from zoo_case import Base, Case


class Column(Base):
    def forward(self, data: Any) -> Tensor:
        return self.deep(self.embed(data))


class Probability(Base):
    def forward(self, data: Any) -> Tensor:
        return torch.sigmoid(super().forward(data))


class Squeezed(Base):
    """Of one row it returns no dimension at all."""

    def forward(self, data: Any) -> Tensor:
        return self.deep(self.embed(data)).squeeze()


class WithHidden(Base):
    def forward(self, data: Any) -> Any:
        e = self.embed(data)
        return self.deep(e).squeeze(1), e, None


class Named(NamedTuple):
    hidden: Tensor
    score: Tensor


class NamedTupled(Base):
    def forward(self, data: Any) -> Named:
        return Named(data["dense"] * 2, super().forward(data))


class Dicted(Base):
    def forward(self, data: Any) -> Any:
        return {"loss": None, "out": {"pctr": torch.sigmoid(super().forward(data))}}


@dataclasses.dataclass
class Result:
    score: Tensor
    rows: int


class Recorded(Base):
    def forward(self, data: Any) -> Result:
        return Result(super().forward(data), len(data["user"]))


class ModelOutput(OrderedDict[str, Any]):
    """As transformers': members by name, by attribute and by number."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


class Ordered(Base):
    def forward(self, data: Any) -> ModelOutput:
        return ModelOutput(logits=super().forward(data), aux=data["item"])


class Tasks(Base):
    """Several tasks `[batch, tasks]`."""

    def __init__(self) -> None:
        super().__init__()
        self.deep[2] = nn.Linear(8, 3)

    def forward(self, data: Any) -> Any:
        return self.deep(self.embed(data))


class TaskProbabilities(Tasks):
    def forward(self, data: Any) -> Tensor:
        return torch.sigmoid(super().forward(data))


class TaskDict(Tasks):
    """A logit and a probability, of other shapes, and a side result."""

    def forward(self, data: Any) -> Any:
        out = super().forward(data)
        return {"click": torch.sigmoid(out[:, 0]), "time": out[:, 1:2], "aux": out[:, 2].detach() * 0}


class TaskList(Tasks):
    def forward(self, data: Any) -> Any:
        return [torch.sigmoid(one) for one in super().forward(data).split(1, dim=1)]


class MixedColumns(Tasks):
    """One matrix: the first column a probability, the others not (torch-rechub's regression tasks)."""

    def forward(self, data: Any) -> Tensor:
        out = super().forward(data)
        return torch.cat([torch.sigmoid(out[:, :1]), out[:, 1:]], 1)


CASES = [
    Case("a column", Column),
    Case("a probability", Probability, output="probability"),
    Case("squeezed", Squeezed),
    Case("a member of a tuple", WithHidden, output="logit[0]"),
    Case("a member of a named tuple", NamedTupled, output="logit[score]"),
    Case("a member of a dict in a dict", Dicted, output="probability[out][pctr]"),
    Case("a member of a dataclass", Recorded, output="logit[score]"),
    Case("a model output", Ordered, output="logit[logits]"),
    Case("several tasks", Tasks),
    Case("several probabilities", TaskProbabilities, output="probability"),
    Case("a dict of tasks", TaskDict, output=("probability[click]", "logit[time]")),
    Case("a list of tasks", TaskList, output=("probability[0]", "probability[1]", "probability[2]")),
    Case("mixed columns", MixedColumns, output=("probability[:,0]", "logit[:,1]", "logit[:,-1]")),
]
