"""Parts of the reference backbones: embeddings, towers, and layers that belong to a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = Mapping[str, Tensor]


class FieldEmbedding(nn.Module):
    """One vector for each value of each categorical field, all fields in a single table.

    Args:
        sizes: Number of values of each field; field ``i`` holds indices ``0 .. sizes[i] - 1``.
        dim: Width of a vector.

    Attributes:
        width: Width of the output, ``len(sizes) * dim``.

    Raises:
        ValueError: No field, or a field without values.
    """

    offsets: Tensor
    sizes: Tensor

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes is {list(sizes)}; write one whole number of at least 1 for each field.")
        self.width = len(sizes) * dim
        counts = torch.tensor(sizes)
        self.register_buffer("sizes", counts, persistent=False)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)
        self.table = nn.Embedding(sum(sizes), dim)
        nn.init.normal_(self.table.weight, std=0.05)

    def forward(self, fields: Tensor) -> Tensor:
        """Look up every field of every row.

        Args:
            fields: Indices, ``[batch, n_fields]``, integer.

        Returns:
            The vectors side by side, ``[batch, n_fields * dim]``.

        Raises:
            ValueError: A wrong number of fields, or (checked on the CPU only, where it costs no
                synchronisation) an index outside its field, which would read another field's vector.
        """
        if fields.ndim != 2 or fields.shape[1] != len(self.sizes):
            raise ValueError(f"fields has shape {list(fields.shape)}; write [batch, {len(self.sizes)}].")
        if fields.device.type == "cpu" and (wrong := (fields < 0) | (fields >= self.sizes)).any():
            row, field = wrong.nonzero()[0].tolist()
            size = int(self.sizes[field])
            raise ValueError(
                f"fields[{row}, {field}] is {int(fields[row, field])}; field {field} has size {size}, "
                f"allowed 0 to {size - 1}. Encode it with the index the model was built for."
            )
        vectors: Tensor = self.table(fields + self.offsets)
        return vectors.flatten(1)


class MLP(nn.Sequential):
    """Linear, ReLU, dropout for each hidden width; ``[batch, in] -> [batch, width]``.

    Args:
        width: Width of the input.
        hidden: Width of each layer; none makes it the identity.
        dropout: Share of each layer's outputs dropped in training.

    Attributes:
        width: Width of the output.
    """

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for out in hidden:
            layers += [nn.Linear(width, out), nn.ReLU(), nn.Dropout(dropout)]
            width = out
        super().__init__(*layers)
        self.width = width


class Tower(nn.Module):
    """An MLP that ends in one logit; takes the arguments of `MLP`."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.hidden = MLP(width, hidden, dropout)
        self.logit = nn.Linear(self.hidden.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in] -> [batch]``, logits."""
        logits: Tensor = self.logit(self.hidden(x))
        return logits.squeeze(-1)


class ScenarioRows:
    """The rows of a batch in scenario order, so that each runs only through its own weights.

    Args:
        scenario: Scenario of each row, ``[batch]``, integer.
        n_scenarios: Number of scenarios.

    Attributes:
        scenario: Scenario of each row after `sort`, ``[batch]``, ascending.
        counts: Number of rows of each scenario, zero where it is absent.

    Raises:
        ValueError: `scenario` is not a vector of whole numbers, or names a scenario that is not there.
    """

    def __init__(self, scenario: Tensor, n_scenarios: int) -> None:
        if scenario.ndim != 1 or scenario.is_floating_point():
            raise ValueError(
                f"scenario is {scenario.dtype}, shape {list(scenario.shape)}; write whole numbers, [batch]."
            )
        wrong = (scenario < 0) | (scenario >= n_scenarios)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"scenario[{row}] is {int(scenario[row])}; allowed 0 to {n_scenarios - 1}. Encode it with "
                "the index the model was built for, or build the model with a larger n_scenarios=."
            )
        self.scenario, self._order = scenario.long().sort(stable=True)
        self.counts: list[int] = torch.bincount(self.scenario, minlength=n_scenarios).tolist()

    def sort(self, x: Tensor) -> Tensor:
        """Bring rows ``[batch, ...]`` into scenario order.

        Raises:
            ValueError: Another number of rows, which the sort would drop silently.
        """
        if len(x) != len(self._order):
            raise ValueError(
                f"fields has {len(x)} rows and scenario {len(self._order)}; write as many of each."
            )
        return x[self._order]

    def restore(self, x: Tensor) -> Tensor:
        """Bring sorted rows ``[batch, ...]`` back into the order of the batch."""
        return torch.empty_like(x).index_copy(0, self._order, x)


class PartitionedNorm(nn.Module):
    """Batch normalisation with the statistics of each row's own scenario.

    Scale is ``gamma * gamma_p`` and shift ``beta + beta_p``: one shared factor and one of scenario p.

    Args:
        width: Width of the rows.
        n_scenarios: Number of scenarios.
        momentum: Weight of a new batch in the running averages.
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor
    updates: Tensor

    def __init__(self, width: int, n_scenarios: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))
        self.gamma_p = nn.Parameter(torch.ones(n_scenarios, width))
        self.beta_p = nn.Parameter(torch.zeros(n_scenarios, width))
        self.register_buffer("running_mean", torch.zeros(n_scenarios, width))
        self.register_buffer("running_var", torch.ones(n_scenarios, width))
        self.register_buffer("updates", torch.zeros(n_scenarios, 1))

    def forward(self, x: Tensor, rows: ScenarioRows) -> Tensor:
        """Normalise ``x``, ``[batch, width]`` in the order of ``rows``; the shape stays.

        In training a scenario with two rows or more uses the statistics of its rows in this batch;
        one with fewer has none, and uses its running averages as everything does in evaluation.
        """
        p = rows.scenario
        mean, var = self._statistics(x, p) if self.training else (self.running_mean, self.running_var)
        # z' = (gamma * gamma_p) (z - mu_p) / sqrt(var_p + eps) + (beta + beta_p); E_p, Var_p in evaluation.
        normal = (x - mean[p]) * (var + self.eps).rsqrt()[p]
        return (self.gamma * self.gamma_p)[p] * normal + (self.beta + self.beta_p)[p]

    def _statistics(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        # Segment sums, not a loop over scenarios: no scenario needs a kernel or a branch of its own.
        zeros = torch.zeros_like(self.running_mean)
        count = zeros[:, :1].index_add(0, p, x.new_ones(len(x), 1))
        mean = zeros.index_add(0, p, x) / count.clamp(min=1)
        var = zeros.index_add(0, p, (x - mean[p]).square()) / count.clamp(min=1)
        enough = count >= 2
        self._update(mean.detach(), var.detach() * count / (count - 1).clamp(min=1), enough)
        return torch.where(enough, mean, self.running_mean), torch.where(enough, var, self.running_var)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, enough: Tensor) -> None:
        self.updates += enough
        # A plain average until 1 / momentum batches are in: small embeddings are far from the (0, 1) start,
        # and a short run or a rare scenario would otherwise be evaluated with what is left of it.
        step = torch.where(enough, self.updates.reciprocal().clamp(min=self.momentum), 0.0)
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(var, step)


class StarLinear(nn.Module):
    """A linear layer whose weights are the shared ones times those of the row's scenario.

    ``W* = W_p * W`` (elementwise), ``b* = b_p + b``. Scenario weights start at one and biases at zero:
    two independently drawn factors would all but extinguish the signal in a few layers.

    Args:
        width: Width of the input.
        out: Width of the output.
        n_scenarios: Number of scenarios.
    """

    def __init__(self, width: int, out: int, n_scenarios: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(out, width)))
        self.bias = nn.Parameter(torch.zeros(out))
        self.weight_p = nn.Parameter(torch.ones(n_scenarios, out, width))
        self.bias_p = nn.Parameter(torch.zeros(n_scenarios, out))

    def forward(self, x: Tensor, rows: ScenarioRows) -> Tensor:
        """``[batch, in] -> [batch, out]``, both in the order of ``rows``."""
        # W*_p = W_p * W (elementwise), b*_p = b_p + b.
        weights, biases = self.weight * self.weight_p, self.bias + self.bias_p
        parts = zip(x.split_with_sizes(rows.counts), weights, biases, strict=True)
        return torch.cat([F.linear(part, weight, bias) for part, weight, bias in parts])


def build_embedding(
    sizes: Sequence[int], dim: int, embedding: nn.Module | None, width: int | None
) -> tuple[nn.Module, int]:
    """Take the caller's embedding, or build a `FieldEmbedding`.

    Args:
        sizes: Number of values of each field; only read where no embedding is given.
        dim: Width of a field's vector; only read where no embedding is given.
        embedding: Called with the fields; gives ``[batch, width]`` or ``[batch, n_fields, dim]``.
        width: Width of its flattened output; its attribute ``width`` where not given.

    Returns:
        The embedding and the width of its flattened output.

    Raises:
        ValueError: The width of the caller's embedding is not known.
    """
    if embedding is None:
        built = FieldEmbedding(sizes, dim)
        return built, built.width
    width = getattr(embedding, "width", None) if width is None else width
    if not isinstance(width, int):
        raise ValueError(
            f"the width of {type(embedding).__name__} is not known; write embedding_width= with the width of "
            "its flattened output."
        )
    return embedding, width


def features(embedding: nn.Module, batch: Batch, extra_width: int) -> Tensor:
    """Embed ``batch["fields"]``, and append ``batch["extra"]`` where the model was built for it.

    Args:
        embedding: Called with ``batch["fields"]``, ``[batch, n_fields]``.
        batch: Tensors by name.
        extra_width: Width of ``batch["extra"]``; 0 leaves it unread.

    Returns:
        ``[batch, width + extra_width]``.

    Raises:
        ValueError: ``batch["extra"]`` is missing or of another shape.
    """
    embedded: Tensor = embedding(batch["fields"]).flatten(1)
    if not extra_width:
        return embedded
    extra, allowed = batch.get("extra"), [len(embedded), extra_width]
    if extra is None or list(extra.shape) != allowed:
        seen = "missing" if extra is None else f"of shape {list(extra.shape)}"
        raise ValueError(f'batch["extra"] is {seen}; this model was built for {allowed}, see extra_width=.')
    return torch.cat([embedded, extra], dim=1)
