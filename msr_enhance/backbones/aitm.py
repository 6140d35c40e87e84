"""AITM: a tower for each scenario, and attention that lets a scenario take from the one before it.

Xi et al., "Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task
Learning in Targeted Display Advertising" (KDD 2021, arXiv 2105.08489), a scenario in the place of a task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msr_enhance.backbones.parts import MLP, Batch, ScenarioRows, build_embedding, features


class Attention(nn.Module):
    """How much of two vectors a row takes: what came from the scenario before, and its own.

    Args:
        width: Width k of both.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.h1 = nn.Linear(width, width, bias=False)
        self.h2 = nn.Linear(width, width, bias=False)
        self.h3 = nn.Linear(width, width, bias=False)

    def forward(self, passed: Tensor, own: Tensor) -> Tensor:
        """``[batch, k]`` and ``[batch, k]`` to ``[batch, k]``."""
        u = torch.stack([passed, own], dim=1)
        # w_u = softmax over u in {p_(t-1), q_t} of <h2(u), h3(u)> / sqrt(k).
        w = ((self.h2(u) * self.h3(u)).sum(dim=2) * self.scale).softmax(dim=1)
        # z_t = sum_u w_u h1(u).
        z: Tensor = (w.unsqueeze(2) * self.h1(u)).sum(dim=1)
        return z


class AITM(nn.Module):
    """A tower per scenario in a chain: each but the first takes from the one before.

    The paper's tasks are steps that follow each other (click, then purchase). Scenarios do not, so:

    - The order of the chain is a choice, `order`, to be searched like a width. It is no part of the
      ``state_dict``: build with the same order before loading one.
    - The calibrator, a loss for P(t) > P(t-1), is left out: between scenarios nothing says so.

    As in the authors' code, one attention (``h1`` to ``h3``, no bias) serves the whole chain, each link
    has its own ``g`` (linear, ReLU, dropout), and gradients flow back through the chain. So earlier
    towers learn from the rows of later scenarios, too.

    Args:
        field_sizes: Number of values of each categorical field.
        n_scenarios: Number of scenarios.
        embedding_dim: Width of a field's vector.
        tower: Widths of each scenario's tower; the last is that of the attention.
        order: Scenarios from the first of the chain to the last; by default 0, 1, 2 and so on.
        dropout: Share dropped in training after the embedding and after every hidden layer.
        embedding: Replaces `FieldEmbedding`; called with ``batch["fields"]``.
        embedding_width: Width of its flattened output; its attribute ``width`` where not given.
        extra_width: Width of the plain input ``batch["extra"]``, appended to the embedding; 0 for none.

    Attributes:
        embedding: The place to tap: fields in, ``[batch, n_fields * embedding_dim]`` out, no dropout.

    Raises:
        ValueError: Sizes, an order or an embedding that cannot be used.

    Example:
        >>> model = AITM(field_sizes=[100, 50], n_scenarios=2)
        >>> batch = {"fields": torch.tensor([[3, 7], [99, 0]]), "scenario": torch.tensor([1, 0])}
        >>> model(batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        field_sizes: Sequence[int],
        n_scenarios: int,
        embedding_dim: int = 8,
        tower: Sequence[int] = (64, 32),
        order: Sequence[int] | None = None,
        dropout: float = 0.2,
        embedding: nn.Module | None = None,
        embedding_width: int | None = None,
        extra_width: int = 0,
    ) -> None:
        order = range(n_scenarios) if order is None else order
        if sorted(order) != list(range(n_scenarios)):
            raise ValueError(f"order is {list(order)}; write each of 0 to {n_scenarios - 1} once.")
        super().__init__()
        self.extra_width = extra_width
        self.embedding, width = build_embedding(field_sizes, embedding_dim, embedding, embedding_width)
        width += extra_width
        self.input_dropout = nn.Dropout(dropout)
        self.order = tuple(order)
        self.towers = nn.ModuleList(MLP(width, tower, dropout) for _ in range(n_scenarios))
        width = tower[-1] if tower else width
        self.transfers = nn.ModuleList(MLP(width, (width,), dropout) for _ in range(n_scenarios - 1))
        # A chain of one has nothing to attend to, and would carry weights that never learn.
        self.attention = Attention(width) if n_scenarios > 1 else None
        self.logits = nn.ModuleList(nn.Linear(width, 1) for _ in range(n_scenarios))

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
        x = rows.sort(self.input_dropout(features(self.embedding, batch, self.extra_width)))
        parts = x.split_with_sizes(rows.counts)
        # In the order of the chain: at step t only rows of that scenario and of later ones are left.
        x = torch.cat([parts[p] for p in self.order])
        scores: dict[int, Tensor] = {}
        z: Tensor | None = None
        for t, p in enumerate(self.order):
            q = self.towers[p](x)  # q_t = f_t(x)
            # z_1 = q_1; then p_(t-1) = g_(t-1)(z_(t-1)) and z_t = AIT(p_(t-1), q_t).
            state = q if z is None or self.attention is None else self.attention(self.transfers[t - 1](z), q)
            here = rows.counts[p]
            scores[p] = self.logits[p](state[:here]).squeeze(-1)  # the logit of y_t = sigmoid(MLP(z_t))
            x, z = x[here:], state[here:]
        return rows.restore(torch.cat([scores[p] for p in range(len(parts))]))
