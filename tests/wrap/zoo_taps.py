"""Odd places for an embedding to be, and odd forms for it to have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from zoo_case import DENSE, ITEMS, USERS, Base, Case


class PerField(Base):
    """`[batch, fields, dim]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = Stack()

    def forward(self, data: Any) -> Tensor:
        return self.deep(self.stack(self.users(data["user"]), self.items(data["item"])).flatten(1)).squeeze(1)


class Stack(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.stack(parts, 1)


class Lookup(nn.Module):
    """Embeddings by name, with something in between that is none."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.users, self.items = nn.Embedding(USERS, 3), nn.Embedding(ITEMS, 3)

    def forward(self, data: Any) -> Any:
        user, item = self.users(data["user"]), self.items(data["item"])
        if self.kind == "dict":
            return {"user": user, "ids": data["user"], "item": item}
        if self.kind == "keyed":
            return KeyedTensor(["user", "item"], [3, 3], torch.cat([user, item], 1))
        return (user, item) if self.kind == "tuple" else [user, item, None]


class KeyedTensor:
    """As torchrec's: what it has, and nothing more."""

    def __init__(self, keys: list[str], length_per_key: list[int], values: Tensor) -> None:
        self._keys, self._lengths, self._values = keys, length_per_key, values

    def keys(self) -> list[str]:
        return self._keys

    def values(self) -> Tensor:
        return self._values

    def length_per_key(self) -> list[int]:
        return self._lengths


class Several(Base):
    """The embedding comes out of one module as several tensors."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        del self.users, self.items, self.concat
        self.lookup = Lookup(kind)

    def forward(self, data: Any) -> Tensor:
        found = self.lookup(data)
        if isinstance(found, dict):
            found = [found["user"], found["item"]]
        parts = [found.values()] if isinstance(found, KeyedTensor) else list(found)
        return self.deep(torch.cat(parts[:2], 1)).squeeze(1)


class NoConcat(Base):
    """Nothing but the network's input holds the whole embedding."""

    def embed(self, data: Any) -> Tensor:
        return torch.cat([self.users(data["user"]), self.items(data["item"])], 1)


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6 + DENSE, 1)

    def forward(self, left: Tensor, right: Tensor, *, dense: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(torch.cat([left * scale, right, dense], 1)).squeeze(1)


class ManyArguments(Base):
    """The network takes several tensors, by place and by name."""

    def __init__(self) -> None:
        super().__init__()
        del self.deep
        self.cross = Cross()

    def forward(self, data: Any) -> Tensor:
        return self.cross(self.users(data["user"]), self.items(data["item"]), dense=data["dense"])


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 1)

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        return self.head(parts["both"]).squeeze(1) + parts["bias"]


class InADict(Base):
    """The network takes a dict; the embedding is one member."""

    def __init__(self) -> None:
        super().__init__()
        del self.deep
        self.towers = Towers()

    def forward(self, data: Any) -> Tensor:
        both = torch.cat([self.users(data["user"]), self.items(data["item"])], 1)
        return self.towers(parts={"both": both, "bias": both.new_ones(len(both))})


class OnlyDense(nn.Module):
    """No embedding at all: the features come in as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(DENSE, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, user: Tensor, scenario: Tensor, dense: Tensor) -> Tensor:
        return self.deep(dense).squeeze(1)


class Blocks(nn.Module):
    """Names with dots and numbers: a list of sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.ModuleDict({"e": nn.Embedding(USERS, 4)}), nn.Identity()])
        self.net = nn.Sequential(
            nn.Sequential(nn.Identity(), nn.Linear(4, 5)), nn.ReLU(), nn.Sequential(nn.Linear(5, 1))
        )

    def forward(self, data: Any) -> Tensor:
        return self.net(self.parts[1](self.parts[0]["e"](data["user"]))).squeeze(1)


class Aliased(Base):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = self.deep


class Pooled(nn.Module):
    """A sequence of items, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 4, padding_idx=0)
        self.pool = Mean()
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.deep = nn.Linear(8, 1)

    def forward(self, data: Any) -> Tensor:
        history = torch.stack([data["item"], data["user"] % ITEMS, data["scenario"]], 1)
        seen = self.items(history)
        last = self.gru(seen)[1][0]
        return self.deep(torch.cat([self.pool(seen, history > 0), last], 1)).squeeze(1)


class Mean(nn.Module):
    def forward(self, seen: Tensor, mask: Tensor) -> Tensor:
        return (seen * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def several(kind: str) -> Any:
    return lambda: Several(kind)


CASES = [
    Case("per field", PerField, tap="stack"),
    Case("a dict of embeddings", several("dict"), tap="lookup"),
    Case("one of a dict of embeddings", several("dict"), tap="lookup[item]"),
    Case("a tuple of embeddings", several("tuple"), tap="lookup"),
    Case("one of a tuple of embeddings", several("tuple"), tap="lookup[0]"),
    Case("a list with a None", several("list"), tap="lookup:output"),
    Case("a keyed tensor", several("keyed"), tap="lookup"),
    Case("one of a keyed tensor", several("keyed"), tap="lookup[item]"),
    Case("the network's input", NoConcat, tap="deep:input"),
    Case("the network's input by name", NoConcat, tap="deep:input[input]"),
    Case("all of the network's arguments", ManyArguments, tap="cross:input"),
    Case("an argument by its place", ManyArguments, tap="cross:input[1]"),
    Case("an argument by its name", ManyArguments, tap="cross:input[dense]"),
    Case("a member of an argument", InADict, tap="towers:input[parts][both]"),
    Case(
        "the backbone's own argument",
        OnlyDense,
        lambda d: ((d["user"], d["scenario"]), {"dense": d["dense"]}),
        tap=":input[dense]",
    ),
    Case("a member of the backbone's argument", ManyArguments, tap=":input[data][dense]"),
    Case("names with dots", Blocks, tap="net.0.0"),
    Case("a list in a list", Blocks, tap="parts.0.e"),
    Case("the second name of a module", Aliased, tap="tower:input"),
    Case("a pooled sequence", Pooled, tap="pool", half=False, compiles=False),
    Case("a sequence of one length", Pooled, tap="items", half=False, compiles=False),
]
