"""Greedy answers of a causal model, and the state of each row's own last token."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msr_enhance.llm.cache import JoinedCache, Prefix, attends_everywhere, empty_cache
from msr_enhance.llm.capture import Depth, last_position

# A step on a GPU is launched ahead of its result; asking every time who has ended would wait for each.
_STEPS_UNSEEN = {"cpu": 1}
_STEPS_ELSEWHERE = 8


@dataclass(frozen=True)
class Generated:
    """Answers of one batch.

    Attributes:
        tokens: Visible token ids of each row's answer, without the end token.
        ended: Whether the row ended by an end token (else by `max_new_tokens`).
        states: `[batch, dim]`, or `[batch, n_layers, dim]` where layers were named.
    """

    tokens: list[list[int]]
    ended: list[bool]
    states: Tensor


@torch.inference_mode()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_ids: Collection[int],
    last_step: bool = False,
    depth: Depth | None = None,
    prefix: Prefix | None = None,
    prefill_tokens: int = 2_048,
) -> Generated:
    """Answer prompts greedily, all at once, and keep the state of each row's last visible token.

    The state of a row that ends by an end token is the one that *predicted* that token: the state at
    the last visible token. A row cut by `max_new_tokens` needs one step more, which feeds its last
    token. So the state means the same for every row. With `last_step` that step is left out, and the
    state is always the one that predicted the last token: what a sampling loop or a server holds.
    Rows that have ended leave the batch. `max_new_tokens=0` gives the state of the prompt's last token.

    The prompts are read in groups of similar length, which wastes little on padding, and answered
    together, which reads the weights once for all of them.

    Args:
        model: A transformers causal model in eval mode.
        prompts: Token ids of each prompt, at least one.
        max_new_tokens: Longest answer, in tokens.
        end_ids: Token ids that end an answer.
        last_step: Keep the state that predicted the last token.
        depth: Which layers' states are kept; by default the last one after the final norm.
        prefix: Tokens that every prompt begins with, already read; only where `shares_prefix` holds.
        prefill_tokens: Prompts are read in groups of up to so many tokens.

    Returns:
        Tokens and states in the order of the prompts.
    """
    lengths = [len(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: (lengths[row], row))
    limit = max_new_tokens - 1 if last_step and max_new_tokens else max_new_tokens
    batch = _Batch(model, [prompts[row] for row in order], limit, prefix, prefill_tokens)
    device = batch.device
    every = _STEPS_UNSEEN.get(device.type, _STEPS_ELSEWHERE)
    ends = torch.tensor(sorted(end_ids), device=device, dtype=torch.long)
    tokens = torch.full((len(order), max(1, max_new_tokens)), -1, device=device)
    ended = torch.zeros(len(order), dtype=torch.bool, device=device)
    index = torch.arange(len(order), device=device)
    running = torch.ones_like(ended)
    with last_position(model, depth or Depth()) as state_of:
        following, state = batch.prefill(state_of)
        states = torch.zeros_like(state)
        for step in range(limit + 1):
            if step:
                following, state = batch.step(following, state_of)
            over = torch.isin(following, ends)
            # The newest state of a row that still runs is the one to keep, until a newer one comes.
            wide = running.view(-1, *[1] * (state.ndim - 1))
            states[index] = torch.where(wide, state, states[index])
            ended[index] |= running & over
            running = running & ~over
            if step < max_new_tokens:
                tokens[index, step] = torch.where(running, following, -1)
            if step == limit:
                break
            if (step + 1) % every == 0:
                going = running.nonzero().squeeze(-1)
                if not len(going):
                    break
                if (len(index) - len(going)) * 8 >= len(index):
                    index, running, following = index[going], running[going], following[going]
                    batch.keep(going)
    back = torch.tensor(order, device=device).argsort()
    visible = [[token for token in row if token >= 0] for row in tokens[back].tolist()]
    return Generated(visible, ended[back].tolist(), states[back])


class _Batch:
    """Prompts in ascending length, their caches, masks and positions."""

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], room: int, prefix: Prefix | None, budget: int
    ) -> None:
        self.device = model.device
        self._model, self._room = model, room
        self._prefix = prefix
        self._skip = len(prefix.ids) if prefix else 0
        self._prompts = [list(prompt)[self._skip :] for prompt in prompts]
        self._joined = attends_everywhere(model)
        self._groups = list(_groups([len(p) for p in self._prompts], budget if self._joined else None))
        self._accepted = inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._width = self._skip + len(self._prompts[-1])
        self._mask = torch.zeros(len(prompts), self._width + room, dtype=torch.long, device=self.device)
        self._mask[:, self._width :] = 1
        self._length = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self._steps = 0

    def prefill(self, state_of: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Read the prompts; gives the first token of each answer, and the states that predicted it."""
        rows, width = len(self._prompts), self._width
        joined = JoinedCache(rows, width, self._room) if self._joined and self._room else None
        following, states = [], []
        for group in self._groups:
            ids, mask = self._padded([self._prompts[row] for row in group])
            cache = (
                self._prefix.repeated(len(group), self._model) if self._prefix else empty_cache(self._model)
            )
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, self._skip :]
            self._mask[group.start : group.stop, width - mask.shape[1] : width] = mask
            logits = self._forward(ids, mask, positions, cache)
            following.append(logits.argmax(-1))
            states.append(state_of())
            if joined is not None:
                joined.put(group.start, cache)
            self._cache = cache
        if joined is not None:
            self._cache = joined.cache()
        return torch.cat(following), torch.cat(states)

    def step(self, tokens: Tensor, state_of: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Feed one token a row; gives the next one, and the states that predicted it."""
        self._steps += 1
        mask = self._mask[:, : self._width + self._steps]
        positions = (self._length + self._steps - 1)[:, None]
        logits = self._forward(tokens.clamp(min=0)[:, None], mask, positions, self._cache)
        return logits.argmax(-1), state_of()

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only."""
        self._mask, self._length = self._mask[rows], self._length[rows]
        self._cache.batch_select_indices(rows)

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids `[rows, width]`, padded on the left, and the mask over prefix and prompt."""
        width = len(prompts[-1])
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[1] * self._skip + [0] * (width - len(p)) + [1] * len(p) for p in prompts]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Logits of the last position, `[rows, vocabulary]`."""
        options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self._accepted else {}
        if "position_ids" in self._accepted:
            options["position_ids"] = positions
        out = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
        )
        logits: Tensor = out.logits[:, -1]
        return logits


def _groups(lengths: Sequence[int], budget: int | None) -> Iterator[range]:
    """Consecutive rows, ascending in length, whose padded size stays within the budget (None: all)."""
    start = 0
    for end in range(1, len(lengths) + 1):
        full = end < len(lengths) and budget is not None and (end + 1 - start) * lengths[end] > budget
        if end == len(lengths) or full:
            yield range(start, end)
            start = end
