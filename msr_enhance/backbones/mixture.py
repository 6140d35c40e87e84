"""Parts of the backbones with experts: the experts, their weighted sum, and modules of one scenario each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msr_enhance.backbones.parts import MLP, ScenarioRows


class Experts(nn.ModuleList):
    """Several MLPs of the same shape that read the same rows.

    Args:
        count: Number of experts.
        width: Width of the input.
        hidden: Widths of an expert's layers.
        dropout: Share dropped in training after every layer.

    Attributes:
        width: Width of an expert's output.

    Raises:
        ValueError: No expert, or experts without a layer, which would all be the same.
    """

    def __init__(self, count: int, width: int, hidden: Sequence[int], dropout: float) -> None:
        if count < 1 or not hidden:
            raise ValueError(
                f"{count} experts with layers {list(hidden)}; write at least one expert and one layer."
            )
        super().__init__(MLP(width, hidden, dropout) for _ in range(count))
        self.width = hidden[-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """``[batch, in] -> [batch, width]`` from each expert."""
        return [expert(x) for expert in self]


def mix(gate: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """Sum of the experts' outputs, ``sum_i softmax(gate)_i f_i``.

    Args:
        gate: Scores of the experts before the softmax, ``[batch, n_experts]``.
        experts: The output of each, ``[batch, width]``.

    Returns:
        ``[batch, width]``.
    """
    weights = gate.softmax(dim=1).unsqueeze(1)
    return (weights @ torch.stack(list(experts), dim=1)).squeeze(1)


def by_scenario(modules: nn.ModuleList, x: Tensor, rows: ScenarioRows) -> Tensor:
    """Run each row through the module of its own scenario.

    Args:
        modules: One for each scenario.
        x: Rows ``[batch, in]`` in the order of `rows`.
        rows: Which row is of which scenario.

    Returns:
        ``[batch, ...]`` in the same order.
    """
    parts = zip(modules, x.split_with_sizes(rows.counts), strict=True)
    return torch.cat([module(part) for module, part in parts])
