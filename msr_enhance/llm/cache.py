"""Key-value caches: one that grows in place, and one prefix shared by many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from msr_enhance.errors import ModelError

SHARES_PREFIX = frozenset(
    {
        "bloom",
        "chatglm",
        "cohere",
        "falcon",
        "gemma",
        "glm",
        "glm4",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "mixtral",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "smollm3",
        "stablelm",
    }
)
"""Model types for which a test shows that a prefix read once changes no answer."""


def empty_cache(model: Any) -> Any:
    """A new cache of the kind a model needs."""
    return DynamicCache(config=model.config)


def recurrent(model: Any) -> ModelError:
    """The refusal of a model that keeps a recurrent state."""
    return ModelError(
        f"{type(model).__name__} keeps a recurrent state, from which ended rows cannot be taken out; "
        "allowed: models whose layers all attend."
    )


def attends_everywhere(model: Any) -> bool:
    """Whether every layer keeps all keys: no sliding window, no recurrent state.

    Raises:
        ModelError: If a layer keeps a recurrent state, from which ended rows cannot be taken out.
    """
    layers = empty_cache(model).layers
    if any(not hasattr(layer, "batch_select_indices") for layer in layers):
        raise recurrent(model)
    return all(type(layer) is DynamicLayer for layer in layers)


def shares_prefix(model: Any) -> bool:
    """Whether the tokens that several prompts begin with may be read once, for all of them.

    Between a shared prefix and a shorter row lies a gap of masked columns. Some models count columns
    instead of positions (MPT's biases, GPT-Neo's local window), and their caches do not tell. So only
    types that were tested share, in the classes that were tested.

    Raises:
        ModelError: As `attends_everywhere`.
    """
    own_code = type(model).__module__.split(".")[0] in ("transformers", "msr_enhance")
    return attends_everywhere(model) and own_code and model.config.model_type in SHARES_PREFIX


class _GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its metaclass hook has no types
    """Keys and values in buffers with room for the answer: a step writes one column only."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._buffers = keys, values
        self._use(used)

    def _use(self, used: int) -> tuple[Tensor, Tensor]:
        keys, values = self._buffers
        self._used = used
        self.keys, self.values = keys[:, :, :used], values[:, :, :used]
        return self.keys, self.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        used, more = self._used, key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, used : used + more] = states
        return self._use(used + more)

    def batch_select_indices(self, indices: Tensor) -> None:
        keys, values = self._buffers
        self._buffers = keys[indices], values[indices]
        self._use(self._used)


class JoinedCache:
    """The caches of several prefills, put side by side into one batch; shorter ones begin further right.

    Args:
        rows: Rows of the batch.
        width: Columns of the longest prompt.
        room: Columns for the answer.
    """

    def __init__(self, rows: int, width: int, room: int) -> None:
        self._rows, self._width, self._room = rows, width, room
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def put(self, start: int, cache: Any) -> None:
        """Take over one prefill's keys and values, for rows from `start` on."""
        for number, layer in enumerate(cache.layers):
            pair = layer.keys, layer.values
            if pair[0] is None:
                raise ModelError(
                    f"Layer {number} of the model left no keys in its cache, so an answer cannot go on from "
                    "there; allowed: models that keep keys and values."
                )
            if number == len(self._buffers):
                self._buffers.append((self._empty(pair[0]), self._empty(pair[1])))
            for buffer, states in zip(self._buffers[number], pair, strict=True):
                rows, width = states.shape[0], states.shape[-2]
                buffer[start : start + rows, :, self._width - width : self._width] = states

    def _empty(self, like: Tensor) -> Tensor:
        # Zeros: a masked column has weight 0, and 0 x garbage may be NaN.
        shape = (self._rows, like.shape[1], self._width + self._room, like.shape[-1])
        return like.new_zeros(shape)

    def cache(self) -> Any:
        """The cache to go on with."""
        return Cache(layers=[_GrowingLayer(keys, values, self._width) for keys, values in self._buffers])


@dataclass(frozen=True, eq=False)
class Prefix:
    """The keys and values of the tokens that several prompts begin with, computed once.

    Attributes:
        ids: The tokens.
        cache: Their keys and values, `[1, heads, tokens, head_dim]` a layer.
    """

    ids: tuple[int, ...]
    cache: Any

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Any, ids: Sequence[int]) -> Prefix:
        """Run a model over the prefix."""
        cache = empty_cache(model)
        model.base_model(
            input_ids=torch.tensor([list(ids)], device=model.device), past_key_values=cache, use_cache=True
        )
        return cls(tuple(ids), cache)

    def repeated(self, rows: int, model: Any) -> Any:
        """A cache for a batch that begins with the prefix in every row; this one stays as it is."""
        cache = empty_cache(model)
        for layer, source in zip(cache.layers, self.cache.layers, strict=True):
            # An expanded view: the first update copies it anyway.
            layer.update(source.keys.expand(rows, -1, -1, -1), source.values.expand(rows, -1, -1, -1))
        return cache


def common_prefix(prompts: Sequence[Sequence[int]], step: int = 16) -> tuple[int, ...]:
    """The tokens all prompts begin with, in whole steps, leaving each prompt one token of its own.

    Whole steps make neighbouring batches share the very same prefix, which is then computed once.
    """
    if len(prompts) < 2:
        return ()
    first, last = (list(edge) for edge in (min(prompts, key=list), max(prompts, key=list)))
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    same = min(same, *(len(prompt) - 1 for prompt in prompts))
    return tuple(first[: same - same % step])
