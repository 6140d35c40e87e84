"""Whether a model can be read at all: a trial over a few tokens, before anything is paid for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import ModelError
from msr_enhance.llm.cache import attends_everywhere, recurrent
from msr_enhance.llm.capture import Depth, last_position
from msr_enhance.llm.generation import greedy
from msr_enhance.llm.outline import Outline

_LONG, _SHORT = 9, 5
# Most that two computations of one state may differ, as a share of its length. Wrong states differ by
# 0.1 to 1; rounding in half precision by some hundredths, and more where it sends a token to another expert.
_CLOSE, _CLOSE_IN_HALF = 0.01, 0.08
# So a model in half precision is refused when several random prompts agree.
_DRAWS, _DRAWS_IN_HALF = 1, 3


def check_supported(model: Any, known: Outline) -> None:
    """Refuse a model whose answers in a batch would not be its own answers.

    First its signature, which costs nothing. Then 5 and 9 random tokens: a change of the last token must
    leave earlier positions as they were, and a short row beside a longer one must say and keep what the
    model says and keeps of it alone. Those are 4 forward passes of at most 2 rows x 9 tokens. The model is
    put into eval mode; the global random numbers stay as they are.

    Args:
        model: A causal model of transformers.
        known: Its outline.

    Raises:
        ModelError: If the model cannot be read; names its class and what differs.
    """
    _check_signature(model)
    attends_everywhere(model)
    model.eval()
    half = model.dtype in (torch.float16, torch.bfloat16)
    pool = _plain_ids(model, known)
    longest = min(_LONG, (known.window or _LONG + 1) - 1)
    if longest < 2:
        return  # such a window holds no prompt, which the reader says itself
    for draw in range(_DRAWS_IN_HALF if half else _DRAWS):
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(draw))
        ids = [pool[place] for place in order[: _LONG + 1].tolist()]
        long, other = ids[:longest], ids[longest]
        fault = _fault(model, long, other, _CLOSE_IN_HALF if half else _CLOSE)
        if fault is None:
            return
    raise ModelError(f"{known.name} ({type(model).__name__}) cannot be read: {fault}")


def _check_signature(model: Any) -> None:
    name = type(model).__name__
    accepted = inspect.signature(model.forward).parameters
    if not accepted.keys().isdisjoint({"cache_params", "state"}):
        raise recurrent(model)
    for needed, loss in (
        ("past_key_values", "no keys and values can be kept from one word to the next"),
        ("attention_mask", "prompts of different lengths cannot stand in one batch"),
    ):
        if needed not in accepted:
            raise ModelError(
                f"{name} cannot be read: its forward takes no {needed}, so {loss}; "
                "allowed: models whose layers all attend, such as Llama, Qwen or GLM."
            )
    if model.get_output_embeddings() is None:
        raise ModelError(f"{name} has no output head, so it is no causal model; name one that generates.")


def _plain_ids(model: Any, known: Outline) -> list[int]:
    """Ids that stand for text: neither control tokens nor places for images."""
    config = model.config.get_text_config()
    words = min(int(config.vocab_size), len(known.tokenizer))
    special = set(known.tokenizer.all_special_ids)
    for settings in (model.config, config):
        for name, value in settings.to_dict().items():
            if name.endswith(("token_id", "token_ids", "token_index")):
                special |= set(value) if isinstance(value, list) else {value}
    plain = [number for number in range(words) if number not in special]
    return plain if len(plain) > _LONG else [number % words for number in range(_LONG + 1)]


@torch.inference_mode()
def _fault(model: Any, long: Sequence[int], other: int, close: float) -> str | None:
    """What is wrong with a model's states of some tokens; None if nothing is."""
    short = list(long[: min(_SHORT, len(long) - 1)])
    body: list[Any] = []
    with ExitStack() as hooks:
        try:
            earlier, changed = model(input_ids=_tensor(model, long, [*long[:-1], other])).logits[:, -2]
            # Rows of one length are computed alike, so this needs less room for rounding.
            if _apart(earlier, changed) > close / 10:
                return (
                    "it reads later tokens at earlier positions, as an encoder does, so it writes no text. "
                    "Write --encoder to read with an encoder, or name a model that generates."
                )
            both = greedy(model, [short, long], max_new_tokens=1, end_ids=())
            state_of = hooks.enter_context(last_position(model, Depth()))
            if model.base_model is not model:
                hook = model.base_model.register_forward_hook(lambda _, __, out: body.append(out[0]))
                hooks.callback(hook.remove)
            model(input_ids=_tensor(model, [*short, *both.tokens[0]]))
            state = state_of()
        except Exception as error:  # whatever a foreign model breaks, the caller gets one sentence
            return f"it fails on a few tokens: {type(error).__name__}: {error}"
    wanted = Depth().shape(model)
    if tuple(state.shape) != (1, *wanted):
        return f"the state of one row has the shape {list(state.shape)}, not {[1, *wanted]}."
    apart = _apart(state[0], both.states[0])
    if apart > close:
        return (
            f"the state of a prompt that stands beside a longer one differs by {apart:.0%} from that of the "
            "prompt alone; its positions or its mask do not follow the padding. Name a model whose forward "
            "takes position_ids, such as Llama, Qwen or GLM."
        )
    last = body[0][0, -1] if body and isinstance(body[0], Tensor) and body[0].ndim == 3 else state[0]
    if last.shape == state[0].shape and _apart(_direction(last), _direction(state[0])) > close:
        return (
            "its output head has layers of its own, so what it reads is not the last layer's state. "
            "Write --encoder to read with an encoder, or name a model that generates."
        )
    return None


def _direction(vector: Tensor) -> Tensor:
    """A vector of length 1: some models scale the state before their head reads it."""
    return nn.functional.normalize(vector.float(), dim=0)


def _tensor(model: Any, *rows: Sequence[int]) -> Tensor:
    return torch.tensor([list(row) for row in rows], device=model.device)


def _apart(one: Tensor, other: Tensor) -> float:
    """The difference of two vectors, as a share of the first; 0 where the first is no number."""
    one, other = one.float(), other.float()
    if not one.isfinite().all():
        return 0.0  # that is for the reader to name, prompt by prompt
    return float((one - other).norm() / one.norm().clamp(min=1e-12))
