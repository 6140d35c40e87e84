"""PLE: levels of experts, some of each scenario and some shared, with gates between the levels.

Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
Personalized Recommendations" (RecSys 2020), a scenario in the place of a task. One level is CGC.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msr_enhance.backbones.mixture import Experts, by_scenario, mix
from msr_enhance.backbones.parts import Batch, ScenarioRows, Tower, build_embedding, features


class Level(nn.Module):
    """The experts of one level, and a gate for each scenario.

    Args:
        width: Width of the input.
        expert: Widths of each expert's layers.
        n_scenarios: Number of scenarios.
        specific: Number of experts of each scenario.
        shared: Number of shared experts.
        dropout: Share dropped in training after every layer.

    Raises:
        ValueError: No expert of a kind, or experts without a layer.
    """

    def __init__(
        self, width: int, expert: Sequence[int], n_scenarios: int, specific: int, shared: int, dropout: float
    ) -> None:
        super().__init__()
        self.shared = Experts(shared, width, expert, dropout)
        self.specific = nn.ModuleList(Experts(specific, width, expert, dropout) for _ in range(n_scenarios))
        self.gates = nn.ModuleList(nn.Linear(width, specific + shared) for _ in range(n_scenarios))


class CGC(Level):
    """The last level: each row goes through its own scenario's experts and the shared ones.

    Takes the arguments of `Level`.
    """

    def forward(self, own: Tensor, common: Tensor, rows: ScenarioRows) -> Tensor:
        """Both inputs and the output, ``[batch, width]``, are in the order of `rows`.

        Args:
            own: What the level before made for the row's scenario.
            common: What it made for the shared experts.
            rows: Which row is of which scenario.
        """
        shared = [part.split_with_sizes(rows.counts) for part in self.shared(common)]
        parts = zip(self.specific, self.gates, own.split_with_sizes(rows.counts), *shared, strict=True)
        # g^p(x) = w^p(x) S^p(x), w^p(x) = softmax(W_g^p x), the softmax inside `mix`;
        # S^p(x) = [E_(p,1), .., E_(p,m_p), E_(s,1), .., E_(s,m_s)].
        return torch.cat([mix(gate(x), [*experts(x), *others]) for experts, gate, x, *others in parts])


class Extraction(Level):
    """A level before the last: every row goes through all experts, as the shared gate needs them all.

    Takes the arguments of `Level`.
    """

    def __init__(
        self, width: int, expert: Sequence[int], n_scenarios: int, specific: int, shared: int, dropout: float
    ) -> None:
        super().__init__(width, expert, n_scenarios, specific, shared, dropout)
        self.shared_gate = nn.Linear(width, n_scenarios * specific + shared)

    def forward(self, own: Sequence[Tensor], common: Tensor) -> tuple[list[Tensor], Tensor]:
        """Fuse for every scenario, and for the shared experts of the next level.

        Args:
            own: The input of each scenario's experts and gate, ``[batch, width]``.
            common: The input of the shared experts and gate, ``[batch, width]``.

        Returns:
            The same for the next level.
        """
        shared = self.shared(common)
        specific = [experts(x) for experts, x in zip(self.specific, own, strict=True)]
        # g^{p,j}(x) = w^{p,j}(g^{p,j-1}(x)) S^{p,j}(x): gates and experts read the level before.
        parts = zip(self.gates, own, specific, strict=True)
        fused = [mix(gate(x), [*mine, *shared]) for gate, x, mine in parts]
        # The shared gate chooses among the experts of all scenarios and the shared ones.
        every = [expert for mine in specific for expert in mine] + shared
        return fused, mix(self.shared_gate(common), every)


class PLE(nn.Module):
    """Experts of each scenario and shared ones in several levels, and one tower per scenario.

    At every level but the last a shared gate chooses among all experts; at the last nothing would read
    it. A gate is one linear layer with a bias and a softmax. The paper's decay of task loss weights
    belongs to training, and is not here: each row has one scenario, and one loss.

    Args:
        field_sizes: Number of values of each categorical field.
        n_scenarios: Number of scenarios.
        embedding_dim: Width of a field's vector.
        levels: Number of levels; 1 is CGC.
        specific: Number of experts of each scenario at each level.
        shared: Number of shared experts at each level.
        expert: Widths of each expert's layers, the same at each level.
        tower: Hidden widths of each scenario's tower.
        dropout: Share dropped in training after the embedding and after every hidden layer.
        embedding: Replaces `FieldEmbedding`; called with ``batch["fields"]``.
        embedding_width: Width of its flattened output; its attribute ``width`` where not given.
        extra_width: Width of the plain input ``batch["extra"]``, appended to the embedding; 0 for none.

    Attributes:
        embedding: The place to tap: fields in, ``[batch, n_fields * embedding_dim]`` out, no dropout.

    Raises:
        ValueError: Sizes, levels, experts or an embedding that cannot be used.

    Example:
        >>> model = PLE(field_sizes=[100, 50], n_scenarios=2)
        >>> batch = {"fields": torch.tensor([[3, 7], [99, 0]]), "scenario": torch.tensor([1, 0])}
        >>> model(batch).shape
        torch.Size([2])
    """

    def __init__(
        self,
        field_sizes: Sequence[int],
        n_scenarios: int,
        embedding_dim: int = 8,
        levels: int = 2,
        specific: int = 2,
        shared: int = 1,
        expert: Sequence[int] = (32,),
        tower: Sequence[int] = (16,),
        dropout: float = 0.2,
        embedding: nn.Module | None = None,
        embedding_width: int | None = None,
        extra_width: int = 0,
    ) -> None:
        if levels < 1:
            raise ValueError(f"levels is {levels}; write a whole number of at least 1.")
        super().__init__()
        self.extra_width = extra_width
        self.embedding, width = build_embedding(field_sizes, embedding_dim, embedding, embedding_width)
        width += extra_width
        self.input_dropout = nn.Dropout(dropout)
        self.inner = nn.ModuleList()
        for _ in range(levels - 1):
            self.inner.append(Extraction(width, expert, n_scenarios, specific, shared, dropout))
            width = expert[-1]
        self.last = CGC(width, expert, n_scenarios, specific, shared, dropout)
        self.towers = nn.ModuleList(Tower(expert[-1], tower, dropout) for _ in range(n_scenarios))

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
        common = rows.sort(self.input_dropout(features(self.embedding, batch, self.extra_width)))
        own = [common] * len(self.towers)  # g^{p,0}(x) = x
        for level in self.inner:
            own, common = level(own, common)
        # From here a row needs what was made for its own scenario only.
        mine = torch.cat([x.split_with_sizes(rows.counts)[p] for p, x in enumerate(own)])
        # y^p(x) = t^p(g^{p,N}(x)).
        return rows.restore(by_scenario(self.towers, self.last(mine, common, rows), rows))
