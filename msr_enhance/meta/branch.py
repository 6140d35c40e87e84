"""A branch: the K generated layers of one level (user or scenario) at one place (bottom or parallel)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.gen import crossover
from msr_enhance.meta.groups import Groups
from msr_enhance.meta.held import tracing
from msr_enhance.meta.layer import GeneratedLayer
from msr_enhance.meta.rms import scaled_rows
from msr_enhance.meta.table import VectorTable

Place = Literal["bottom", "parallel"]
FEW_KEYS = 64
"""So many keys (scenarios) have one weight matrix each, whatever the rank."""


class Branch(nn.Module):
    """Generated layers fed by one level's knowledge.

    `bottom` maps the embedding `[batch, width]` to one of the same width (equations 4 to 7);
    `parallel` maps it to logits `[batch, tasks]` (equation 8), mixed in with a learned `alpha` a task
    (equation 9). The fidelity ``safe`` reads the embedding scaled to size 1 (root mean square of a row).

    Args:
        table: The level's knowledge vectors.
        width: Width of the tapped embedding, flattened.
        place: Where the branch stands.
        config: Shape, start and arithmetic.
        tasks: Logits of a row (parallel).
        few: The keys are few, and each has its own weights (scenarios): no rank, one product a key.
    """

    def __init__(
        self,
        table: VectorTable,
        width: int,
        place: Place,
        config: MetaConfig,
        *,
        tasks: int = 1,
        few: bool = False,
    ) -> None:
        super().__init__()
        self.place, self.config, self.table, self.few = place, config, table, few
        factored = not few and config.rank is not None and config.projection == "learned"
        rank = min(config.rank or table.kept, table.kept) if factored else table.kept
        # The table's directions come in order, so that the leading ones are where learning starts.
        self.projection = nn.Parameter(torch.eye(table.kept, rank)) if factored else None
        widths = [width, *[config.hidden] * (config.layers - 1), width if place == "bottom" else tasks]
        layers = [GeneratedLayer(rank, *pair, table.size) for pair in pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        self.alpha = nn.Parameter(torch.full((tasks,), config.alpha)) if place == "parallel" else None
        if config.fidelity == "safe":
            layers[-1].zero()
        else:
            # Equation 7 ends in a ReLU: a start above zero keeps every row's gradient alive.
            nn.init.constant_(layers[-1].bias[0], 0.1)

    @property
    def rank(self) -> int:
        """Numbers of a condition: what the weights of a layer are generated from."""
        return self.generated[0].weight.shape[0] - 1

    @property
    def generated(self) -> list[GeneratedLayer]:
        """The layers, typed."""
        return cast("list[GeneratedLayer]", list(self.layers))

    def forward(
        self, x: Tensor, keys: Tensor, logits: Tensor | None = None, scaled: Tensor | None = None
    ) -> Tensor:
        """The embedding that the backbone reads instead of x (bottom), or the mixed logits (parallel).

        `safe` takes `h_s = h + g_s`, so that `alpha h_s + (1 - alpha) h` becomes `h + alpha g_s`.

        Args:
            x: The tapped embedding, `[batch, width]`.
            keys: Rows of the vector table, `[batch]`, -1 for an unknown one; or raw vectors `[batch, dim]`.
            logits: The backbone's, `[batch, tasks]` (parallel only); without them `safe` gives what is to be
                added to them.
            scaled: `scaled(x)`, where another branch has made it already.
        """
        return self.joined(x, self.generate(x, keys, scaled), logits)

    def joined(self, x: Tensor, made: Tensor, logits: Tensor | None) -> Tensor:
        """What the layers made, and what was there before: see `forward`."""
        paper = self.config.fidelity == "paper"
        if self.alpha is None:
            made = made.to(x.dtype)
            return made if paper else x + made
        if logits is None:
            if paper:
                raise ValueError("a parallel branch mixes logits, and none are given")
            return self.alpha * made
        alpha, made = self.alpha.to(logits.dtype), made.to(logits.dtype)
        return alpha * made + (1 - alpha) * logits if paper else logits + alpha * made

    def generate(self, x: Tensor, keys: Tensor, scaled: Tensor | None = None) -> Tensor:
        """Result of the K generated layers, `[batch, width]` or `[batch, tasks]`; see `forward`."""
        config = self.config
        if self.training and config.knowledge_dropout > 0:
            drop = torch.rand(len(keys), device=keys.device) < config.knowledge_dropout
            keys = (
                torch.where(drop[:, None], 0.0, keys)
                if keys.is_floating_point()
                else torch.where(drop, -1, keys)
            )
        x = functional.dropout(self.scaled(x) if scaled is None else scaled, config.dropout, self.training)
        if self.few and (tracing() or x.device.type != "cpu"):
            return self._picked(x, keys)
        groups = self._groups(x, keys)
        if groups is None:
            z = self.condition(keys)
            return self.through(x, lambda layer, x: layer.mixed(x, z))
        z = self.condition(groups.distinct)
        return groups.restore(self.through(groups.sort(x), lambda layer, x: layer.grouped(x, z, groups)))

    def scaled(self, x: Tensor) -> Tensor:
        """The embedding as the layers read it, `[batch, width]`."""
        x = x.to(
            cast("GeneratedLayer", self.layers[0]).weight.dtype
        )  # a bfloat16 backbone may have float32 generated layers
        # Embeddings of 0.05 or of 5 would start learning at speeds four orders of magnitude apart;
        # the generated weights are made for inputs of size 1.
        return scaled_rows(x) if self.config.fidelity == "safe" else x

    def condition(self, keys: Tensor) -> Tensor:
        """What the weights are generated from `[keys, rank]`, for table rows or raw vectors."""
        known = self.table(keys).to(self.generated[0].weight.dtype)
        projected: Tensor = known if self.projection is None else known @ self.projection
        return projected

    def _groups(self, x: Tensor, keys: Tensor) -> Groups | None:
        """Rows by key where weights are made for keys; None where outputs are mixed."""
        config = self.config
        if keys.is_floating_point() or tracing():
            return None
        whole = config.rank is None
        # Finding groups makes the host wait for a GPU, where mixing costs next to nothing.
        waits = x.device.type != "cpu" and config.path == "auto" and not whole
        if not self.few and (config.path == "mix" or waits):
            return None
        groups = Groups(keys)
        chosen = self.few or whole or config.path == "gen" or crossover(groups.rho, self.rank)
        return groups if chosen else None

    def _picked(self, x: Tensor, keys: Tensor) -> Tensor:
        """All keys' weights on every row, and the row's own result: shapes do not depend on the data."""
        every = torch.arange(self.table.keys + 1, device=keys.device)
        every = torch.where(every == self.table.keys, -1, every)
        z = self.condition(every)
        rows = torch.where(keys < 0, self.table.keys, keys)
        return self.through(x, lambda layer, x: layer.picked(x, z, rows))

    def through(self, x: Tensor, apply: Callable[[GeneratedLayer, Tensor], Tensor]) -> Tensor:
        """X through the layers; a ReLU after all but the last, and after it, too, in the paper's form."""
        layers = self.generated
        for number, layer in enumerate(layers):
            x = apply(layer, x)
            if number + 1 < len(layers) or self.config.fidelity == "paper":
                x = torch.relu(x)
        return x
