"""A frozen transformers causal model as a `FrozenLLM`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from msr_enhance.errors import ModelError, not_one_of
from msr_enhance.llm import checkpoint
from msr_enhance.llm.cache import Prefix, common_prefix, shares_prefix
from msr_enhance.llm.capture import Depth
from msr_enhance.llm.digests import tokenizer_digest, weights_digest
from msr_enhance.llm.encodings import Encodings
from msr_enhance.llm.generation import greedy
from msr_enhance.llm.outline import Outline
from msr_enhance.llm.protocol import Answer
from msr_enhance.llm.support import check_supported
from msr_enhance.llm.token_budget import OutOfMemoryError, out_of_memory_named, planned, tokens_that_fit

State = Literal["last", "last_step", "prompt", "token-mean"]
STATES: dict[str, str] = {
    "last": "state of the last visible token of the answer",
    "last_step": "state that predicted the last token of the answer: what a sampling loop or a server holds",
    "prompt": "state of the prompt's last token; nothing is generated",
    "token-mean": "mean of the model's input embeddings over the prompt; no layer is run (a control)",
}


class HuggingFaceLLM:
    """Greedy answers and states of a frozen transformers causal model.

    Args:
        model: A causal model with `get_output_embeddings()`.
        known: Its outline: name, tokenizer, chat format.
        max_new_tokens: Longest answer, in tokens.
        state: Which state is kept, one of `STATES`.
        layers: Keep the states of these layers, as `[n_layers, dim]`: 0 is the embedding, -1 the last
            layer. By default the last one alone, as `[dim]`.
        before_norm: Take the last layer's state before the model's final norm (what the published
            ChatGLM2 code calls `hidden_states[-1]`).
        max_prompt_tokens: Longest prompt, below what the model's window allows.
        tokens_per_batch: Prompts of similar length are answered together up to this many tokens of
            prompt and answer. Changes the speed; in float32 not the answers, in half precision no more
            than rounding does (which can flip a close choice between two tokens). By default what the
            device's memory holds.

    Example:
        >>> from msr_enhance import HuggingFaceLLM
        >>> llm = HuggingFaceLLM.load("builtin", max_new_tokens=4)
        >>> llm.answer(["In shop: plain kit | cooking."])[0].vector.shape
        (128,)
    """

    def __init__(
        self,
        model: Any,
        known: Outline,
        *,
        max_new_tokens: int = 256,
        state: State = "last",
        layers: Sequence[int] | None = None,
        before_norm: bool = False,
        max_prompt_tokens: int | None = None,
        tokens_per_batch: int | None = None,
    ) -> None:
        if state not in STATES:
            raise ModelError(not_one_of("state", state, STATES, "Write --state last."))
        if max_new_tokens < 1:
            raise ModelError(f"max_new_tokens is {max_new_tokens}; write 1 or more, or state='prompt'.")
        if state == "token-mean" and (layers is not None or before_norm):
            raise ModelError("state='token-mean' runs no layer; leave out layers and before_norm.")
        check_supported(model, known)
        self._model = model.eval().requires_grad_(False)
        self._known = known
        self._state = state
        self._new = max_new_tokens if state in ("last", "last_step") else 0
        self._depth = Depth.of(model, layers, before_norm)
        self._ends = known.end_ids(model)
        self._limit = known.prompt_limit(self._new, max_prompt_tokens)
        self._shares = shares_prefix(model)
        self._budget = tokens_per_batch or tokens_that_fit(model)
        self._words = int(model.get_input_embeddings().weight.shape[0])
        self._prefix: Prefix | None = None
        self._encoded = Encodings(known.encode)
        self._identity: dict[str, Any] = {
            "reader": "transformers",
            "model": known.label,
            "revision": known.revision,
            "remote_code": known.remote_code,
            "weights": weights_digest(model),
            "config": known.config_digest,
            "dtype": str(model.dtype).removeprefix("torch."),
            "tokenizer": tokenizer_digest(known.tokenizer),
            "chat": None if known.chat is None else dict(known.chat.identity),
            "state": {
                "kind": state,
                "norm": "before" if before_norm else "after",
                "layers": None if self._depth.layers is None else list(self._depth.layers),
            },
            "decoding": {"method": "greedy", "max_new_tokens": self._new, "end_ids": sorted(self._ends)},
            "prompt_limit": self._limit,
        }

    @classmethod
    def load(
        cls,
        model: str | Path = "builtin",
        *,
        revision: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        chat: bool = True,
        **options: Any,
    ) -> HuggingFaceLLM:
        """Load `builtin`, a local folder, or a model id of the Hub; see `checkpoint.load`.

        Args:
            model: ``"builtin"``, a folder with a transformers checkpoint, or a Hub id.
            revision: Branch, tag or commit of a Hub model; remote code needs a 40-hex commit.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            device: For example ``cuda`` or ``cpu``; by default a GPU when there is one.
            trust_remote_code: Run code of the model's repository. Off unless asked for.
            chat: Whether prompts are put into the model's chat format when it has one.
            **options: As in the constructor.

        Raises:
            ModelError: The model cannot be loaded; says what was looked for.
        """
        network, known = checkpoint.load(
            model,
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            chat=chat,
        )
        return cls(network, known, **options)

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any, *, name: str, chat: bool = True, **options: Any
    ) -> HuggingFaceLLM:
        """Read with a model that is in memory already.

        Args:
            model: A causal model of transformers.
            tokenizer: Its fast tokenizer.
            name: How the model is named in the store.
            chat: Whether prompts are put into the tokenizer's chat template when it has one.
            **options: As in the constructor.
        """
        return cls(model, Outline.of(model, tokenizer, name=name, chat=chat), **options)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector: `(dim,)`, or `(n_layers, dim)` where layers were named."""
        return self._depth.shape(self._model)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, weights, decoding and state: what changes an answer."""
        return self._identity

    @property
    def prompt_limit(self) -> int | None:
        """Most tokens a prompt may have, room for the answer left."""
        return self._limit

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, chat format included."""
        return [len(self._encoded[prompt]) for prompt in prompts]

    def batches(self, prompts: Sequence[str]) -> list[list[int]]:
        """Positions of prompts of similar length, by the token budget."""
        return self.planned(self.count_tokens(prompts))

    def planned(self, lengths: Sequence[int]) -> list[list[int]]:
        """`batches` for prompts of so many tokens."""
        return planned(lengths, self._new, self._budget)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answer every prompt; the result keeps their order.

        A prompt longer than the model's window fails by name and costs nothing. Where memory runs out
        the batch is halved and only its own rows are tried again; a single row that does not fit fails.
        """
        answers: list[Answer | None] = [None] * len(prompts)
        fitting: list[int] = []
        encoded = [self._encoded[prompt] for prompt in prompts]
        for row, ids in enumerate(encoded):
            if self._limit is not None and len(ids) > self._limit:
                reason = f"{len(ids)} prompt tokens; {self._limit} leave room for {self._new} of an answer"
                answers[row] = self._failed(len(ids), reason)
            elif not ids:
                answers[row] = self._failed(0, "the prompt has no tokens")
            elif max(ids) >= self._words:
                reason = f"the prompt has token {max(ids)}, and the model only {self._words}"
                answers[row] = self._failed(len(ids), reason)
            else:
                fitting.append(row)
        waiting = self.planned([len(encoded[row]) for row in fitting])[::-1]
        while waiting:
            rows = [fitting[position] for position in waiting[-1]]
            try:
                with out_of_memory_named():
                    found = self._read([encoded[row] for row in rows])
            except OutOfMemoryError:
                batch = waiting.pop()
                self._make_room(len(rows) * (max(len(encoded[row]) for row in rows) + self._new))
                if len(batch) == 1:
                    answers[rows[0]] = self._failed(
                        len(encoded[rows[0]]), "out of memory, alone in its batch"
                    )
                else:
                    waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                continue
            waiting.pop()
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return [answer for answer in answers if answer is not None]

    def _make_room(self, tokens: int) -> None:
        """After running out of memory: smaller batches from now on, and what torch hoards given back."""
        self._budget = max(1, min(self._budget, tokens // 2))
        self._prefix = None
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _read(self, encoded: Sequence[Sequence[int]]) -> list[Answer]:
        if self._state == "token-mean":
            return [Answer("", mean, len(ids), 0, "ok", "no text") for mean, ids in self._means(encoded)]
        answers = self._generate(encoded)
        # A broken row is tried once more on its own, in case its neighbours were the cause.
        again = [row for row, answer in enumerate(answers) if answer is None] if len(encoded) > 1 else []
        for row in again:
            (answers[row],) = self._generate([encoded[row]])
        reason = "the state holds NaN or infinity; try --dtype float32"
        return [
            self._failed(len(ids), reason) if answer is None else answer
            for ids, answer in zip(encoded, answers, strict=True)
        ]

    def _generate(self, encoded: Sequence[Sequence[int]]) -> list[Answer | None]:
        """Answers, None for a row whose state is not finite."""
        out = greedy(
            self._model,
            encoded,
            max_new_tokens=self._new,
            end_ids=self._ends,
            last_step=self._state == "last_step",
            depth=self._depth,
            prefix=self._shared(encoded),
            prefill_tokens=2_048 if self._model.device.type == "cpu" else 32_768,
        )
        states = out.states.float().cpu().numpy()
        finite = np.isfinite(states).reshape(len(states), -1).all(axis=1)
        answers: list[Answer | None] = []
        for row, (tokens, ended) in enumerate(zip(out.tokens, out.ended, strict=True)):
            length = len(encoded[row])
            if not finite[row]:
                answers.append(None)
            elif self._new and not tokens:
                answers.append(self._failed(length, "the model ended before its first visible token"))
            else:
                reason = "end" if ended else ("length" if self._new else "no text")
                text = self._known.decode(tokens)
                answers.append(Answer(text, states[row], length, len(tokens), "ok", reason))
        return answers

    def _shared(self, encoded: Sequence[Sequence[int]]) -> Prefix | None:
        """The prefix of a batch, read once; neighbouring batches mostly share it too."""
        ids = common_prefix(encoded) if self._shares else ()
        if not ids:
            return None
        if self._prefix is None or self._prefix.ids != ids:
            self._prefix = Prefix.of(self._model, ids)
        return self._prefix

    @torch.inference_mode()
    def _means(self, encoded: Sequence[Sequence[int]]) -> list[tuple[np.ndarray[Any, Any], Sequence[int]]]:
        table = self._model.get_input_embeddings()

        def mean(ids: Sequence[int]) -> Tensor:
            found: Tensor = table(torch.tensor(list(ids), device=self._model.device))
            return found.float().mean(0)

        return [(mean(ids).cpu().numpy(), ids) for ids in encoded]

    def _failed(self, length: int, reason: str) -> Answer:
        return Answer("", np.zeros(self.shape, np.float32), length, 0, "failed", reason)
