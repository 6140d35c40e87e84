"""OMoE: experts that all scenarios share, and one gate that weighs them for all scenarios alike.

The one-gate baseline of Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts" (KDD 2018); equations by the paper's numbers, a scenario in the place of a task.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from msr_enhance.backbones.mixture import Experts, by_scenario, mix
from msr_enhance.backbones.parts import Batch, ScenarioRows, Tower, build_embedding, features


class OMoE(nn.Module):
    """A mixture of experts as the shared bottom, and one tower per scenario.

    The gate is one linear layer with a bias and a softmax: no batch normalisation, no hidden layer. The
    scenario never enters it.

    Args:
        field_sizes: Number of values of each categorical field.
        n_scenarios: Number of scenarios.
        embedding_dim: Width of a field's vector.
        experts: Number of experts.
        expert: Widths of each expert's layers.
        tower: Hidden widths of each scenario's tower.
        dropout: Share dropped in training after the embedding and after every hidden layer.
        embedding: Replaces `FieldEmbedding`; called with ``batch["fields"]``.
        embedding_width: Width of its flattened output; its attribute ``width`` where not given.
        extra_width: Width of the plain input ``batch["extra"]``, appended to the embedding; 0 for none.

    Attributes:
        embedding: The place to tap: fields in, ``[batch, n_fields * embedding_dim]`` out, no dropout.

    Raises:
        ValueError: Sizes, experts or an embedding that cannot be used.

    Example:
        >>> model = OMoE(field_sizes=[100, 50], n_scenarios=2)
        >>> batch = {"fields": torch.tensor([[3, 7], [99, 0]]), "scenario": torch.tensor([1, 0])}
        >>> model(batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        field_sizes: Sequence[int],
        n_scenarios: int,
        embedding_dim: int = 8,
        experts: int = 4,
        expert: Sequence[int] = (64, 32),
        tower: Sequence[int] = (16,),
        dropout: float = 0.2,
        embedding: nn.Module | None = None,
        embedding_width: int | None = None,
        extra_width: int = 0,
    ) -> None:
        super().__init__()
        self.extra_width = extra_width
        self.embedding, width = build_embedding(field_sizes, embedding_dim, embedding, embedding_width)
        width += extra_width
        self.input_dropout = nn.Dropout(dropout)
        self.experts = Experts(experts, width, expert, dropout)
        self.gate = nn.Linear(width, experts)
        self.towers = nn.ModuleList(Tower(self.experts.width, tower, dropout) for _ in range(n_scenarios))

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
        # (5) f(x) = sum_i g(x)_i f_i(x), g(x) = softmax(W_g x): one f for every scenario.
        mixed = mix(self.gate(x), self.experts(x))
        # (1) y_p = h^p(f(x)), on the rows of scenario p.
        return rows.restore(by_scenario(self.towers, mixed, rows))
