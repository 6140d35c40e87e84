"""OMoE, MMoE, PLE and AITM against their definitions, one row and one expert at a time in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from slow_rows import State, embed, linear, mlp, randomise, shapes, softmax, tower, widths

from msr_enhance.backbones.aitm import AITM
from msr_enhance.backbones.mmoe import MMoE
from msr_enhance.backbones.omoe import OMoE
from msr_enhance.backbones.ple import PLE

SEEDS = range(20)
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def fused(state: State, gate: str, x: Any, outputs: list[Any]) -> Any:
    """Experts weighed by the softmax of a linear layer of `x`."""
    weights, total = softmax(linear(state, gate, x)), 0.0
    assert len(weights) == len(outputs)
    for weight, output in zip(weights, outputs, strict=True):
        total = total + weight * output
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("backbone", [OMoE, MMoE])
def test_mixtures_weigh_shared_experts_by_one_gate_or_the_scenarios(backbone: Any, seed: int) -> None:
    arguments, batch = shapes(seed)
    count, layers, heads = 1 + seed % 4, widths(seed, least=1), widths(seed + 100, least=0)
    model = backbone(**arguments, experts=count, expert=layers, tower=heads)
    state = randomise(model, seed)
    expected = []
    for row, p in enumerate(batch["scenario"].tolist()):
        x = embed(state, arguments["field_sizes"], batch, row)
        outputs = [mlp(state, f"experts.{i}", len(layers), x) for i in range(count)]
        f = fused(state, "gate" if backbone is OMoE else f"gates.{p}", x, outputs)
        expected.append(tower(state, f"towers.{p}", len(heads), f))
    np.testing.assert_allclose(model(batch).detach().numpy(), expected, **CLOSE)


def ple_row(state: State, x: Any, p: int, sizes: dict[str, int]) -> Any:
    """Every level with the experts and gates of every scenario, for one row; p is taken at the end."""
    n, levels, layers = sizes["n"], sizes["levels"], sizes["layers"]
    inputs, common = [x] * n, x
    for level in range(1, levels + 1):
        name = "last" if level == levels else f"inner.{level - 1}"
        own = {
            (k, i): mlp(state, f"{name}.specific.{k}.{i}", layers, inputs[k])
            for k in range(n)
            for i in range(sizes["specific"])
        }
        shared = [mlp(state, f"{name}.shared.{i}", layers, common) for i in range(sizes["shared"])]
        after = []
        for k in range(n):
            mine = [own[k, i] for i in range(sizes["specific"])]
            after.append(fused(state, f"{name}.gates.{k}", inputs[k], mine + shared))
        if level < levels:
            every = [own[k, i] for k in range(n) for i in range(sizes["specific"])]
            common = fused(state, f"{name}.shared_gate", common, every + shared)
        inputs = after
    return inputs[p]


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_ple_is_levels_of_own_and_shared_experts(seed: int, levels: int) -> None:
    arguments, batch = shapes(seed)
    specific, shared = 1 + seed % 2, 1 + seed // 2 % 3
    layers, heads = widths(seed, least=1), widths(seed + 100, least=0)
    kinds = {"levels": levels, "specific": specific, "shared": shared}
    model = PLE(**arguments, **kinds, expert=layers, tower=heads)
    state = randomise(model, seed)
    assert not any("last.shared_gate" in name for name in state)
    sizes = {**kinds, "n": arguments["n_scenarios"], "layers": len(layers)}
    expected = []
    for row, p in enumerate(batch["scenario"].tolist()):
        x = embed(state, arguments["field_sizes"], batch, row)
        expected.append(tower(state, f"towers.{p}", len(heads), ple_row(state, x, p, sizes)))
    np.testing.assert_allclose(model(batch).detach().numpy(), expected, **CLOSE)


def ait(state: State, passed: Any, own: Any) -> Any:
    """Attention over what came and one's own, with the three projections of the paper."""
    h1, h2, h3 = (state[f"attention.{name}.weight"] for name in ("h1", "h2", "h3"))
    scores = [float((h2 @ u) @ (h3 @ u)) / np.sqrt(len(own)) for u in (passed, own)]
    weights = softmax(np.array(scores))
    return weights[0] * (h1 @ passed) + weights[1] * (h1 @ own)


@pytest.mark.parametrize("seed", SEEDS)
def test_aitm_hands_on_along_its_order(seed: int) -> None:
    arguments, batch = shapes(seed)
    n, layers = arguments["n_scenarios"], widths(seed, least=0)
    order = np.random.default_rng([seed, 3]).permutation(n).tolist() if seed % 3 else None
    model = AITM(**arguments, tower=layers, order=order)
    state = randomise(model, seed)
    expected = []
    for row, p in enumerate(batch["scenario"].tolist()):
        x = embed(state, arguments["field_sizes"], batch, row)
        logits, z = {}, None
        for t, k in enumerate(order or range(n)):
            q = mlp(state, f"towers.{k}", len(layers), x)
            z = q if z is None else ait(state, mlp(state, f"transfers.{t - 1}", 1, z), q)
            logits[k] = float(linear(state, f"logits.{k}", z)[0])
        expected.append(logits[p])
    np.testing.assert_allclose(model(batch).detach().numpy(), expected, **CLOSE)


def test_another_order_is_another_model() -> None:
    batch = {"fields": torch.tensor([[1], [2], [0]]), "scenario": torch.tensor([0, 1, 2])}
    models = [AITM([3], 3, order=order).eval() for order in ((0, 1, 2), (2, 1, 0))]
    models[1].load_state_dict(models[0].state_dict())
    assert not torch.allclose(models[0](batch), models[1](batch))


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3), ()])
def test_an_order_that_is_none_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="write each of 0 to 2 once"):
        AITM([3], 3, order=order)


@pytest.mark.parametrize(
    ("backbone", "arguments", "seen"),
    [
        (OMoE, {"experts": 0}, "0 experts"),
        (MMoE, {"experts": -1}, "-1 experts"),
        (MMoE, {"expert": ()}, r"layers \[\]"),
        (PLE, {"specific": 0}, "0 experts"),
        (PLE, {"shared": 0}, "0 experts"),
        (PLE, {"expert": (), "levels": 2}, r"layers \[\]"),
        (PLE, {"levels": 0}, "levels is 0"),
    ],
)
def test_a_mixture_of_nothing_is_refused(backbone: Any, arguments: dict[str, Any], seen: str) -> None:
    with pytest.raises(ValueError, match=seen):
        backbone([3, 4], 2, **arguments)
