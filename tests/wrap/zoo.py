"""The zoo: odd little modules that `enhance()` has never seen, each with its batch, tap, keys and output."""

from __future__ import annotations

import torch
import zoo_inputs
import zoo_insides
import zoo_outputs
import zoo_taps
from torch import nn
from zoo_case import Case

from msr_enhance.wrap.model import EnhancedModel

CASES: list[Case] = [*zoo_inputs.CASES, *zoo_taps.CASES, *zoo_outputs.CASES, *zoo_insides.CASES]
NAMED = {case.name: case for case in CASES}
PARALLEL = {"user": "parallel", "scenario": "parallel"}
BOTTOM = {"user": "bottom", "scenario": "bottom"}


def shaken(model: EnhancedModel, std: float = 0.4) -> EnhancedModel:
    """Random generated layers, as after training."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.meta.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * std)
    return model


def hooks(module: nn.Module) -> list[int]:
    """How many hooks of each kind stand on each part of a module."""
    return [
        len(kind)
        for part in module.modules()
        for kind in (
            part._forward_hooks,
            part._forward_pre_hooks,
            part._forward_hooks_with_kwargs,
            part._forward_pre_hooks_with_kwargs,
            part._forward_hooks_always_called,
            part._backward_hooks,
            part._state_dict_hooks,
        )
    ]
