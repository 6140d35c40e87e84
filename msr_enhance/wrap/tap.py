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
        if on_tap not in self.module._forward_hooks.values():
            raise EnhanceError(f"The hook at tap {self.name!r} was removed; call enhance() again.")
        self._outer = getattr(_running, "call", None)
        _running.call = self
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        _running.call = self._outer

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
        return self._change(self.flat).reshape(output.shape)


def on_tap(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of every tapped module; silent unless an enhanced call of this thread listens.

    A module-level function, so that deepcopy and save keep working; which model is running is looked
    up per thread, so the same backbone still runs plainly on its own.
    """
    call: TapCall | None = getattr(_running, "call", None)
    if call is None or call.module is not module:
        return None
    return call.fire(output)
