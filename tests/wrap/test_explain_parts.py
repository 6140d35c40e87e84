"""The parts of a score, against the equations in plain loops, for every placement and both fidelities."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from in_house import PLACEMENTS, SCENARIOS, InHouse, batch, knowledge, shake, wrap

from msr_enhance.meta.config import MetaConfig
from msr_enhance.wrap.explain import explain
from msr_enhance.wrap.model import EnhancedModel

ROWS = batch()
SAFE = MetaConfig(rank=3)
PAPER = MetaConfig.for_fidelity("paper")


def array(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().double().numpy()


def layers(model: EnhancedModel, level: str, x: np.ndarray, row: int) -> np.ndarray:
    """What the K generated layers of one row make of x (equations 4 to 8), weight by weight."""
    branch = model.branches[level]
    place = int(ROWS[level][row])
    vector = knowledge()[level][1][place].astype(np.float64) - array(branch.table.mean)
    vector /= np.linalg.norm(vector)
    if branch.table.basis is not None:
        vector = vector @ array(branch.table.basis)
    z = vector if branch.projection is None else vector @ array(branch.projection)
    paper = branch.config.fidelity == "paper"
    h = x if paper else x / np.sqrt((x**2).mean() + 1e-6)
    for number, layer in enumerate(branch.generated):
        weight, bias = array(layer.weight), array(layer.bias)
        made, shift = weight[0].copy(), bias[0].copy()
        for k, share in enumerate(z, 1):
            made, shift = made + share * weight[k], shift + share * bias[k]
        h = h @ made + shift
        if paper or number + 1 < len(branch.generated):
            h = np.maximum(h, 0)
    return h


def expected(model: EnhancedModel, row: int, placement: dict[str, Any]) -> dict[str, float]:
    """The parts, level by level: scenario and user at the bottom, then user and scenario in parallel."""
    backbone = copy.deepcopy(model.backbone).double().eval()
    paper = model.recipe.meta.fidelity == "paper"
    with torch.no_grad():
        x = torch.cat([backbone.users(ROWS["user"][row]), backbone.items(ROWS["item"][row])]).numpy()

        def score(embedding: np.ndarray) -> float:
            return float(backbone.deep(torch.from_numpy(embedding)[None]))

        now, here = x, score(x)
        parts = {"backbone": here}
        for level in ("scenario", "user"):
            if placement[level] == "bottom":
                made = layers(model, level, now, row)
                now = made if paper else now + made
                parts[level] = score(now) - here
                here += parts[level]
        for level in ("user", "scenario"):
            if placement[level] == "parallel":
                made = layers(model, level, x, row).item()
                alpha = float(model.branches[level].alpha)
                # Equation 9: alpha * made + (1 - alpha) * here; what it takes from here is its own doing.
                parts[level] = alpha * (made - here) if paper else alpha * made
                here += parts[level]
    return parts


@pytest.mark.parametrize("probability", [False, True], ids=["logit", "probability"])
@pytest.mark.parametrize("meta", [SAFE, PAPER], ids=["safe", "paper"])
@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_parts_are_those_of_the_equations(placement: dict[str, Any], meta: MetaConfig, probability: bool):
    torch.manual_seed(0)
    backbone = InHouse().eval()
    model = shake(wrap(backbone, placement=placement, meta=meta))
    wanted = [expected(model, row, placement) for row in range(5)]
    output = "logit"
    if probability:
        odd = InHouse(probability=True).eval()
        odd.load_state_dict(backbone.state_dict())
        model, output = shake(wrap(odd, placement=placement, meta=meta, output="probability")), "probability"
    for row in range(5):
        found = explain(model, ROWS, row=row)
        assert found.task == output
        assert [part.name for part in found.parts] == list(wanted[row]), "in the order in which they run"
        for part in found.parts:
            assert part.logit == pytest.approx(wanted[row][part.name], abs=2e-4, rel=2e-4), part.name
            assert part.place == placement.get(part.name)
            assert (part.alpha is None) == (part.place != "parallel")
        keys = {part.name: part.key for part in found.parts}
        assert keys["backbone"] is None
        assert keys.get("user", int(ROWS["user"][row])) == int(ROWS["user"][row])
        place = SCENARIOS[int(ROWS["scenario"][row])]
        assert keys.get("scenario", place) == place


def test_the_reference_is_the_model() -> None:
    """A check of the check above: the reference's sum is the score, and its parts are not nothing."""
    torch.manual_seed(0)
    model = shake(wrap(InHouse().eval(), meta=PAPER))
    parts = expected(model, 2, {"user": "bottom", "scenario": "parallel"})
    assert sum(parts.values()) == pytest.approx(float(model(ROWS)[2].detach()), abs=1e-4)
    assert min(abs(value) for value in parts.values()) > 1e-3
