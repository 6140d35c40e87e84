"""What SGLang's HTTP interface is asked and how it answers (read in the sources of 0.5.17 to 0.5.23)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import ModelError
from msr_enhance.llm.checkpoint import Outline
from msr_enhance.llm.json_client import readable

FLAG = "start SGLang 0.5.17 or newer with --return-hidden-states-mode last"
# It keeps a few positions of the window to itself, and shortens an answer that would need them.
KEPT_POSITIONS = 8
# For these it returns what it feeds to its draft model: states before the final norm.
_BEFORE_NORM = ("DeepseekV4ForCausalLM", "Step3p5ForCausalLM", "InklingForConditionalGeneration")
# Whatever a server could have set otherwise is said in each request.
_GREEDY: dict[str, Any] = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_new_tokens": 0,
    "n": 1,
    "ignore_eos": False,
}


@dataclass(frozen=True)
class Said:
    """One answer of the server.

    Attributes:
        tokens: Token ids that were said, the end token included.
        ended: Whether the last one is an end token.
        state: The state `[dim]` that predicted the last token.
        fault: Why the answer cannot be used; empty where it can.
    """

    tokens: list[int]
    ended: bool
    state: npt.NDArray[np.float32]
    fault: str = ""


def question(ids: Sequence[int], tokens: int, end_ids: Sequence[int]) -> dict[str, Any]:
    """The body of a `/generate` request: a greedy answer to token ids, and its newest state alone.

    With ``return_hidden_states=True`` the server would send the state of every token of the prompt
    (about 120 MB for 1,500 tokens of 4,096 numbers); ``"last"`` is one list of `dim` numbers.
    """
    return {
        "input_ids": list(ids),
        "sampling_params": {**_GREEDY, "max_new_tokens": tokens, "stop_token_ids": list(end_ids)},
        "return_hidden_states": "last",
    }


def read_answer(content: Any, *, url: str, prompt_tokens: int, tokens: int, width: int) -> Said:
    """Read the reply to a `question`.

    Args:
        content: The reply's JSON value.
        url: The server, for messages.
        prompt_tokens: Tokens that were sent.
        tokens: Tokens that were asked for.
        width: Numbers of a state.

    Raises:
        ModelError: It is no reply of a server that returns the states of this model.
    """
    meta = content.get("meta_info") if isinstance(content, dict) else None
    said = content.get("output_ids") if isinstance(content, dict) else None
    if not isinstance(meta, dict) or not isinstance(meta.get("finish_reason"), dict):
        raise ModelError(
            f"{url} answered without meta_info.finish_reason, so it is no SGLang server; {FLAG}."
        )
    nothing = np.zeros(width, np.float32)
    finish = meta["finish_reason"]
    kind, matched = finish.get("type"), finish.get("matched")
    if kind == "abort":
        return Said([], False, nothing, f"the server gave up: {readable(str(finish.get('message')))}")
    if not isinstance(said, list) or not said or any(type(token) is not int for token in said):
        raise ModelError(f"{url} answered without output_ids; {FLAG}.")
    state = _state(meta.get("hidden_states"), url, width)
    read = meta.get("prompt_tokens", prompt_tokens)
    ended = kind == "stop" and matched == said[-1]
    fault = ""
    if read != prompt_tokens:
        fault = f"the server read {readable(str(read))} of {prompt_tokens} prompt tokens"
    elif not ended and (kind != "length" or len(said) != tokens):
        how = readable(f"{kind}: {matched}" if kind == "stop" else str(kind))
        fault = f"the server stopped by itself after {len(said)} of {tokens} tokens ({how})"
    elif not np.isfinite(state).all():
        fault = "the state holds NaN or infinity; serve the model with another --dtype"
    return Said(said, ended, state, fault)


def check_server(
    info: Mapping[str, Any], server: Mapping[str, Any], *, url: str, known: Outline, served_as: str | None
) -> None:
    """Refuse a server that runs another model, or would change greedy answers.

    Args:
        info: What `/model_info` says.
        server: What `/server_info` says.
        url: The server, for messages.
        known: The model that prompts are encoded for.
        served_as: How the server is expected to name it, where that differs.

    Raises:
        ModelError: Says which, and what to write.
    """
    names = [one for one in (info.get("model_path"), info.get("served_model_name")) if isinstance(one, str)]
    if names and not any(_same(name, served_as or known.name) for name in names):
        shown = readable(names[0])
        raise ModelError(
            f"{url} runs {shown!r}, and prompts would be encoded for {served_as or known.name!r}. Name the "
            f"model that it runs; if that is the same under another name, write served_as={shown!r}."
        )
    if info.get("is_generation") is False:
        raise ModelError(f"{url} runs an embedding model, which writes no answers; start it without that.")
    if info.get("preferred_sampling_params"):
        raise ModelError(f"{url} was started with --preferred-sampling-params; start it without them.")
    if server.get("enable_return_aux_hidden_states"):
        raise ModelError(
            f"{url} returns states of inner layers (--enable-return-aux-hidden-states); start it without."
        )
    classes = info.get("architectures") or getattr(known.config, "architectures", None) or ()
    if early := [one for one in classes if one in _BEFORE_NORM]:
        raise ModelError(
            f"SGLang returns the states of {early[0]} before the final norm, which stores of a server do not "
            "hold; allowed: every other model that it serves."
        )
    theirs = str(server.get("revision"))
    pinned = re.compile(r"[0-9a-f]{40}")
    if pinned.fullmatch(theirs) and pinned.fullmatch(known.revision or "") and theirs != known.revision:
        raise ModelError(
            f"{url} runs revision {theirs}, and prompts would be encoded for {known.revision}; "
            f"write revision={theirs!r}."
        )


def stated_window(server: Mapping[str, Any], models: Mapping[str, Any]) -> int | None:
    """The window that `/server_info` and `/v1/models` state; None where they do not."""
    listed = models.get("data")
    cards = [card for card in listed if isinstance(card, dict)] if isinstance(listed, list) else []
    stated = [server.get("context_length"), *(card.get("max_model_len") for card in cards[:1])]
    return min((one for one in stated if type(one) is int and one > 0), default=None)


def _same(theirs: str, ours: str) -> bool:
    """Whether two names are one model: equal, or equal in their last part (a path and a Hub id)."""
    if theirs == ours:
        return True
    last = [PurePath(name.rstrip("/")).name.casefold() for name in (theirs, ours)]
    return bool(last[0]) and last[0] == last[1] and (theirs.count("/") != 1 or ours.count("/") != 1)


def _state(numbers: Any, url: str, width: int) -> npt.NDArray[np.float32]:
    if numbers is None:
        raise ModelError(f"{url} answered without hidden_states; {FLAG}.")
    # SGLang writes NaN and infinity as null.
    if not isinstance(numbers, list) or any(
        one is not None and type(one) not in (int, float) for one in numbers
    ):
        raise ModelError(f"{url} sent hidden_states of another form than one list of numbers; {FLAG}.")
    if len(numbers) != width:
        raise ModelError(
            f"{url} sent a state of {len(numbers)} numbers, and the model has {width}: it runs another "
            "model, or returns the states of several layers."
        )
    try:
        wide = np.array([np.nan if one is None else one for one in numbers], np.float64)
    except OverflowError:  # an integer beyond every float
        return np.full(width, np.inf, np.float32)
    with np.errstate(over="ignore"):
        return wide.astype(np.float32)
