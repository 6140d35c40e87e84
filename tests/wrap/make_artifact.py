"""Makes `artifact/`: a small model of the present format, its store, and what it answers; fixed seeds.

Run it only for a new format version, and keep the old artifact beside it:
`python tests/wrap/make_artifact.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from msr_enhance.meta.config import MetaConfig
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter
from msr_enhance.wrap.enhance import enhance

ARTIFACT = Path(__file__).parent / "artifact"
USERS, SCENARIOS = [11, 7, 5, 40, 2, 3], ["feed", "shop"]


class Guarded(nn.Module):
    """A backbone with what a state may hold: tied weights, buffers of several types, a number."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(6, 3), nn.Embedding(5, 3)
        self.likes = nn.Linear(3, 5, bias=False)
        self.likes.weight = self.items.weight
        self.embed = nn.Identity()
        self.deep = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        self.register_buffer("mask", torch.tensor([True, False, True, True, True]))

    def forward(self, user: Tensor, item: Tensor, scenario: Tensor) -> Tensor:
        e = self.embed(torch.cat([self.users(user), self.items(item)], 1))
        return self.deep(e).squeeze(1) + (self.likes(e[:, 3:]) * self.mask).sum(1)


def inputs() -> dict[str, Tensor]:
    """A batch with strangers among the users."""
    draw = torch.Generator().manual_seed(2)
    return {
        "user": torch.randint(-1, 6, (16,), generator=draw).clamp(min=0),
        "item": torch.randint(5, (16,), generator=draw),
        "scenario": torch.randint(2, (16,), generator=draw),
    }


def _store(folder: Path) -> KnowledgeStore:
    draw = np.random.default_rng(3)
    identity = {"llm": {"model": "tiny", "state": "last"}, "templates": {"user": "a", "scenario": "b"}}

    def rows(names: list) -> list[Record]:
        return [
            Record(name, "ok", "p", "a", {}, 1, 1, draw.normal(2, size=6).astype(np.float32))
            for name in names
        ]

    with tempfile.TemporaryDirectory() as made:
        with StoreWriter.open(Path(made) / "store", Provenance(identity=identity, window={})) as writer:
            writer.append("scenario", rows(SCENARIOS))
            writer.append("user", rows(USERS[:-1]))  # the last one is a stranger
        KnowledgeStore.load(Path(made) / "store").save(folder, texts=False)
    return KnowledgeStore.load(folder)


def main() -> None:
    """Write the artifact anew."""
    Guarded.__module__ = "make_artifact"  # as the test imports it
    shutil.rmtree(ARTIFACT, ignore_errors=True)
    ARTIFACT.mkdir()
    store = _store(ARTIFACT / "store")
    torch.manual_seed(0)
    model = enhance(
        Guarded(),
        store,
        tap="embed",
        keys={"user": "user", "scenario": "scenario"},
        vocabulary={"user": USERS, "scenario": SCENARIOS},
        unknown={"user": "learned"},
        width=6,
        meta=MetaConfig(hidden=3, rank=2, compact=4),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.meta.parameters():
            nn.init.normal_(weight, std=0.4)
        model.backbone.deep[1].running_mean.normal_()
        model.backbone.deep[1].running_var.uniform_(0.5, 2)
        expected = model.eval()(**inputs())
    model.save_pretrained(ARTIFACT / "model")
    save_file({**inputs(), "expected": expected}, ARTIFACT / "example.safetensors")


if __name__ == "__main__":
    main()
