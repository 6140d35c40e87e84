"""Batches of ids: which users, items and scenarios a training log, a request or a scoring job brings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msr_enhance.train.blocks import UserBlocks

Batch = dict[str, Tensor]
SCENARIOS, DIM = 3, 16
CONTEXT = (10, 30, 100, 300, 1_000, 3_000)
SPREAD = 0.8  # of the logarithm of a user's activity: 4,096 rows then hold about 3,560 of 25,877 users
ROWS_A_USER, SCORED_A_USER = 407, 40


@dataclass(frozen=True)
class World:
    """How large everything is.

    Attributes:
        users: Number of users.
        items: Number of items.
        batch: Rows of a training or scoring batch.
        request: Rows of a request.
        seed: Of every draw.
    """

    users: int
    items: int
    batch: int
    request: int
    seed: int

    @property
    def fields(self) -> list[int]:
        """Number of values of each field: users, items, context."""
        return [self.users, self.items, *CONTEXT]

    @property
    def width(self) -> int:
        """E, numbers of the embedding of a row."""
        return DIM * len(self.fields)

    def draw(self, kind: str, count: int, block: int = 32) -> list[Batch]:
        """So many batches.

        Args:
            kind: ``shuffled`` rows; ``blocks`` of one user's rows in one scenario, as `UserBlocks` draws
                them; ``sorted`` by user, 40 rows a user on average; ``request``, one user in one scenario.
            count: How many.
            block: Rows of a block.
        """
        draw = np.random.default_rng((self.seed, len(kind)))
        activity = draw.lognormal(sigma=SPREAD, size=self.users)
        if kind == "request":
            pairs = [
                (
                    np.full(self.request, draw.integers(self.users)),
                    np.full(self.request, draw.integers(SCENARIOS)),
                )
                for _ in range(count)
            ]
        elif kind == "shuffled":
            likely = activity / activity.sum()
            pairs = [
                (draw.choice(self.users, self.batch, p=likely), draw.integers(0, SCENARIOS, self.batch))
                for _ in range(count)
            ]
        else:
            pairs = self._from_log(kind, count, block, activity, draw)
        return [self._rows(users, scenarios, draw) for users, scenarios in pairs]

    def _from_log(
        self, kind: str, count: int, block: int, activity: npt.NDArray[np.float64], draw: np.random.Generator
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Rows of a log in blocks, or sorted by user."""
        mean = ROWS_A_USER if kind == "blocks" else SCORED_A_USER
        enough = self.users // 8 if kind == "blocks" else 2 * count * self.batch // mean
        some = np.sort(draw.permutation(self.users)[: max(2, enough)])
        rows = np.maximum(1, draw.poisson(activity[some] / activity.mean() * mean))
        users = np.repeat(some, rows)
        scenarios = draw.integers(0, SCENARIOS, len(users))
        if kind == "blocks":
            order = UserBlocks(users, scenarios, batch_size=self.batch, block=block, seed=self.seed)
        else:
            order = UserBlocks(users, batch_size=self.batch, shuffle=False)
        found = []
        for chosen in order:
            if len(chosen) == self.batch or not found:
                found.append((users[chosen], scenarios[chosen]))
            if len(found) == count:
                break
        return found

    def _rows(
        self, users: npt.NDArray[np.int64], scenarios: npt.NDArray[np.int64], draw: np.random.Generator
    ) -> Batch:
        columns = [users, *(draw.integers(0, size, len(users)) for size in self.fields[1:])]
        return {
            "fields": torch.from_numpy(np.stack(columns, axis=1)),
            "user": torch.from_numpy(users.astype(np.int64)),
            "scenario": torch.from_numpy(scenarios.astype(np.int64)),
            "label": torch.from_numpy(draw.integers(0, 2, len(users)).astype(np.float32)),
        }


def rho(batches: list[Batch]) -> float:
    """Rows a distinct user, on average over batches."""
    rows = sum(len(batch["user"]) for batch in batches)
    return rows / sum(len(batch["user"].unique()) for batch in batches)
