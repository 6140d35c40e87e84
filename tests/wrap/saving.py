"""Models to save, the stores they are made with, and what tells whether two models are the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_house import DIM, SCENARIOS, USERS, InHouse, batch, knowledge, shake, wrap
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter
from msr_enhance.wrap.model import EnhancedModel

IDENTITY: dict[str, Any] = {
    "llm": {"model": "/home/anna/tiny", "state": "last"},
    "templates": {"user": "ab", "scenario": "cd"},
    "history": 8,
}
USER_IDS = [f"user-{row:03d}" for row in range(USERS)]


def make_store(path: Path, users: int = USERS, scenarios: int = 3, **identity: Any) -> KnowledgeStore:
    """A store whose vectors depend on the id alone; made or continued."""
    provenance = Provenance(identity={**IDENTITY, **identity}, window={"protocol": "window"})
    names = {
        "scenario": [*SCENARIOS, "more", "still more"][:scenarios],
        "user": [f"user-{row:03d}" for row in range(users)],
    }
    before = KnowledgeStore.load(path) if path.exists() else None
    with StoreWriter.open(path, provenance) as writer:
        for level, ids in names.items():
            held = set(before.ids(level)) if before else set()  # type: ignore[arg-type]
            if rows := [_row(name) for name in ids if name not in held]:
                writer.append(level, rows)  # type: ignore[arg-type]
    return KnowledgeStore.load(path)


def _row(name: str) -> Record:
    seed = np.frombuffer(name.encode().ljust(16)[-8:], "<u4")
    vector = np.random.default_rng(seed).normal(3, size=DIM).astype(np.float32)
    return Record(name, "ok", "prompt", "answer", {}, 1, 1, vector)


def vocabulary(users: int = USERS) -> dict[str, list[str]]:
    return {"user": [f"user-{row:03d}" for row in range(users)], "scenario": SCENARIOS}


def make(source: Any, backbone: nn.Module | None = None, **options: Any) -> EnhancedModel:
    """An enhanced model with random weights everywhere, as after training."""
    torch.manual_seed(1)
    options = {"vocabulary": vocabulary(), "meta": MetaConfig(hidden=5, rank=4)} | options
    model = shake(wrap(backbone or InHouse(), knowledge=source, **options))
    with torch.no_grad():
        for number, (name, buffer) in enumerate(model.backbone.named_buffers()):
            if "running" in name:
                buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
    return model


def fresh(**options: Any) -> InHouse:
    """The backbone as a user brings it: other weights."""
    torch.manual_seed(99)
    return InHouse(**options).eval()


def load(folder: Path, source: Any, backbone: nn.Module | None = None, **options: Any) -> EnhancedModel:
    options = {"vocabulary": {"user": vocabulary()["user"]}} | options
    return EnhancedModel.from_pretrained(folder, fresh() if backbone is None else backbone, source, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def out(model: nn.Module, **more: Tensor) -> Tensor:
    with torch.no_grad():
        return model({**batch(32), **more})


def refused(saved: Path, source: Any, match: str, backbone: nn.Module | None = None, **more: Any) -> None:
    """The error is the one, and nothing of the backbone has changed: no weight, no hook, no mode."""
    backbone = fresh() if backbone is None else backbone
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(EnhanceError, match=match):
        load(saved, source, backbone, **more)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in backbone.modules())
    after = backbone.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after if isinstance(after[name], Tensor))


class Wider(InHouse):
    def __init__(self, rows: int = 9, more: bool = False) -> None:
        super().__init__()
        self.items = nn.Embedding(rows, 3)
        if more:
            self.side = nn.Linear(2, 2, bias=False)


__all__ = [
    "Wider",
    "batch",
    "files",
    "fresh",
    "knowledge",
    "load",
    "make",
    "make_store",
    "out",
    "refused",
    "vocabulary",
]
