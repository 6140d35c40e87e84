"""The tensors of a model as they are saved: each once, by name, and nothing that is no plain tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.branch import Branch
from msr_enhance.wrap.tensors import KINDS

Names = dict[str, str]


def state_of(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state of a module, each name with `prefix` before it.

    Raises:
        EnhanceError: Something in it is no plain tensor; names it.
    """
    found: dict[str, Tensor] = {}
    for name, value in module.state_dict(prefix=prefix).items():
        if fault := _fault(value):
            raise EnhanceError(
                f"{name} is {fault}; allowed: plain tensors of {', '.join(KINDS.values())}. A model is saved "
                "without pickle, and what is no tensor has no place in it."
            )
        found[name] = value.detach()
    return found


def aliases_of(state: Mapping[str, Tensor]) -> Names:
    """Names whose tensor is that of an earlier name (tied weights), to that name."""
    first: dict[object, str] = {}
    found: Names = {}
    for name in sorted(state):
        tensor = state[name]
        if not tensor.numel():
            continue
        where = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if where in first:
            found[name] = first[where]
        else:
            first[where] = name
    return found


def dtype_of(branch: Branch) -> torch.dtype:
    """The type of a branch's layers, which all of it has.

    Raises:
        EnhanceError: It has several.
    """
    seen = {weight.dtype for weight in branch.parameters()}
    if len(seen) != 1:
        names = ", ".join(sorted(map(str, seen)))
        raise EnhanceError(
            f"The generated layers have types {names}; allowed: one. Write model.to(one type)."
        )
    return next(iter(seen))


def check_statistics(level: str, branch: Branch) -> None:
    """Refuse statistics that `from_pretrained` would refuse.

    Raises:
        EnhanceError: They hold NaN or infinity, or a basis of length 0.
    """
    held = [one for one in (branch.table.mean, branch.table.basis) if one is not None]
    gain = float(branch.table.statistics_on("cpu").gain)
    if not all(bool(one.isfinite().all()) for one in held) or not 0 < gain < torch.inf:
        raise EnhanceError(
            f"The statistics of {level} (meta.{level}.table.mean, .basis) hold NaN, infinity or nothing but "
            "zeros; allowed: finite numbers. No training changes them: make the model anew, or load the last "
            "save."
        )


def _fault(value: object) -> str:
    """Why a value cannot be saved, empty where it can."""
    if isinstance(value, Tensor) and is_lazy(value):
        return "a lazy weight without a shape yet (run one batch first)"
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}, state that is no tensor"
    if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
        return f"a {type(value).__name__} (gather a sharded model on one process first)"
    if value.layout != torch.strided or value.is_quantized or value.dtype not in KINDS:
        return f"a tensor of {value.dtype}, {value.layout}"
    if value.is_meta:
        return "on the meta device, without numbers (write model.to_empty(device='cpu') and fill it)"
    if any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)):
        return "an expanded view, of which no row can be set alone (write .clone() where it is made)"
    return ""
