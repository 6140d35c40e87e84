"""Shared Bottom and STAR against their definitions, one row at a time in numpy, over random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msr_enhance.backbones.shared_bottom import SharedBottom
from msr_enhance.backbones.star import STAR

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


def mlp(state: State, prefix: str, layers: int, x: Any) -> Any:
    for layer in range(layers):  # Linear, ReLU and Dropout make three modules a layer
        name = f"{prefix}.{3 * layer}"
        x = np.maximum(state[f"{name}.weight"] @ x + state[f"{name}.bias"], 0.0)
    return x


def tower(state: State, prefix: str, layers: int, x: Any) -> float:
    hidden = mlp(state, f"{prefix}.hidden", layers, x)
    return float((state[f"{prefix}.logit.weight"] @ hidden + state[f"{prefix}.logit.bias"])[0])


@pytest.mark.parametrize("seed", range(20))
def test_shared_bottom_is_one_bottom_and_the_tower_of_the_row(seed: int) -> None:
    arguments, batch = shapes(seed)
    bottom, heads = widths(seed, least=1), widths(seed + 100, least=0)
    model = SharedBottom(**arguments, bottom=bottom, tower=heads)
    state = randomise(model, seed)
    expected = []
    for row, p in enumerate(batch["scenario"].tolist()):
        shared = mlp(state, "bottom", len(bottom), embed(state, arguments["field_sizes"], batch, row))
        expected.append(tower(state, f"towers.{p}", len(heads), shared))
    np.testing.assert_allclose(model(batch).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_star_is_norm_star_layers_and_an_added_auxiliary_logit(seed: int, train: bool) -> None:
    arguments, batch = shapes(seed)
    hidden, auxiliary = widths(seed, least=0), widths(seed + 100, least=0)
    model = STAR(**arguments, hidden=hidden, auxiliary=auxiliary).train(train)
    state = randomise(model, seed)
    scenario = batch["scenario"].tolist()
    e = np.stack([embed(state, arguments["field_sizes"], batch, row) for row in range(len(scenario))])
    expected = []
    for row, p in enumerate(scenario):
        own = e[[other == p for other in scenario]]
        mean, var = state["norm.running_mean"][p], state["norm.running_var"][p]
        if train and len(own) > 1:
            mean, var = own.mean(axis=0), own.var(axis=0)
        scale = state["norm.gamma"] * state["norm.gamma_p"][p]
        main = scale * (e[row] - mean) / np.sqrt(var + 1e-5) + state["norm.beta"] + state["norm.beta_p"][p]
        for layer in range(len(hidden) + 1):
            star = {name: state[f"star.{layer}.{name}"] for name in ("weight", "weight_p", "bias", "bias_p")}
            main = (star["weight_p"][p] * star["weight"]) @ main + star["bias_p"][p] + star["bias"]
            if layer < len(hidden):
                main = np.maximum(main, 0.0)
        side = np.concatenate([state["scenario_embedding.weight"][p], e[row]])
        expected.append(main[0] + tower(state, "auxiliary", len(auxiliary), side))
    np.testing.assert_allclose(model(batch).detach().numpy(), expected, rtol=1e-7, atol=1e-7)
