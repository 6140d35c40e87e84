"""One call of a frozen backbone: through modules of its own, from the backbone down to the tapped one."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.pretrained import Pretrained
from msr_enhance.wrap.tap import Tap, TapCall, leave, on_input, on_output

_INPUT = "_forward_pre_hooks"
_KWARGS = "_forward_pre_hooks_with_kwargs"


@dataclass(frozen=True)
class Ways:
    """Every way by registered names from a backbone to its tapped module, which may have several parents.

    Attributes:
        modules: The modules on any of them, each by its first name.
        steps: From module to module: name of the upper one, of the member, of the lower one.
        tapped: First name of the tapped module.
        before: How many of its own hooks run before the tap.
    """

    modules: tuple[str, ...]
    steps: tuple[tuple[str, str, str], ...]
    tapped: str
    before: int

    @classmethod
    def find(cls, backbone: nn.Module, tap: Tap, before: int) -> Self:
        """Those of a backbone that keeps its modules."""
        tapped, names = tap.find(backbone), {id(backbone): ""}
        steps: dict[tuple[str, str, str], None] = {}
        for name, module in backbone.named_modules(remove_duplicate=False):
            if module is not tapped or not name:
                continue
            above, walked = backbone, ""
            for step in name.split("."):
                below = above.get_submodule(step)
                walked = f"{walked}.{step}".lstrip(".")
                names.setdefault(id(below), walked)
                steps[names[id(above)], step, names[id(below)]] = None
                above = below
        return cls(tuple(names.values()), tuple(steps), names[id(tapped)], before)

    def around(self, backbone: nn.Module, call: TapCall) -> nn.Module:
        """The backbone for one call: another module of the same type and weights, whose tap is the call's."""
        twins = {name: _shallow(backbone.get_submodule(name)) for name in self.modules}
        for above, step, below in self.steps:
            twins[above]._modules[step] = twins[below]
        self._listen(twins[self.tapped].__dict__, call)
        return twins[""]

    def _listen(self, held: dict[str, Any], call: TapCall) -> None:
        """Put the call among the hooks of the twin, where the enhanced model's own was."""

        def output(_: nn.Module, __: tuple[Any, ...], result: Any) -> Any:
            return call.output(result)

        def given(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return call.input(module, args, kwargs)

        hooks, hook = ("_forward_hooks", output) if call.tap.side == "output" else (_INPUT, given)
        several = list(held[hooks].items())
        several.insert(self.before, (call, hook))
        held[hooks] = OrderedDict(several)  # what a hook is registered in must be of this type
        if hooks == _INPUT:
            held[_KWARGS] = OrderedDict([*held[_KWARGS].items(), (call, True)])


def copied(backbone: nn.Module, tap: Tap) -> tuple[nn.Module, Ways]:
    """A copy of a backbone that is enhanced, without the tap's hook, and the ways to the tap.

    Raises:
        EnhanceError: Something in it cannot be copied.
    """
    try:
        made = copy.deepcopy(backbone)
    except (RuntimeError, TypeError) as error:
        raise EnhanceError(
            f"The backbone cannot be copied, and a frozen model is a copy: {_fault(backbone, error)}"
        ) from error
    tapped = tap.find(made)
    hooks, ours = (
        (tapped._forward_hooks, on_output) if tap.side == "output" else (tapped._forward_pre_hooks, on_input)
    )
    before = next((place for place, hook in enumerate(hooks.values()) if hook is ours), len(hooks))
    if any(isinstance(part, Pretrained) for part in made.modules()):
        # An enhanced model inside this one listens by the same hook, and comes first.
        before = min(before + 1, len(hooks))
    else:
        leave(tap, tapped, made)
    return made, Ways.find(made, tap, before)


def _fault(backbone: nn.Module, error: Exception) -> str:
    for name, module in backbone.named_modules():
        for attribute, value in {**module.__dict__, **module._buffers}.items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                where = f"{name}.{attribute}".lstrip(".")
                return (
                    f"{where} is a tensor with a gradient history, which the last training step left there. "
                    f"Allowed: detached tensors. Write {attribute} = {attribute}.detach() where it is kept, "
                    "or set it to None before freeze()."
                )
    return f"{str(error)[:200]} Set what cannot be copied to None before freeze()."


def _shallow(module: nn.Module) -> nn.Module:
    """A module that shares everything with another but the list of its submodules."""
    twin = object.__new__(type(module))
    held = twin.__dict__  # not assigned: a module's own __setattr__ looks at every name
    held.update(module.__dict__)
    held["_modules"] = dict(module._modules)
    return twin
