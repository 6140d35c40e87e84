"""STAR as one would serve it: nothing is computed per row that is the same for every row of a scenario."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from msr_enhance.backbones.star import STAR

Layers = list[tuple[Tensor, Tensor]]


class FrozenSTAR(nn.Module):
    """The scores of a STAR in eval mode, from constant weights.

    Normalisation is folded into the first product, shared and scenario weights are multiplied, the
    scenario's embedding is part of the auxiliary network's first bias, and rows run through their own tower.

    Args:
        star: The model, on the device where it serves; its embedding is shared, everything else is copied.
    """

    def __init__(self, star: STAR) -> None:
        super().__init__()
        self.embedding = star.embedding
        self.scenarios = star.n_scenarios
        with torch.no_grad():
            self._towers = [tower(star, scenario) for scenario in range(star.n_scenarios)]
            self._sides = [side(star, scenario) for scenario in range(star.n_scenarios)]
        self.eval().requires_grad_(False)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits `[batch]` of ``fields`` `[batch, fields]` and ``scenario`` `[batch]`."""
        x, scenario = self.embedding(batch["fields"]), batch["scenario"]
        first, last = (int(value) for value in scenario.aminmax())
        if first < 0 or last >= self.scenarios:
            raise ValueError(f"a scenario from {first} to {last}; allowed: 0 to {self.scenarios - 1}")
        if first == last:
            return self._scores(x, first)
        ordered, order = scenario.sort(stable=True)
        sizes = torch.bincount(ordered, minlength=self.scenarios).tolist()
        parts = x[order].split_with_sizes(sizes)
        scores = torch.cat([self._scores(part, number) for number, part in enumerate(parts)])
        return torch.empty_like(scores).index_copy_(0, order, scores)

    def _scores(self, x: Tensor, scenario: int) -> Tensor:
        return (run(x, self._towers[scenario]) + run(x, self._sides[scenario])).squeeze(-1)


def tower(star: STAR, scenario: int) -> Layers:
    """Weights `[inputs, outputs]` and biases of a scenario's tower, its normalisation in the first."""
    norm = star.norm
    scale = norm.gamma * norm.gamma_p[scenario] * (norm.running_var[scenario] + norm.eps).rsqrt()
    shift = norm.beta + norm.beta_p[scenario] - norm.running_mean[scenario] * scale
    layers = [
        ((layer.weight * layer.weight_p[scenario]).t().contiguous(), layer.bias + layer.bias_p[scenario])
        for layer in star.star
    ]
    weight, bias = layers[0]
    layers[0] = (scale[:, None] * weight).contiguous(), bias + shift @ weight
    return layers


def side(star: STAR, scenario: int) -> Layers:
    """Weights and biases of the auxiliary network, its scenario's embedding in the first bias."""
    known = star.scenario_embedding.weight[scenario]
    linear = [layer for layer in star.auxiliary.hidden if isinstance(layer, nn.Linear)]
    layers = [(layer.weight.t().clone(), layer.bias.clone()) for layer in [*linear, star.auxiliary.logit]]
    weight, bias = layers[0]
    layers[0] = weight[len(known) :].contiguous(), bias + known @ weight[: len(known)]
    return layers


def run(x: Tensor, layers: Layers) -> Tensor:
    """Rows through products with a ReLU between them."""
    for weight, bias in layers[:-1]:
        x = torch.addmm(bias, x, weight).relu_()
    weight, bias = layers[-1]
    return torch.addmm(bias, x, weight)
