"""What an odd little module of the zoo is, and the batches and knowledge all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msr_enhance.wrap.enhance import enhance
from msr_enhance.wrap.model import EnhancedModel

USERS, ITEMS, DENSE, DIM = 20, 9, 2, 7
SCENARIOS = ["feed", "search", "shop"]
USER_NAMES = [f"u{n}" for n in range(USERS)]
Call = tuple[tuple[Any, ...], dict[str, Any]]


def raw(rows: int = 12, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "user": torch.randint(USERS, (rows,), generator=draw),
        "item": torch.randint(ITEMS, (rows,), generator=draw),
        "scenario": torch.randint(3, (rows,), generator=draw),
        "dense": torch.randn(rows, DENSE, generator=draw),
    }


def vectors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    sizes = {"user": USERS, "scenario": len(SCENARIOS)}
    return {level: draw.normal(size=(rows, DIM)).astype(np.float32) for level, rows in sizes.items()}


@dataclasses.dataclass(frozen=True)
class Case:
    """One odd module, and how it is enhanced.

    Attributes:
        name: Names the oddity.
        make: The module.
        call: Its call for a raw batch: positional and keyword arguments.
        tap: As `enhance()` takes it; so are `keys` and `output`.
        named: Levels whose keys in the batch are names, not positions.
        half: Whether its operations exist in half precision on a CPU.
        compiles: Whether the plain module itself can be compiled without a graph break.
    """

    name: str
    make: Callable[[], nn.Module]
    call: Callable[[dict[str, Tensor]], Call] = lambda data: ((data,), {})
    tap: str = "concat"
    keys: dict[str, Any] = dataclasses.field(default_factory=lambda: {"user": "user", "scenario": "scenario"})
    output: str | tuple[str, ...] = "logit"
    named: tuple[str, ...] = ()
    half: bool = True
    compiles: bool = True

    def batch(self, rows: int = 12, seed: int = 0) -> Call:
        return self.call(raw(rows, seed))

    def backbone(self) -> nn.Module:
        torch.manual_seed(3)
        return self.make()

    def knowledge(self) -> dict[str, Any]:
        ids = {"user": USER_NAMES, "scenario": SCENARIOS}
        return {level: (ids[level], found) for level, found in vectors().items()}

    def enhanced(self, backbone: nn.Module | None = None, **options: Any) -> EnhancedModel:
        backbone = self.backbone().eval() if backbone is None else backbone
        positions = {
            level: ids
            for level, ids in {"user": USER_NAMES, "scenario": SCENARIOS}.items()
            if level not in self.named
        }
        told = {"tap": self.tap, "keys": self.keys, "output": self.output, "vocabulary": positions}
        return enhance(backbone, self.knowledge(), **({"example": self.batch()} | told | options))


def tensors(value: Any) -> list[Tensor]:
    """The floating tensors in a result, whatever it is."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if dataclasses.is_dataclass(value) and not isinstance(value, dict):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [one for member in inner for one in tensors(member)]


def moved(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A call with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: moved(member, change) for name, member in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(member, change) for member in value))
    if isinstance(value, (tuple, list)):
        return type(value)(moved(member, change) for member in value)
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{k: moved(v, change) for k, v in vars(value).items()})
    return value


class Concat(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


class Base(nn.Module):
    """Users and items, six numbers wide, through a small network to `[batch]`."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, 3), nn.Embedding(ITEMS, 3)
        self.concat = Concat()
        self.deep = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))

    def embed(self, data: Any) -> Tensor:
        return self.concat(self.users(data["user"]), self.items(data["item"]))

    def forward(self, data: Any) -> Any:
        return self.deep(self.embed(data)).squeeze(1)
