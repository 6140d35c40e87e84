"""A branch: the K generated layers of one level (user or scenario) at one place (bottom or parallel)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.layer import GeneratedLayer, Groups
from msr_enhance.meta.table import VectorTable

Place = Literal["bottom", "parallel"]
FEW_KEYS = 64


class Branch(nn.Module):
    """Generated layers fed by one level's knowledge.

    `bottom` maps the embedding `[batch, width]` to one of the same width (equations 4 to 7);
    `parallel` maps it to a logit `[batch]` (equation 8), mixed in with its own learned `alpha`
    (equation 9). The start ``safe`` reads the embedding scaled to size 1 (root mean square of a row).

    Args:
        table: The level's knowledge vectors.
        width: Width of the tapped embedding, flattened.
        place: Where the branch stands.
        config: Shape and start.
    """

    def __init__(self, table: VectorTable, width: int, place: Place, config: MetaConfig) -> None:
        super().__init__()
        self.place = place
        self.config = config
        self.table = table
        directions = table.leading(config.rank) if config.rank is not None else None
        self.projection = None if directions is None else nn.Parameter(directions)
        # Weights for each distinct key where keys are few (scenarios) or nothing is projected; else only
        # outputs are mixed. Chosen once, so that a row's arithmetic does not depend on its batch.
        self._grouped = self.projection is None or table.keys <= FEW_KEYS
        condition = table.dim if self.projection is None else self.projection.shape[1]
        widths = [width, *[config.hidden] * (config.layers - 1), width if place == "bottom" else 1]
        layers = [GeneratedLayer(condition, *pair) for pair in pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        self.alpha = nn.Parameter(torch.full((1,), config.alpha)) if place == "parallel" else None
        last = layers[-1]
        if config.fidelity == "safe":
            last.zero()
        else:
            # Equation 7 ends in a ReLU: a start above zero keeps every row's gradient alive.
            nn.init.constant_(last.bias[0], 0.1)

    def generate(self, x: Tensor, keys: Tensor) -> Tensor:
        """Result of the K generated layers, `[batch, width]` or `[batch, 1]`.

        Args:
            x: The tapped embedding, `[batch, width]`.
            keys: Rows of the vector table, `[batch]`; -1 is unknown and means zero knowledge.
        """
        config = self.config
        layers = cast("list[GeneratedLayer]", list(self.layers))
        x = x.to(layers[0].weight.dtype)  # a bfloat16 backbone may have float32 generated layers
        if self.training and config.knowledge_dropout > 0:
            drop = torch.rand(keys.shape, device=keys.device) < config.knowledge_dropout
            keys = torch.where(drop, -1, keys)
        if config.fidelity == "safe":
            # Embeddings of 0.05 or of 5 would start learning at speeds four orders of magnitude apart;
            # the generated weights are made for inputs of size 1.
            x = functional.rms_norm(x, x.shape[1:], eps=1e-6)
        x = functional.dropout(x, config.dropout, self.training)
        groups = Groups(keys) if self._grouped else None
        vectors = self.table(keys if groups is None else groups.distinct).to(x.dtype)
        condition = vectors if self.projection is None else vectors @ self.projection
        for number, layer in enumerate(layers):
            x = layer.mixed(x, condition) if groups is None else layer.grouped(x, condition, groups)
            if number + 1 < len(self.layers) or config.fidelity == "paper":
                x = torch.relu(x)
        return x

    def reshape(self, x: Tensor, keys: Tensor) -> Tensor:
        """The embedding that the backbone reads instead of x, `[batch, width]` (bottom)."""
        generated = self.generate(x, keys).to(x.dtype)
        return generated if self.config.fidelity == "paper" else x + generated

    def mix(self, logit: Tensor, x: Tensor, keys: Tensor) -> Tensor:
        """The logit after this branch's share, `[batch]` (parallel, equation 9).

        `safe` takes `h_s = h + g_s`, so `alpha h_s + (1 - alpha) h` becomes `h + alpha g_s`.
        """
        generated = self.generate(x, keys).squeeze(1).to(logit.dtype)
        if self.alpha is None:
            raise RuntimeError("a bottom branch has no logit to mix")
        alpha = self.alpha.to(logit.dtype)
        if self.config.fidelity == "paper":
            return alpha * generated + (1 - alpha) * logit
        return logit + alpha * generated
