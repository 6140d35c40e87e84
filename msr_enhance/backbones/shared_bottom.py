"""Shared Bottom: one network for all scenarios, a tower for each.

Caruana, "Multitask Learning" (Machine Learning 28, 1997), as equation 1 of Ma et al. (KDD 2018) writes it,
a scenario in the place of a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msr_enhance.backbones.parts import MLP, Batch, ScenarioRows, Tower, build_embedding, features


class SharedBottom(nn.Module):
    """One bottom MLP, and one tower per scenario that only the scenario's own rows enter.

    Args:
        field_sizes: Number of values of each categorical field.
        n_scenarios: Number of scenarios.
        embedding_dim: Width of a field's vector.
        bottom: Widths of the shared layers.
        tower: Hidden widths of each scenario's tower.
        dropout: Share dropped in training after the embedding and after every hidden layer.
        embedding: Replaces `FieldEmbedding`; called with ``batch["fields"]``.
        embedding_width: Width of its flattened output; its attribute ``width`` where not given.
        extra_width: Width of the plain input ``batch["extra"]``, appended to the embedding; 0 for none.

    Attributes:
        embedding: The place to tap: fields in, ``[batch, n_fields * embedding_dim]`` out, no dropout.

    Raises:
        ValueError: Sizes or an embedding that cannot be used.

    Example:
        >>> model = SharedBottom(field_sizes=[100, 50], n_scenarios=2)
        >>> batch = {"fields": torch.tensor([[3, 7], [99, 0]]), "scenario": torch.tensor([1, 0])}
        >>> model(batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        field_sizes: Sequence[int],
        n_scenarios: int,
        embedding_dim: int = 8,
        bottom: Sequence[int] = (64, 32),
        tower: Sequence[int] = (16,),
        dropout: float = 0.2,
        embedding: nn.Module | None = None,
        embedding_width: int | None = None,
        extra_width: int = 0,
    ) -> None:
        super().__init__()
        self.extra_width = extra_width
        self.embedding, width = build_embedding(field_sizes, embedding_dim, embedding, embedding_width)
        self.input_dropout = nn.Dropout(dropout)
        self.bottom = MLP(width + extra_width, bottom, dropout)
        self.towers = nn.ModuleList(Tower(self.bottom.width, tower, dropout) for _ in range(n_scenarios))

    def forward(self, batch: Batch) -> Tensor:
        """Score every row in its own scenario.

        Args:
            batch: ``fields`` ``[batch, n_fields]`` and ``scenario`` ``[batch]``, integer; ``extra``
                ``[batch, extra_width]`` where the model was built for it.

        Returns:
            Logits, ``[batch]``.

        Raises:
            ValueError: A shape or an index the model was not built for.
        """
        rows = ScenarioRows(batch["scenario"], len(self.towers))
        shared = self.bottom(self.input_dropout(features(self.embedding, batch, self.extra_width)))
        # (1) y_p = h^p(f(x)), on the rows of scenario p.
        parts = zip(self.towers, rows.sort(shared).split_with_sizes(rows.counts), strict=True)
        return rows.restore(torch.cat([tower(part) for tower, part in parts]))
