"""The start, the equations and the learning of generated layers, against slow references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from in_house import (
    PLACEMENTS,
    InHouse,
    batch,
    knowledge,
    shake,
    wrap,
)
from torch import Tensor, nn

from msr_enhance.meta.config import MetaConfig
from msr_enhance.wrap.model import EnhancedModel


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shape", [{}, {"fields": True}, {"column": True}, {"probability": True}])
@pytest.mark.parametrize(("rank", "path"), [(2, "mix"), (2, "gen"), (None, "auto")])
def test_starts_as_the_plain_model_bit_for_bit(
    placement: dict[str, Any],
    shape: dict[str, bool],
    rank: int | None,
    path: Any,
) -> None:
    torch.manual_seed(0)
    backbone = InHouse(**shape).eval()
    plain = backbone(batch())
    output = "probability" if shape.get("probability") else "logit"
    model = wrap(backbone, placement=placement, output=output, meta=MetaConfig(rank=rank, path=path)).eval()
    assert torch.equal(model(batch()), plain)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_within_three_steps_everything_has_learned(placement: dict[str, Any], layers: int) -> None:
    torch.manual_seed(0)
    model = wrap(InHouse(), placement=placement, meta=MetaConfig(layers=layers, rank=2))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    moved = {name: False for name, _ in model.meta.named_parameters()}
    for step in range(3):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(
            model(batch(64, step)), torch.arange(64) % 2.0
        ).backward()
        for name, weight in model.meta.named_parameters():
            moved[name] |= weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        optimizer.step()
    assert all(moved.values()), [name for name, did in moved.items() if not did]


def scaled(vectors: np.ndarray) -> Tensor:
    centred = torch.from_numpy(vectors - vectors.mean(0))
    return centred / centred.norm(dim=1, keepdim=True)


def by_the_equations(model: EnhancedModel, data: dict[str, Tensor], source: dict[str, Any]) -> Tensor:
    """A row at a time, from equations 4 to 9: the slow reference, in eval mode."""
    backbone = model.backbone
    results = []
    for row in range(len(data["user"])):
        e = torch.cat([backbone.users(data["user"][row]), backbone.items(data["item"][row])])
        made = {}
        for level in model.meta:
            branch = model.meta[level]
            vector = scaled(source[level][1])[data[level][row]]
            z = vector if branch.table.basis is None else vector @ branch.table.basis
            z = z if branch.projection is None else z @ branch.projection
            made[level] = (branch, z)

        def generated(level: str, h: Tensor, made: dict[str, Any] = made) -> Tensor:
            branch, z = made[level]
            if branch.config.fidelity == "safe":
                h = h / h.square().mean().sqrt()
            for k, layer in enumerate(branch.layers):
                weight = layer.weight[0] + torch.einsum("k,kij->ij", z, layer.weight[1:])
                bias = layer.bias[0] + z @ layer.bias[1:]
                h = h @ weight + bias
                if branch.config.fidelity == "paper" or k + 1 < len(branch.layers):
                    h = torch.relu(h)
            return h

        h = e
        for level in ("scenario", "user"):
            if level in made and made[level][0].place == "bottom":
                new = generated(level, h)
                h = new if made[level][0].config.fidelity == "paper" else h + new
        y = backbone.deep(h[None])[0, 0]
        for level in ("user", "scenario"):
            if level in made and made[level][0].place == "parallel":
                alpha, g = made[level][0].alpha[0], generated(level, e)[0]
                if made[level][0].config.fidelity == "paper":
                    y = alpha * g + (1 - alpha) * y
                else:
                    y = alpha * (y + g) + (1 - alpha) * y
        results.append(y)
    return torch.stack(results)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("fidelity", ["safe", "paper"])
@pytest.mark.parametrize(
    ("rank", "path", "projection"),
    [(3, "mix", "learned"), (3, "gen", "learned"), (3, "auto", "frozen"), (None, "auto", "learned")],
)
def test_equals_a_slow_loop_over_the_equations(
    placement: dict[str, Any], fidelity: Any, rank: int | None, path: Any, projection: Any
) -> None:
    torch.manual_seed(1)
    meta = MetaConfig(rank=rank, fidelity=fidelity, hidden=5, path=path, projection=projection)
    model = shake(wrap(InHouse().eval(), placement=placement, meta=meta))
    data = batch(17)
    torch.testing.assert_close(model(data), by_the_equations(model, data, knowledge()), rtol=1e-4, atol=1e-5)


def test_fidelity_paper_means_its_defaults() -> None:
    model = wrap(InHouse(), fidelity="paper")
    config = model.meta["user"].config
    assert (config.rank, config.hidden, config.layers, config.alpha) == (None, 64, 2, 0.5)
    assert model.meta["user"].projection is None


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = shake(wrap(InHouse().eval(), meta=MetaConfig(rank=None)))
    data = batch(30)
    whole = model(data)
    for row in range(30):
        alone = model({name: values[row : row + 1] for name, values in data.items()})
        torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-5, atol=1e-6)
