"""MMoE: experts that all scenarios share, and a gate for each scenario that weighs them.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts"
(KDD 2018); equations by the paper's numbers, a scenario in the place of a task.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from msr_enhance.backbones.mixture import Experts, by_scenario, mix
from msr_enhance.backbones.parts import Batch, ScenarioRows, Tower, build_embedding, features


class MMoE(nn.Module):
    """A mixture of shared experts under each scenario's own gate, and one tower per scenario.

    A gate is one linear layer with a bias and a softmax: no batch normalisation, no hidden layer. The
    scenario enters it only by the choice of the gate.

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
        >>> model = MMoE(field_sizes=[100, 50], n_scenarios=2)
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
        self.gates = nn.ModuleList(nn.Linear(width, experts) for _ in range(n_scenarios))
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
        # (8) g^p(x) = softmax(W_gp x), the softmax inside `mix`: a row is only seen by its own gate.
        gate = by_scenario(self.gates, x, rows)
        # (7) f^p(x) = sum_i g^p(x)_i f_i(x).
        mixed = mix(gate, self.experts(x))
        # (6) y_p = h^p(f^p(x)).
        return rows.restore(by_scenario(self.towers, mixed, rows))
