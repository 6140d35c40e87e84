"""The tap: where the backbone's embedding is read and, for bottom placement, replaced."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.wrap.arguments import named_arguments, with_argument
from msr_enhance.wrap.embedding import flattened, restored
from msr_enhance.wrap.path import Members, parse

_running = threading.local()
_owners: WeakKeyDictionary[nn.Module, dict[str, WeakSet[object]]] = WeakKeyDictionary()
_CHECKPOINTING = (
    "torch.utils.checkpoint",
    "deepspeed.runtime.activation_checkpointing",
    "fairscale.nn.checkpoint",
)


@dataclass(frozen=True)
class Tap:
    """A place in a backbone: a submodule's output or input, or a member of it.

    Written ``NAME`` or ``NAME:output`` for what a submodule returns, ``NAME:input`` for what it is given,
    ``:input`` for the backbone's own arguments; with ``[MEMBER]`` or ``[0]`` behind for one member of a dict,
    tuple or dataclass, or one argument. Names are those of ``named_modules()``.
    """

    module: str
    side: str
    members: Members

    @classmethod
    def parse(cls, text: str) -> Tap:
        """Read a tap as it is written.

        Raises:
            EnhanceError: It is not of that form.
        """
        name, members = parse(text)
        module, colon, side = name.partition(":")
        side = side if colon else "output"
        if side not in ("input", "output"):
            raise EnhanceError(not_one_of(f"side of tap {text!r}", side, ("input", "output")))
        if not module and side == "output":
            raise EnhanceError(
                f"tap {text!r} is the backbone's own result; allowed: NAME of a submodule, NAME:input, or "
                ":input[ARGUMENT] for one of the backbone's arguments."
            )
        return cls(module, side, members)

    def __str__(self) -> str:
        return f"{self.module}{':input' if self.side == 'input' else ''}{self.members}"

    def find(self, backbone: nn.Module) -> nn.Module:
        """The submodule.

        Raises:
            EnhanceError: There is none; lists the backbone's submodules.
        """
        every = backbone.named_modules(remove_duplicate=False)  # a shared module has several names
        names = {name: module for name, module in every if name}
        if self.module and self.module not in names:
            raise EnhanceError(
                not_one_of(
                    "tap",
                    self.module,
                    names,
                    "Write tap= with the submodule whose output (or :input) is the embedding.",
                )
            )
        found: nn.Module = names[self.module] if self.module else backbone
        return found


class TapCall:
    """What happens at the tap during one forward call.

    Args:
        tap: Where.
        module: The tapped submodule.
        change: Maps the flattened embedding `[batch, width]` to the one the backbone reads.
    """

    def __init__(self, tap: Tap, module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        self.tap, self.module, self._change = tap, module, change
        self.flat: Tensor | None = None
        self._version = 0
        self._began: FrameType | None = None
        self._gradients = torch.is_grad_enabled()

    def __enter__(self) -> TapCall:
        """Listen at the tap, in this thread only, until the call is over."""
        self.outer: TapCall | None = getattr(_running, "call", None)
        _running.call = self
        if not torch.compiler.is_compiling():
            self._began = sys._getframe(1)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        _running.call = self.outer
        self._began = None  # or frame and call would hold each other

    def seen(self) -> Tensor:
        """The flattened embedding `[batch, width]` that the tap saw.

        Raises:
            EnhanceError: The tapped module was never called, or the embedding has been changed in place.
        """
        if self.flat is None:
            raise EnhanceError(
                f"Tap {str(self.tap)!r} never fired: the backbone's forward does not call that module, "
                "or calls it where no hook is seen (as module.forward(x), in another thread, or in code that "
                "was compiled, traced or scripted before enhance()). Name another tap, or enhance first."
            )
        if not torch.compiler.is_compiling() and _version(self.flat) != self._version:
            raise EnhanceError(
                f"The backbone changed the embedding at tap {str(self.tap)!r} in place after the tap; tap "
                "the output of the module that made it, or change it out of place (x = x + y, not x += y)."
            )
        return self.flat

    def input(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Take the module's arguments; those it is called with instead."""
        steps = self.tap.members.steps
        if not steps:
            if len(args) == 1 and not kwargs:
                return (self.fire(args[0]),), dict(kwargs)
            changed = self.fire({**dict(enumerate(args)), **kwargs})
            return tuple(changed[place] for place in range(len(args))), {
                name: changed[name] for name in kwargs
            }
        name, rest = steps[0], Members(steps[1:])
        named = named_arguments(module, args, kwargs)
        if name not in named:
            raise EnhanceError(not_one_of(f"argument of tap {str(self.tap)!r}", name, named))
        value = named[name]
        return with_argument(module, args, kwargs, name, rest.put(value, self.fire(rest.get(value))))

    def output(self, result: Any) -> Any:
        """Take the module's result; what the backbone reads instead."""
        return self.tap.members.put(result, self.fire(self.tap.members.get(result)))

    def fire(self, value: Any) -> Any:
        """Take the embedding, in whatever container; the same container with the changed one."""
        compiling = torch.compiler.is_compiling()
        if not compiling and self._gradients and in_checkpoint(self._began):
            raise EnhanceError(
                f"Tap {str(self.tap)!r} lies inside activation checkpointing, which would run it again in "
                "the backward pass without the knowledge of this call. Allowed: checkpointing around the "
                "enhanced model, or after the tap. Tap the output of a module before the checkpoint, or call "
                "torch.utils.checkpoint.checkpoint(enhanced_model, ...)."
            )
        if self.flat is not None:
            raise EnhanceError(
                f"Tap {str(self.tap)!r} fired twice in one call; name a submodule that is called once, often "
                "the first layer after the embeddings: tap='NAME:input'."
            )
        flat = flattened(value, self.tap)
        if self.tap.side == "input" and not compiling and flat.is_inference():
            flat = flat.clone()  # whether it is changed in place later cannot be told: it has no version
        self.flat, self._version = flat, 0 if compiling else _version(flat)
        # An embedding under no_grad is frozen; the generated layers after it are not.
        with torch.set_grad_enabled(self._gradients):
            changed = self._change(flat)
            if changed is flat:
                # The parallel branch still reads the embedding: the backbone gets one that it may change.
                changed = changed.clone()
            return restored(value, changed)


def in_checkpoint(until: FrameType | None) -> bool:
    """Whether activation checkpointing stands between here and a frame that called us; anywhere, for None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not until:
        if str(frame.f_globals.get("__name__")).startswith(_CHECKPOINTING):
            return True
        frame = frame.f_back
    return False


def _version(value: Tensor) -> int:
    """How often a tensor has been changed in place."""
    return 0 if value.is_inference() else value._version


def on_output(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of every tapped module; silent unless an enhanced call of this thread listens.

    A module-level function, so that deepcopy and save keep working; which model is running is looked
    up per thread, so the same backbone still runs plainly on its own.
    """
    call: TapCall | None = getattr(_running, "call", None)
    while call is not None:  # an enhanced model inside another has a call of its own, innermost first
        if call.module is module and call.tap.side == "output":
            output = call.output(output)
        call = call.outer
    return output


def on_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Forward pre-hook of every module that is tapped at its input; as `on_output`."""
    call: TapCall | None = getattr(_running, "call", None)
    while call is not None:
        if call.module is module and call.tap.side == "input":
            args, kwargs = call.input(module, args, kwargs)
        call = call.outer
    return args, kwargs


def listen(tap: Tap, module: nn.Module, owner: object) -> None:
    """Put our hook on a module, once for all its owners."""
    _owners.setdefault(module, {}).setdefault(tap.side, WeakSet()).add(owner)
    if tap.side == "output":
        if on_output not in module._forward_hooks.values():
            module.register_forward_hook(on_output)
    elif on_input not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(on_input, with_kwargs=True)


def leave(tap: Tap, module: nn.Module, owner: object) -> None:
    """Take our hook off a module, unless another enhanced model listens there."""
    owners = _owners.get(module, {}).get(tap.side, WeakSet())
    owners.discard(owner)
    if owners:
        return
    hooks, ours = (
        (module._forward_hooks, on_output) if tap.side == "output" else (module._forward_pre_hooks, on_input)
    )
    for number in [number for number, hook in hooks.items() if hook is ours]:
        del hooks[number]
        module._forward_pre_hooks_with_kwargs.pop(number, None)
