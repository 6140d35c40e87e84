"""Shared Bottom and STAR against their definitions, one row at a time in numpy, over random shapes."""

from __future__ import annotations

import numpy as np
import pytest
from slow_rows import embed, mlp, randomise, shapes, tower, widths

from msr_enhance.backbones.shared_bottom import SharedBottom
from msr_enhance.backbones.star import STAR


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
