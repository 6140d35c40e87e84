"""Batches whose rows come a user at a time: what generated layers cost depends on rows a user in a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from msr_enhance.errors import TrainingError


class UserBlocks(Sampler[list[int]]):
    """Rows of one user and scenario in blocks, the blocks shuffled, as batches for a `DataLoader`.

    With one user's rows together, each user's weights are made once a block and not mixed row by row: 32 rows
    a block train at a third of the added cost of shuffled rows. It changes what is in a batch, not the model:
    compare the AUC before you keep it, and mind batch normalisation, whose statistics then come of fewer
    users. Sorted (``shuffle=False``) it is for scoring, where the order of rows changes no score.

    Of several processes, each makes one of its own rows: equal seeds draw equal batches.

    Args:
        users: Each row's user, `[rows]`, whole numbers.
        scenarios: Each row's scenario, `[rows]`, or None where there is one.
        batch_size: Rows of a batch.
        block: Rows of a block at most; None keeps all of a user's rows together.
        shuffle: False gives every row once in the order of scenario and user.
        seed: Of the order; each pass over the batches draws another one.

    Raises:
        TrainingError: Not one user a row, or sizes below 1.

    Example:
        >>> loader = DataLoader(rows, batch_sampler=UserBlocks(users, scenarios, batch_size=4096, block=32))
    """

    def __init__(
        self,
        users: npt.ArrayLike | torch.Tensor,
        scenarios: npt.ArrayLike | torch.Tensor | None = None,
        *,
        batch_size: int,
        block: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        of_user = np.asarray(users)
        of_scenario = np.zeros(len(of_user), np.int64) if scenarios is None else np.asarray(scenarios)
        if of_user.ndim != 1 or of_user.shape != of_scenario.shape:
            raise TrainingError(
                f"users have shape {of_user.shape} and scenarios {of_scenario.shape}; allowed: one of each "
                "a row."
            )
        if batch_size < 1 or (block is not None and block < 1):
            raise TrainingError(f"batch_size={batch_size} and block={block}; allowed: 1 or more.")
        self.batch_size, self.block, self.shuffle, self.seed, self.passes = (
            batch_size,
            block,
            shuffle,
            seed,
            0,
        )
        self._of_user, self._of_scenario = of_user, of_scenario

    def __len__(self) -> int:
        """Number of batches of a pass."""
        return -(-len(self._of_user) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of row numbers; every row once a pass, the last batch may be smaller."""
        order = self._order(np.random.default_rng((self.seed, self.passes)))
        self.passes += 1
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size].tolist()

    def _order(self, draw: np.random.Generator) -> npt.NDArray[np.int64]:
        rows = len(self._of_user)
        mixed = draw.permutation(rows) if self.shuffle else np.arange(rows)
        # Shuffled first: which rows of a user share a block is drawn anew, too.
        place = np.lexsort((self._of_user[mixed], self._of_scenario[mixed]))
        order = mixed[place]
        if not self.shuffle or rows == 0:
            return order
        user, scenario = self._of_user[order], self._of_scenario[order]
        new = np.ones(rows, dtype=bool)
        new[1:] = (user[1:] != user[:-1]) | (scenario[1:] != scenario[:-1])
        first = np.maximum.accumulate(np.where(new, np.arange(rows), 0))
        if self.block is not None:
            new |= (np.arange(rows) - first) % self.block == 0
        number = new.cumsum() - 1
        rank = draw.permutation(number[-1] + 1)
        return order[np.argsort(rank[number], kind="stable")]
