"""Odd things for a backbone to do inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from zoo_case import ITEMS, USERS, Base, Case


class InPlace(Base):
    def embed(self, data: Any) -> Tensor:
        e = super().embed(data)
        e += 1
        return e.relu_()


class InPlaceParts(Base):
    """Changes the parts of a tapped tuple in place."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def embed(self, data: Any) -> Tensor:
        left, right = self.pair(self.users(data["user"]), self.items(data["item"]))
        left.mul_(2)
        return torch.cat([left, right.add_(1)], 1)


class Pair(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return left * 1, right * 1


class OwnHooks(Base):
    """Has a hook before ours and behind ours."""

    def __init__(self) -> None:
        super().__init__()
        self.concat.register_forward_hook(lambda module, args, result: result * 2)
        self.deep.register_forward_pre_hook(lambda module, args: (args[0] + 1,))


class Tied(Base):
    """One table for both."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(USERS, 3)
        self.items = self.users
        self.deep[2].weight = nn.Parameter(self.deep[0].weight[:, :1].detach().t().clone())
        self.twin = nn.Linear(6, 8)
        self.twin.weight = self.deep[0].weight

    def forward(self, data: Any) -> Tensor:
        e = self.embed(data)
        return self.deep(e).squeeze(1) + self.twin(e).mean(1)


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(USERS + ITEMS, 6, mode="sum")
        self.deep = nn.Linear(6, 1)

    def forward(self, data: Any) -> Tensor:
        return self.deep(self.bag(torch.stack([data["user"], data["item"] + USERS], 1))).squeeze(1)


class Sparse(Base):
    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(USERS, 3, sparse=True)
        self.items = nn.Embedding(ITEMS, 3, sparse=True)


class Normed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.BatchNorm1d(6), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        )


class Frozen(Base):
    """Its embedding is run under no_grad: a pretrained one."""

    def embed(self, data: Any) -> Tensor:
        with torch.no_grad():
            return super().embed(data)


class Lazy(Base):
    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1))


class Parametrized(Base):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.deep[0])
        parametrizations.spectral_norm(self.deep[2])


class Comfortable(Base):
    """Has things that its users call: a method, a property, a class attribute, a list."""

    scale = 3

    def __init__(self) -> None:
        super().__init__()
        self.history: list[int] = []

    @property
    def tables(self) -> list[nn.Embedding]:
        return [self.users, self.items]

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(scores, labels)


class Counting(Base):
    """A buffer that moves with every call, and one that is not saved."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.full((6,), 2.0), persistent=False)

    def embed(self, data: Any) -> Tensor:
        self.calls += 1
        return super().embed(data) * self.scale


class MixedTypes(Base):
    """Embeddings in half of the bits; the network in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = self.users.bfloat16(), self.items.bfloat16()

    def forward(self, data: Any) -> Tensor:
        return self.deep(self.embed(data).to(self.deep[0].weight.dtype)).squeeze(1)


class OwnCall(Base):
    """Overrides `__call__`: unpacks before, packs after."""

    def __call__(self, data: Any, *more: Any) -> Any:
        return super().__call__({name: value.clone() for name, value in data.items()}, *more)


class RawTable(nn.Module):
    """No nn.Embedding: parameters, indexed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(USERS, 6))
        self.norm, self.head = nn.LayerNorm(6), nn.Parameter(torch.randn(6))

    def forward(self, data: Any) -> Tensor:
        return self.norm(self.table[data["user"]]) @ self.head


CASES = [
    Case("in place after the tap", InPlace),
    Case("in place after a tapped tuple", InPlaceParts, tap="pair"),
    Case("hooks of its own", OwnHooks),
    Case("hooks of its own at the input", OwnHooks, tap="deep:input"),
    Case("tied weights", Tied),
    Case("an embedding bag", Bags, tap="bag", half=False),
    Case("sparse embeddings", Sparse),
    Case("batch norm", Normed),
    Case("an embedding under no_grad", Frozen),
    Case("lazy layers", Lazy),
    Case("parametrized weights", Parametrized, half=False),
    Case("methods that users call", Comfortable),
    Case("buffers that move", Counting),
    Case("mixed types", MixedTypes),
    Case("a __call__ of its own", OwnCall),
    Case("a table without a module", RawTable, tap="norm:input", half=False),
]
