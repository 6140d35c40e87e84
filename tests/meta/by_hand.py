"""The slow way, written apart from the layers: every row's weights, number by number."""

from __future__ import annotations

import torch
from torch import Tensor

from msr_enhance.meta.layer import GeneratedLayer


def by_hand(layer: GeneratedLayer, x: Tensor, z: Tensor) -> Tensor:
    """One row at a time: generate its weight matrix and bias number by number, then multiply."""
    rows = [x.new_zeros(0, layer.bias.shape[1])]
    for row in range(len(x)):
        weight = layer.weight[0].clone()
        bias = layer.bias[0].clone()
        for k in range(z.shape[1]):
            weight = weight + z[row, k] * layer.weight[k + 1]
            bias = bias + z[row, k] * layer.bias[k + 1]
        rows.append((x[row, :, None] * weight).sum(0, keepdim=True) + bias)
    return torch.cat(rows)
