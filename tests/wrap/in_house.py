"""A backbone with its own batch format, its knowledge, and ways to wrap and shake it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msr_enhance.wrap.enhance import enhance
from msr_enhance.wrap.model import EnhancedModel

USERS, SCENARIOS, DIM, WIDTH = 20, ["feed", "search", "shop"], 7, 6
KEYS = {"user": "user", "scenario": "scenario"}


class InHouse(nn.Module):
    """A backbone with its own batch format."""

    def __init__(self, probability: bool = False, fields: bool = False, column: bool = False) -> None:
        super().__init__()
        self.probability, self.fields, self.column = probability, fields, column
        self.users = nn.Embedding(USERS, 3)
        self.items = nn.Embedding(9, 3)
        self.concat = Concat(fields)
        self.deep = nn.Sequential(
            nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"])).flatten(1)
        out = self.deep(e)
        out = torch.sigmoid(out) if self.probability else out
        return out if self.column else out.squeeze(1)


class Concat(nn.Module):
    def __init__(self, fields: bool) -> None:
        super().__init__()
        self.fields = fields

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.stack(parts, 1) if self.fields else torch.cat(parts, 1)


def knowledge(seed: int = 0, users: int = USERS) -> dict[str, tuple[list[Any], np.ndarray]]:
    draw = np.random.default_rng(seed)
    return {
        "user": (list(range(users)), draw.normal(size=(users, DIM)).astype(np.float32)),
        "scenario": (SCENARIOS, draw.normal(size=(3, DIM)).astype(np.float32)),
    }


def batch(rows: int = 12, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "user": torch.randint(USERS, (rows,), generator=draw),
        "item": torch.randint(9, (rows,), generator=draw),
        "scenario": torch.randint(3, (rows,), generator=draw),
    }


def wrap(backbone: nn.Module, **options: Any) -> EnhancedModel:
    options = {"tap": "concat", "keys": KEYS, "vocabulary": {"scenario": SCENARIOS}, "width": WIDTH} | options
    return enhance(backbone, options.pop("knowledge", knowledge()), **options)


def shake(model: EnhancedModel) -> EnhancedModel:
    """Random weights everywhere, as after training."""
    torch.manual_seed(5)
    for weight in model.meta.parameters():
        nn.init.normal_(weight, std=0.4)
    return model.eval()


PLACEMENTS = [
    {"user": user, "scenario": scenario}
    for user, scenario in itertools.product(("bottom", "parallel", None), repeat=2)
    if user or scenario
]
