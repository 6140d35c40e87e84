"""The model and the batches of a platform that knows nothing of msr-enhance; the examples wrap them.

This stands for your own code. It has ids of its own, a loader of its own, and no idea of knowledge.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from msr_enhance import InteractionTable

FOLDER = Path("runs/examples")
"""Where the examples keep their log, store and model."""


class InHouse(nn.Module):
    """Two embeddings and a small network, for all scenarios alike.

    Users are hashed into a fixed number of rows, as many platforms do: a new user needs no new model.
    """

    def __init__(self, items: int, user_rows: int = 256, dim: int = 8) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(user_rows, dim), nn.Embedding(items, dim)
        self.join = nn.Flatten()
        self.deep = nn.Sequential(nn.Linear(2 * dim, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits `[batch]`."""
        user = self.user(batch["user"] % self.user.num_embeddings)
        embedding = self.join(torch.stack([user, self.item(batch["item"])], dim=1))
        logits: Tensor = self.deep(embedding).squeeze(1)
        return logits


def batch_of(table: InteractionTable, rows: npt.NDArray[np.int64]) -> dict[str, Tensor]:
    """Some rows of the log as this platform's batch: user ids, item ids, scenario numbers, each `[batch]`."""
    return {
        "user": torch.from_numpy(table.column("user_id")[rows]),
        "item": torch.from_numpy(table.column("item_id")[rows]),
        "scenario": torch.from_numpy(table.scenario_index[rows]),
    }


def batches(
    table: InteractionTable, rows: npt.NDArray[np.int64], size: int = 256, seed: int = 0
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Shuffled batches of these rows, each with its labels `[batch]`."""
    order = np.random.default_rng(seed).permutation(rows)
    for start in range(0, len(order), size):
        some = order[start : start + size]
        yield batch_of(table, some), torch.from_numpy(table.labels[some]).float()
