"""Catch hidden states of the last position while a model runs, in `batch x dim` of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import ModelError


@dataclass(frozen=True)
class Depth:
    """Which layers' states are kept.

    Attributes:
        layers: Numbers as in transformers' `hidden_states`: 0 is the embedding, L the last layer. None
            keeps the last layer alone, as `[dim]` instead of `[1, dim]`.
        before_norm: Take the last layer's state before the model's final norm; other layers have no
            norm behind them.
    """

    layers: tuple[int, ...] | None = None
    before_norm: bool = False

    @classmethod
    def of(cls, model: Any, layers: Sequence[int] | None, before_norm: bool) -> Depth:
        """Check the layers against a model; -1 is the last one.

        Raises:
            ModelError: If the model has no such layer, or one is named twice; or if what its layers pass on
                is no state of a token.
        """
        if layers is None:
            return cls(None, before_norm)._seen_in(model)
        last = len(blocks(model))
        numbers = tuple(last + 1 + number if number < 0 else number for number in layers)
        if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= n <= last for n in numbers):
            raise ModelError(
                f"layers={list(layers)} cannot be kept; allowed: different numbers from 0 (embedding) to "
                f"{last} (last layer), or -1 for the last. Write --layers {last // 2},{last}."
            )
        width, head = int(model.config.get_text_config().hidden_size), _head_width(model)
        if last in numbers and not before_norm and head != width:
            raise ModelError(
                f"The last layer's state is projected from {width} to {head} numbers after the final norm, "
                "so it cannot stand beside other layers; write --before-norm, or leave the last layer out."
            )
        return cls(numbers, before_norm)._seen_in(model)

    @torch.inference_mode()
    def _seen_in(self, model: Any) -> Depth:
        """Run three tokens through the model where the states of its layers are asked for."""
        if self.layers is None and not self.before_norm:
            return self  # the output head reads one state a token in every model
        ids = torch.arange(3, device=model.device)[None] % int(model.config.get_text_config().vocab_size)
        wanted, seen = (1, *self.shape(model)), None
        with last_position(model, self) as state_of:
            model(input_ids=ids)
            with suppress(RuntimeError, KeyError):  # of different shapes, or never run
                seen = tuple(state_of().shape)
        if seen != wanted:
            raise ModelError(
                f"The layers of {type(model).__name__} do not pass on one state a token: the states of one "
                f"row have the shape {'unknown' if seen is None else list(seen)}, not {list(wanted)}. "
                "Leave out --layers and --before-norm."
            )
        return self

    def shape(self, model: Any) -> tuple[int, ...]:
        """Shape of one row's state: `(dim,)` or `(n_layers, dim)`."""
        if self.layers is None and not self.before_norm:
            return (_head_width(model),)
        dim = int(model.config.get_text_config().hidden_size)
        return (dim,) if self.layers is None else (len(self.layers), dim)


def _head_width(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[1])


def blocks(model: Any) -> nn.ModuleList:
    """The decoder layers of a causal model: its outermost list of as many modules as it has layers.

    Where the model names its decoder, the list is looked for there: an image tower has layers too.

    Raises:
        ModelError: If there is no such list.
    """
    number = int(model.config.get_text_config().num_hidden_layers)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    for root in (decoder, model):
        for module in root.modules() if isinstance(root, nn.Module) else ():  # outermost first
            if isinstance(module, nn.ModuleList) and len(module) == number:
                return module
    raise ModelError(
        f"{type(model).__name__} has no list of its {number} layers, so that states before the final norm "
        "and of single layers cannot be taken; leave out --layers and --before-norm."
    )


@contextmanager
def last_position(model: Any, depth: Depth) -> Iterator[Callable[[], Tensor]]:
    """Run a model and ask for the states of the last position of its latest forward pass.

    Only one vector a row and layer is held, where `output_hidden_states=True` keeps every layer of every
    token. The input of the output head is the last layer's state after the final norm: `check_supported`
    refuses a model whose head has a layer of its own.

    Args:
        model: A causal model of transformers.
        depth: Which layers.

    Yields:
        A function that gives `[batch, dim]`, or `[batch, n_layers, dim]` where layers were named.
    """
    seen: dict[int, Tensor] = {}

    def keep(key: int, states: Tensor) -> None:
        # The copy lets the [batch, tokens, dim] tensor go.
        seen[key] = states[:, -1].detach().clone()

    def before(key: int) -> Callable[..., None]:
        return lambda _, args, kwargs: keep(key, args[0] if args else kwargs["hidden_states"])

    def after(key: int) -> Callable[..., None]:
        return lambda _, __, out: keep(key, out[0] if isinstance(out, tuple) else out)

    with ExitStack() as hooks:

        def hook(handle: Any) -> None:
            hooks.callback(handle.remove)

        head = -1  # as a key: what the output head reads
        wanted: list[int] = [head]
        if depth.layers is not None or depth.before_norm:
            layers = blocks(model)
            last = len(layers)
            wanted = [
                head if number == last and not depth.before_norm else number
                for number in ((last,) if depth.layers is None else depth.layers)
            ]
            for number in wanted:
                if number == 0:
                    hook(layers[0].register_forward_pre_hook(before(0), with_kwargs=True))
                elif number != head:
                    hook(layers[number - 1].register_forward_hook(after(number)))
        if head in wanted:
            hook(model.get_output_embeddings().register_forward_pre_hook(before(head), with_kwargs=True))

        def states() -> Tensor:
            if depth.layers is None:
                return seen[wanted[0]]
            return torch.stack([seen[key] for key in wanted], dim=1)

        yield states
