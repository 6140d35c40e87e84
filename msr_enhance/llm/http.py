"""A frozen model that a server runs: SGLang, which returns an answer together with its newest state."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msr_enhance.errors import ModelError, not_one_of
from msr_enhance.llm import sglang
from msr_enhance.llm.checkpoint import Outline, outline
from msr_enhance.llm.digests import tokenizer_digest
from msr_enhance.llm.encodings import Encodings
from msr_enhance.llm.json_client import JsonClient, Reply
from msr_enhance.llm.protocol import Answer

State = Literal["last", "last_step", "prompt"]
STATES: dict[str, str] = {
    "last": "state of the last visible token of the answer",
    "last_step": "state that predicted the last token of the answer",
    "prompt": "state of the prompt's last token; nothing is generated",
}


class HttpLLM:
    """Greedy answers and states of a model that an SGLang server runs.

    Prompts become token ids here, with the tokenizer and the chat format of `model`, as in
    `HuggingFaceLLM`: text of a log cannot become a control token on the server either. The server
    returns the state that predicted the last token it said. For `last` it is asked for one token more
    than `max_new_tokens`, which is dropped: what predicted that token is the state of the last visible
    one.

    Args:
        url: Address of the server, for example ``http://localhost:30000``.
        model: The model that the server runs: a folder with its configuration and tokenizer, or a Hub
            id. No weights are read.
        revision: Branch, tag or commit of a Hub model.
        max_new_tokens: Longest answer, in tokens.
        state: Which state is kept, one of `STATES`; always the last layer's, as the server has it
            (after the final norm, see docs/readers.md).
        max_prompt_tokens: Longest prompt, below what the window allows.
        concurrency: Requests that are with the server at the same time; changes the speed only.
        timeout: Longest silence of the server, in seconds.
        retries: How often a request is sent again after a lost connection, silence, 429 or 5xx.
        api_key: Sent as a bearer token and stored nowhere; by default what the environment variable
            ``MSR_ENHANCE_API_KEY`` holds.
        chat: Whether prompts are put into the model's chat format when it has one.
        served_as: How the server names the model, where that differs from `model`.

    Raises:
        ModelError: The server cannot be reached, runs another model, or returns no states.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | Path,
        revision: str | None = None,
        max_new_tokens: int = 256,
        state: State = "last",
        max_prompt_tokens: int | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        retries: int = 8,
        api_key: str | None = None,
        chat: bool = True,
        served_as: str | None = None,
    ) -> None:
        if state not in STATES:
            raise ModelError(not_one_of("state", state, STATES, "Write --state last; a server has no other."))
        for name, value, least in (
            ("max_new_tokens", max_new_tokens, 1),
            ("concurrency", concurrency, 1),
            ("retries", retries, 0),
            ("timeout", timeout, 0.001),
        ):
            if value < least:
                raise ModelError(f"{name} is {value}; write {least} or more.")
        key = api_key or os.environ.get("MSR_ENHANCE_API_KEY")
        self._client = JsonClient(url, timeout=timeout, retries=retries, api_key=key)
        self._known = known = outline(model, revision=revision, chat=chat)
        self._encoded = Encodings(known.encode)
        self._state, self._concurrency = state, concurrency
        self._new = 0 if state == "prompt" else max_new_tokens
        self._asked = {"last": max_new_tokens + 1, "last_step": max_new_tokens, "prompt": 1}[state]
        self._ends = _end_ids(known)
        text = known.config.get_text_config()
        self._width = int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)
        info = self._page("/model_info", "/get_model_info")
        server = self._page("/server_info", "/get_server_info")
        sglang.check_server(info, server, url=self._client.url, known=known, served_as=served_as)
        window = sglang.stated_window(server, self._page("/v1/models"))
        self._limit = _prompt_limit(known, window, self._asked, max_prompt_tokens)
        self._check_alive()
        self._identity: dict[str, Any] = {
            "reader": "http",
            "server": "sglang",
            "model": known.label,
            "config": known.config_digest,
            "revision": known.revision,
            "weights": info.get("weight_version"),
            "dtype": server.get("dtype"),
            "quantization": server.get("quantization"),
            "kv_cache_dtype": server.get("kv_cache_dtype"),
            "tokenizer": tokenizer_digest(known.tokenizer),
            "chat": None if known.chat is None else dict(known.chat.identity),
            "state": {"kind": state, "norm": "after", "layers": None},
            "decoding": {"method": "greedy", "max_new_tokens": self._new, "end_ids": self._ends},
            "prompt_limit": self._limit,
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector."""
        return (self._width,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, decoding and state, as far as a server tells them; it tells no digest of its weights."""
        return self._identity

    @property
    def prompt_limit(self) -> int | None:
        """Most tokens a prompt may have, room for the answer left."""
        return self._limit

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, chat format included."""
        return [len(self._encoded[prompt]) for prompt in prompts]

    def batches(self, prompts: Sequence[str]) -> list[list[int]]:
        """Positions in their order, in groups that keep the server busy: eight times `concurrency`."""
        size, rows = 8 * self._concurrency, len(prompts)
        return [list(range(start, min(start + size, rows))) for start in range(0, rows, size)]

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answer every prompt; the result keeps their order.

        A prompt that the server refuses is a failed row with the server's message.

        Raises:
            ModelError: The server is gone, or no longer answers as it should.
        """
        encoded = [self._encoded[prompt] for prompt in prompts]
        # Longest first, so that no long one is left to run alone at the end.
        order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="http-llm") as pool:
            asked = {row: pool.submit(self._read, encoded[row]) for row in order}
            try:
                done, _ = wait(asked.values(), return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:  # Ctrl-C too: nobody waits for answers that nobody will keep
                self._client.stop()
                pool.shutdown(cancel_futures=True)
                self._client.resume()
                raise
        return [asked[row].result() for row in range(len(encoded))]

    def _read(self, ids: list[int]) -> Answer:
        if not ids:
            return self._failed(0, "the prompt has no tokens")
        if self._limit is not None and len(ids) > self._limit:
            reason = f"{len(ids)} prompt tokens; {self._limit} leave room for {self._new} of an answer"
            return self._failed(len(ids), reason)
        said = self._said(ids, self._asked)
        if isinstance(said, Reply):
            return self._failed(len(ids), f"the server refused it ({said.status}): {said.content}")
        if said.fault:
            return self._failed(len(ids), said.fault)
        if not self._new:
            return Answer("", said.state, len(ids), 0, "ok", "no text")
        visible = said.tokens[:-1] if said.ended or self._state == "last" else said.tokens
        if not visible:
            return self._failed(len(ids), "the model ended before its first visible token")
        reason = "end" if said.ended else "length"
        return Answer(self._known.decode(visible), said.state, len(ids), len(visible), "ok", reason)

    def _said(self, ids: list[int], tokens: int) -> sglang.Said | Reply:
        """An answer of the server, or its refusal of this one prompt."""
        reply = self._client.post("/generate", sglang.question(ids, tokens, self._ends))
        if not reply.ok:
            if reply.status in (401, 403, 404, 405) or reply.status < 400:
                raise ModelError(self._refusal(reply))
            if reply.status >= 500:  # this prompt's fault, or the end of the server: ask something small
                self._check_alive()
            return reply
        return sglang.read_answer(
            reply.content, url=self._client.url, prompt_tokens=len(ids), tokens=tokens, width=self._width
        )

    def _check_alive(self) -> None:
        """Have one token answered, so that a server without states is an error before the first prompt."""
        ids = [(self._known.encode("a") or [0])[0]]
        reply = self._client.post("/generate", sglang.question(ids, 1, self._ends))
        if not reply.ok:
            raise ModelError(self._refusal(reply))
        sglang.read_answer(reply.content, url=self._client.url, prompt_tokens=1, tokens=1, width=self._width)

    def _page(self, *paths: str) -> Mapping[str, Any]:
        """What the server says of itself, under the first path it knows; empty where it says nothing."""
        for path in paths:
            reply = self._client.get(path)
            if reply.ok and isinstance(reply.content, dict):
                return reply.content
            if not reply.ok and reply.status != 404:
                raise ModelError(self._refusal(reply))
        return {}

    def _refusal(self, reply: Reply) -> str:
        what = f"{self._client.url} answered {reply.status}: {reply.content}."
        if reply.status in (401, 403):
            return f"{what} Write the server's key as api_key, or into MSR_ENHANCE_API_KEY."
        if reply.status < 400:
            return f"{what} Write the address that it names."
        if reply.status >= 500:
            return f"{what} Rows that were committed are kept; run the same command when the server is well."
        return f"{what} To return states, {sglang.FLAG}."

    def _failed(self, length: int, reason: str) -> Answer:
        return Answer("", np.zeros(self.shape, np.float32), length, 0, "failed", reason)


def _end_ids(known: Outline) -> list[int]:
    """What ends an answer besides what the server itself reads from the model's configuration."""
    named = [known.tokenizer.eos_token_id, *(known.chat.end_ids if known.chat else ())]
    return sorted({int(one) for one in named if one is not None})


def _prompt_limit(known: Outline, window: int | None, asked: int, cap: int | None) -> int | None:
    windows = [one for one in (known.window, window) if one is not None]
    limits = [min(windows) - asked - sglang.KEPT_POSITIONS] if windows else []
    if cap is not None:
        limits.append(cap)
    if limits and min(limits) < 1:
        raise ModelError(
            f"{known.name} is served with a window of {min(windows, default=0)} tokens, which an answer of "
            f"{asked} fills; write fewer max_new_tokens, or serve it with a longer --context-length."
        )
    return min(limits, default=None)
