"""The tap: where the backbone's embedding is read and, for bottom placement, replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, not_one_of

_running = threading.local()


def find_tap(backbone: nn.Module, tap: str) -> nn.Module:
    """The submodule of that name.

    Raises:
        EnhanceError: There is none; lists the backbone's submodules.
    """
    names = {name: module for name, module in backbone.named_modules() if name}
    if tap not in names:
        raise EnhanceError(
            not_one_of("tap", tap, names, "Write tap= with the submodule whose output is the embedding.")
        )
    module: nn.Module = names[tap]
    return module


class TapCall:
    """What happens at the tap during one forward call.

    Args:
        name: Name of the tap, for messages.
        module: The tapped submodule.
        change: Maps the flattened embedding `[batch, width]` to the one the backbone reads.
    """

    def __init__(self, name: str, module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        self.name, self.module, self._change = name, module, change
        self.flat: Tensor | None = None

    def __enter__(self) -> TapCall:
        """Listen at the tap, in this thread only, until the call is over."""
        listen(self.module)
        self.outer: TapCall | None = getattr(_running, "call", None)
        _running.call = self
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        _running.call = self.outer

    def seen(self) -> Tensor:
        """The flattened embedding `[batch, width]` that the tap saw.

        Raises:
            EnhanceError: The tapped module was never called.
        """
        if self.flat is None:
            raise EnhanceError(
                f"Tap {self.name!r} never fired: the backbone's forward does not call that module "
                "(calling module.forward(x) instead of module(x) bypasses hooks). Name another tap."
            )
        return self.flat

    def fire(self, output: Any) -> Tensor:
        """Take the tap's output and return what the backbone reads instead."""
        if not isinstance(output, Tensor) or output.dim() not in (2, 3):
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise EnhanceError(
                f"Tap {self.name!r} gives {what}; allowed: a tensor [batch, width] or [batch, fields, dim]. "
                "Name a submodule with such an output."
            )
        if self.flat is not None:
            raise EnhanceError(
                f"Tap {self.name!r} fired twice in one call; name a submodule that is called once."
            )
        self.flat = output.flatten(1)
        changed = self._change(self.flat)
        if changed is self.flat:
            # The parallel branch still reads the embedding: an in-place operation of the backbone must not.
            changed = changed.clone()
        return changed.reshape(output.shape)


def on_tap(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of every tapped module; silent unless an enhanced call of this thread listens.

    A module-level function, so that deepcopy and save keep working; which model is running is looked
    up per thread, so the same backbone still runs plainly on its own.
    """
    call: TapCall | None = getattr(_running, "call", None)
    while call is not None:  # an enhanced model inside another has a call of its own, innermost first
        if call.module is module:
            output = call.fire(output)
        call = call.outer
    return output


def listen(module: nn.Module) -> None:
    """Put our hook on a module, once."""
    if on_tap not in module._forward_hooks.values():
        module.register_forward_hook(on_tap)


def leave(module: nn.Module) -> None:
    """Take our hook off a module; an enhanced model that still uses it puts it back when it is called."""
    for number in [number for number, hook in module._forward_hooks.items() if hook is on_tap]:
        del module._forward_hooks[number]
