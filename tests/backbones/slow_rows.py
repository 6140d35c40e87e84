"""Random models and batches, and the layers that all backbones share, one row at a time in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

State = dict[str, Any]


def shapes(seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=rng.integers(1, 5)).tolist()
    n, rows, extra = int(rng.integers(1, 5)), int(rng.integers(1, 30)), int(rng.integers(0, 3))
    arguments = {
        "field_sizes": sizes,
        "n_scenarios": n,
        "embedding_dim": int(rng.integers(1, 6)),
        "dropout": 0.0,
        "extra_width": extra,
    }
    batch = {
        "fields": torch.from_numpy(np.stack([rng.integers(size, size=rows) for size in sizes], axis=1)),
        "scenario": torch.from_numpy(rng.integers(n, size=rows)),
        "extra": torch.from_numpy(rng.normal(size=(rows, extra))),
    }
    return arguments, batch


def widths(seed: int, least: int) -> tuple[int, ...]:
    rng = np.random.default_rng([seed, 1])
    return tuple(rng.integers(1, 8, size=rng.integers(least, 4)).tolist())


def randomise(model: nn.Module, seed: int) -> State:
    """Random values in every parameter and average; return them as arrays."""
    rng = np.random.default_rng([seed, 2])
    model.double()
    for name, value in model.state_dict().items():
        drawn = rng.uniform(0.5, 2.0, value.shape) if name.endswith("var") else rng.normal(size=value.shape)
        value.copy_(torch.from_numpy(drawn))
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def embed(state: State, sizes: list[int], batch: dict[str, Tensor], row: int) -> Any:
    """Look up one row: each field's vectors start where those of the fields before end."""
    table, start, vectors = state["embedding.table.weight"], 0, []
    for size, value in zip(sizes, batch["fields"][row].tolist(), strict=True):
        vectors.append(table[start + value])
        start += size
    return np.concatenate([*vectors, batch["extra"][row].numpy()])


def linear(state: State, prefix: str, x: Any) -> Any:
    return state[f"{prefix}.weight"] @ x + state[f"{prefix}.bias"]


def mlp(state: State, prefix: str, layers: int, x: Any) -> Any:
    for layer in range(layers):  # Linear, ReLU and Dropout make three modules a layer
        x = np.maximum(linear(state, f"{prefix}.{3 * layer}", x), 0.0)
    return x


def tower(state: State, prefix: str, layers: int, x: Any) -> float:
    return float(linear(state, f"{prefix}.logit", mlp(state, f"{prefix}.hidden", layers, x))[0])


def softmax(scores: Any) -> Any:
    shifted = np.exp(scores - np.max(scores))
    return shifted / shifted.sum()
