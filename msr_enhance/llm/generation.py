"""Greedy answers of a causal model, and the state of each row's own last visible token."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import ModelError


@dataclass(frozen=True)
class Generated:
    """Answers of one batch.

    Attributes:
        tokens: Visible token ids of each row's answer, without the end token.
        ended: Whether the row ended by an end token (else by `max_new_tokens`).
        states: `[batch, dim]`, state of each row's last visible token after the final norm.
    """

    tokens: list[list[int]]
    ended: list[bool]
    states: Tensor


@contextmanager
def head_input(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Catch what the output head receives: the last position's state, after the final norm.

    One `[batch, dim]` tensor is held instead of every layer of every token
    (`output_hidden_states=True` keeps layers x tokens x dim).
    """
    seen: dict[str, Tensor] = {}

    def grab(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        # The copy lets the prefill's [batch, tokens, dim] tensor go.
        seen["state"] = args[0][:, -1].detach().clone()

    handle = model.get_output_embeddings().register_forward_pre_hook(grab)  # type: ignore[operator]
    try:
        yield seen
    finally:
        handle.remove()


@torch.inference_mode()
def greedy(
    model: Any, input_ids: Tensor, mask: Tensor, *, max_new_tokens: int, end_ids: Collection[int]
) -> Generated:
    """Answer a left-padded batch greedily and keep each row's last visible state.

    The state of a row that ends by an end token is the one that *predicted* that token: the state at
    the last visible token. A row cut by `max_new_tokens` needs one step more, which feeds its last
    token. So the state means the same for every row. Rows that have ended leave the batch.
    `max_new_tokens=0` gives the state of the prompt's last token.

    Args:
        model: A transformers causal model in eval mode.
        input_ids: `[batch, tokens]`, padded on the left.
        mask: `[batch, tokens]`, 1 for real tokens.
        max_new_tokens: Longest answer, in tokens.
        end_ids: Token ids that end an answer.

    Returns:
        Tokens and states in the order of the rows.
    """
    from transformers import DynamicCache

    accepted = inspect.signature(model.forward).parameters
    fixed: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    rows = input_ids.shape[0]
    ends = torch.tensor(sorted(end_ids), device=input_ids.device)
    alive = torch.arange(rows, device=input_ids.device)
    tokens: list[list[int]] = [[] for _ in range(rows)]
    ended = [False] * rows
    states: Tensor | None = None
    cache = DynamicCache(config=model.config)
    ids, positions = input_ids, (mask.cumsum(-1) - 1).clamp(min=0)
    with head_input(model) as seen:
        for step in range(max_new_tokens + 1):
            if "position_ids" in accepted:
                fixed["position_ids"] = positions
            out = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **fixed)
            state = seen["state"]
            if states is None:
                states = state.new_zeros(rows, state.shape[-1])
            if any(not hasattr(layer, "batch_select_indices") for layer in cache.layers):
                raise ModelError(
                    f"{type(model).__name__} keeps a recurrent state, from which ended rows cannot be "
                    "taken out; allowed: models whose layers all attend."
                )
            following = out.logits[:, -1].argmax(-1)
            over = torch.isin(following, ends)
            stop = over if step < max_new_tokens else torch.ones_like(over)
            states[alive[stop]] = state[stop]
            for row in alive[over & stop].tolist():
                ended[row] = True
            going = (~stop).nonzero().squeeze(-1)
            if going.numel() == 0:
                break
            if going.numel() < alive.numel():
                alive, mask, following = alive[going], mask[going], following[going]
                cache.batch_select_indices(going)
            for row, token in zip(alive.tolist(), following.tolist(), strict=True):
                tokens[row].append(token)
            ids = following[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = mask.sum(-1, keepdim=True) - 1
    if states is None:  # pragma: no cover - the loop always runs once
        raise RuntimeError("no step was run")
    return Generated(tokens, ended, states)
