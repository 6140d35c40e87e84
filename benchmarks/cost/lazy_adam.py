"""Adam that touches only the rows of a table that a batch looked up: gather, update, put back.

Not the same optimizer as a dense Adam: the moments of rows that are not looked up do not decay. A dense one
moves 28 bytes for each of the table's numbers at every step, which hides whatever else a step costs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LazyAdam:
    """Adam over the rows of one embedding table with sparse gradients, the other weights in a fused Adam.

    Args:
        table: The embedding table; from now on its gradient is sparse.
        others: All other weights.
        lr: Learning rate of both.
        betas: Of both moments.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        table: nn.Embedding,
        others: list[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        table.sparse = True
        self.weight, self.lr, self.betas, self.eps, self.steps = table.weight, lr, betas, eps, 0
        self.first = torch.zeros_like(table.weight, requires_grad=False)
        self.second = torch.zeros_like(table.weight, requires_grad=False)
        self.others = torch.optim.Adam(others, lr=lr, betas=betas, eps=eps, fused=True)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.weight.grad = None
        self.others.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self) -> None:
        """One step of all weights that have a gradient."""
        self.others.step()
        self.steps += 1
        if self.weight.grad is None:
            return
        rows, gradient = summed(self.weight.grad)
        (beta_1, beta_2), steps = self.betas, self.steps
        first = self.first.index_select(0, rows).lerp_(gradient, 1 - beta_1)
        second = self.second.index_select(0, rows).mul_(beta_2)
        second.addcmul_(gradient, gradient, value=1 - beta_2)
        self.first.index_copy_(0, rows, first)
        self.second.index_copy_(0, rows, second)
        root = second.div_(1 - beta_2**steps).sqrt_().add_(self.eps)
        now = self.weight.index_select(0, rows).addcdiv_(first, root, value=-self.lr / (1 - beta_1**steps))
        self.weight.index_copy_(0, rows, now)


def summed(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows `[rows]` of a sparse gradient, and what belongs to each, `[rows, dim]`."""
    found, values = gradient._indices()[0], gradient._values()  # `coalesce` takes three times as long
    rows, place = torch.unique(found, return_inverse=True)
    return rows, values.new_zeros(len(rows), values.shape[1]).index_add_(0, place, values)
