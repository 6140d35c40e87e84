"""STAR: a shared network in the centre, and one of the same shape at each point of the star.

Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
Prediction" (CIKM 2021, arXiv 2101.11427).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msr_enhance.backbones.parts import (
    Batch,
    PartitionedNorm,
    ScenarioRows,
    StarLinear,
    Tower,
    build_embedding,
    features,
)


class STAR(nn.Module):
    """Partitioned normalisation, star layers, and an auxiliary network whose logit is added.

    Args:
        field_sizes: Number of values of each categorical field.
        n_scenarios: Number of scenarios.
        embedding_dim: Width of a field's vector, and of the auxiliary network's scenario vector.
        hidden: Hidden widths of the star layers; a last one of width 1 follows.
        auxiliary: Hidden widths of the auxiliary network.
        dropout: Share dropped in training of both networks' inputs and after every hidden layer.
        embedding: Replaces `FieldEmbedding`; called with ``batch["fields"]``.
        embedding_width: Width of its flattened output; its attribute ``width`` where not given.
        extra_width: Width of the plain input ``batch["extra"]``, appended to the embedding; 0 for none.

    Attributes:
        embedding: The place to tap: fields in, ``[batch, n_fields * embedding_dim]`` out, no dropout.

    Raises:
        ValueError: Sizes or an embedding that cannot be used.

    Example:
        >>> model = STAR(field_sizes=[100, 50], n_scenarios=2)
        >>> batch = {"fields": torch.tensor([[3, 7], [99, 0]]), "scenario": torch.tensor([1, 0])}
        >>> model(batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        field_sizes: Sequence[int],
        n_scenarios: int,
        embedding_dim: int = 8,
        hidden: Sequence[int] = (64, 32),
        auxiliary: Sequence[int] = (16,),
        dropout: float = 0.2,
        embedding: nn.Module | None = None,
        embedding_width: int | None = None,
        extra_width: int = 0,
    ) -> None:
        super().__init__()
        self.n_scenarios, self.extra_width = n_scenarios, extra_width
        self.embedding, width = build_embedding(field_sizes, embedding_dim, embedding, embedding_width)
        width += extra_width
        self.norm = PartitionedNorm(width, n_scenarios)
        self.dropout = nn.Dropout(dropout)
        self.star = nn.ModuleList(StarLinear(a, b, n_scenarios) for a, b in pairwise((width, *hidden, 1)))
        self.scenario_embedding = nn.Embedding(n_scenarios, embedding_dim)
        self.auxiliary = Tower(embedding_dim + width, auxiliary, dropout)
        nn.init.normal_(self.scenario_embedding.weight, std=0.05)

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
        rows = ScenarioRows(batch["scenario"], self.n_scenarios)
        x = rows.sort(features(self.embedding, batch, self.extra_width))
        # z' = gamma gamma_p (z - mu_p) / sqrt(var_p + eps) + beta + beta_p, see `PartitionedNorm`.
        # Dropout comes after the norm: before it, its noise would widen the statistics that evaluation uses.
        main = self.dropout(self.norm(x, rows))
        # out_p = phi(W*_p in_p + b*_p), W*_p = W_p * W, b*_p = b_p + b (`StarLinear`); the last has no phi.
        *inner, last = self.star
        for layer in inner:
            main = self.dropout(F.relu(layer(main, rows)))
        # The auxiliary network reads the scenario's own vector and the features; y = sigmoid(s_m + s_a).
        side = torch.cat([self.scenario_embedding(rows.scenario), x], dim=1)
        return rows.restore(last(main, rows).squeeze(-1) + self.auxiliary(self.dropout(side)))
