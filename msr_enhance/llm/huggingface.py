"""A frozen transformers causal model as a `FrozenLLM`; no other file of the library loads one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from msr_enhance.errors import ModelError, not_one_of
from msr_enhance.llm import builtin
from msr_enhance.llm.generation import greedy
from msr_enhance.llm.plain_text import plain_text
from msr_enhance.llm.protocol import Answer

DTYPES = ("float32", "bfloat16", "float16")
State = Literal["last", "prompt", "token-mean"]
STATES: dict[str, str] = {
    "last": "state of the last visible token of the answer, after the final norm",
    "prompt": "state of the prompt's last token, after the final norm; nothing is generated",
    "token-mean": "mean of the model's input embeddings over the prompt; no layer is run (a control)",
}


class HuggingFaceLLM:
    """Greedy answers and states of a frozen transformers causal model.

    Args:
        model: A causal model with `get_output_embeddings()`.
        tokenizer: Its fast tokenizer.
        name: How the model is named in the store.
        revision: Commit of the model on the Hub, when it came from there.
        max_new_tokens: Longest answer, in tokens.
        state: Which state is kept, one of `STATES`.
        tokens_per_batch: Prompts of similar length are answered together up to this many tokens.
            Changes the speed, not the answers.
        chat: Whether prompts are put into the tokenizer's chat template when it has one.

    Example:
        >>> from msr_enhance import HuggingFaceLLM
        >>> llm = HuggingFaceLLM.load("builtin", max_new_tokens=4)
        >>> llm.answer(["In shop: plain kit | cooking."])[0].vector.shape
        (128,)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        max_new_tokens: int = 256,
        state: State = "last",
        tokens_per_batch: int = 16_384,
        chat: bool = True,
    ) -> None:
        if state not in STATES:
            raise ModelError(f"state {state!r} is not known; allowed: {', '.join(STATES)}.")
        if max_new_tokens < 1:
            raise ModelError(f"max_new_tokens is {max_new_tokens}; write 1 or more, or state='prompt'.")
        if model.get_output_embeddings() is None:
            raise ModelError(f"{name} has no output head, so it is no causal model; name one that generates.")
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._state = state
        self._new = max_new_tokens if state == "last" else 0
        self._budget = tokens_per_batch
        self._ends = _end_ids(model, tokenizer)
        self._wrap = _chat_frame(tokenizer) if chat and getattr(tokenizer, "chat_template", None) else None
        self._plain = plain_text(tokenizer)
        self._window = int(getattr(model.config, "max_position_embeddings", 0) or 0) or None
        self._identity: dict[str, Any] = {
            "reader": "transformers",
            "model": name,
            "revision": revision,
            "weights": weights_digest(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "tokenizer": tokenizer_digest(tokenizer),
            "chat_template": None if self._wrap is None else [list(part) for part in self._wrap],
            "state": state,
            "decoding": {"method": "greedy", "max_new_tokens": self._new, "end_ids": sorted(self._ends)},
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
        **options: Any,
    ) -> HuggingFaceLLM:
        """Load `builtin`, a local folder, or a model id of the Hub.

        Args:
            model: ``"builtin"``, a folder with a transformers checkpoint, or a Hub id.
            revision: Branch, tag or commit of a Hub model; remote code needs a 40-hex commit.
            dtype: ``float32``, ``bfloat16`` or ``float16``; by default float32 on a CPU (half
                precision is many times slower there) and the checkpoint's own on a GPU.
            device: For example ``cuda`` or ``cpu``; by default a GPU when there is one.
            trust_remote_code: Run code of the model's repository. Off unless asked for.
            **options: As in the constructor.

        Raises:
            ModelError: The model cannot be loaded; says what was looked for.
        """
        if dtype is not None and dtype not in DTYPES:
            raise ModelError(not_one_of("dtype", dtype, DTYPES, "Write --dtype float32."))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if str(model) == builtin.NAME:
            decoder, tokenizer = builtin.build()
            decoder = _placed(decoder.to(getattr(torch, dtype or "float32")), device)
            return cls(decoder, tokenizer, name=builtin.NAME, **options)
        if trust_remote_code and not (Path(model).is_dir() or re.fullmatch(r"[0-9a-f]{40}", revision or "")):
            raise ModelError(
                f"Remote code of {model} at revision {revision!r} could change under you; "
                "pin it: --revision with the 40 hexadecimal digits of a commit."
            )
        from transformers import AutoModelForCausalLM, AutoTokenizer

        shared: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", **shared)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model,
                dtype=dtype or ("float32" if device == "cpu" else "auto"),
                output_loading_info=True,
                **shared,
            )
        except Exception as error:  # whatever a foreign checkpoint breaks, the caller gets one sentence
            raise ModelError(
                f"Cannot load {str(model)!r} as a causal language model: {type(error).__name__}: {error} "
                "Allowed: 'builtin', a folder with config.json, weights and tokenizer, or a Hub id."
            ) from error
        network, info = loaded
        for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
            if info.get(kind):
                raise ModelError(
                    f"{model} does not fit its class {type(network).__name__}: {kind} "
                    f"{sorted(map(str, info[kind]))[:5]}. Random weights would be no knowledge; "
                    "use the repository's transformers-native checkpoint."
                )
        commit = getattr(network.config, "_commit_hash", None)
        return cls(
            _placed(network, device), tokenizer, name=str(model), revision=commit or revision, **options
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector."""
        return (int(self._model.get_input_embeddings().weight.shape[1]),)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, weights, decoding and state: what changes an answer."""
        return self._identity

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answer every prompt; the result keeps their order.

        A prompt longer than the model's window fails by name and costs nothing.
        """
        encoded = [self._encode(str(prompt)) for prompt in prompts]
        answers: list[Answer | None] = [None] * len(encoded)
        fitting: list[int] = []
        for row, ids in enumerate(encoded):
            if self._window and len(ids) + self._new > self._window:
                reason = f"{len(ids)} prompt tokens + {self._new} exceed the window of {self._window}"
                answers[row] = self._failed(len(ids), reason)
            elif not ids:
                answers[row] = self._failed(0, "the prompt has no tokens")
            else:
                fitting.append(row)
        fitting.sort(key=lambda row: len(encoded[row]))
        for batch in self._batches([len(encoded[row]) for row in fitting]):
            rows = [fitting[position] for position in batch]
            for row, answer in zip(rows, self._read([encoded[row] for row in rows]), strict=True):
                answers[row] = answer
        return [answer for answer in answers if answer is not None]

    def _encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt. Text of the log can never become a control token."""
        plain: dict[str, Any] = {"split_special_tokens": True}
        prompt = self._plain(prompt)
        if self._wrap is None:
            return list(self._tokenizer(prompt, **plain)["input_ids"])
        before, after = self._wrap
        return [*before, *self._tokenizer(prompt, add_special_tokens=False, **plain)["input_ids"], *after]

    def _batches(self, lengths: Sequence[int]) -> list[range]:
        """Consecutive rows, ascending in length, whose padded size stays within the token budget."""
        batches, start = [], 0
        for end in range(1, len(lengths) + 1):
            full = end < len(lengths) and (end + 1 - start) * (lengths[end] + self._new) > self._budget
            if end == len(lengths) or full:
                batches.append(range(start, end))
                start = end
        return batches

    def _read(self, encoded: Sequence[Sequence[int]]) -> list[Answer]:
        device = self._model.device
        width = max(len(ids) for ids in encoded)
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in encoded], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded], device=device)
        if self._state == "token-mean":
            return self._token_mean(ids, mask)
        out = greedy(self._model, ids, mask, max_new_tokens=self._new, end_ids=self._ends)
        answers = []
        states = out.states.float().cpu().numpy()
        for row, (tokens, ended) in enumerate(zip(out.tokens, out.ended, strict=True)):
            length = len(encoded[row])
            if self._new and not tokens:
                answers.append(self._failed(length, "the model ended before its first visible token"))
            elif not np.isfinite(states[row]).all():
                answers.append(self._failed(length, "the state holds NaN or infinity; try --dtype float32"))
            else:
                text = self._tokenizer.decode(tokens, skip_special_tokens=True) if tokens else ""
                reason = "end" if ended else ("length" if self._new else "no text")
                answers.append(Answer(text, states[row], length, len(tokens), "ok", reason))
        return answers

    @torch.inference_mode()
    def _token_mean(self, ids: Tensor, mask: Tensor) -> list[Answer]:
        embedded = self._model.get_input_embeddings()(ids).float()
        mean = (embedded * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        lengths = mask.sum(1).tolist()
        return [
            Answer("", vector, int(length), 0, "ok", "no text")
            for vector, length in zip(mean.cpu().numpy(), lengths, strict=True)
        ]

    def _failed(self, length: int, reason: str) -> Answer:
        return Answer("", np.zeros(self.shape, np.float32), length, 0, "failed", reason)


def _placed(model: Any, device: str) -> Any:
    """The model on its device."""
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"Cannot use device {device!r}: {str(error).splitlines()[0]} "
            "Write --device cpu, or cuda where there is one."
        ) from error


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Short digest of a fast tokenizer: what text becomes which ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return None if backend is None else hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every id that ends an answer; models may name several."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if ids is None:
        ids = tokenizer.eos_token_id
    if ids is None:
        return set()
    return {int(ids)} if isinstance(ids, int) else {int(one) for one in ids}


def _chat_frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of the chat template before and after a user's message."""
    mark = "\u2063message\u2063"
    message = [{"role": "user", "content": mark}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, found, after = text.partition(mark)
    if not found:
        raise ModelError("The chat template drops the user's message; load with chat=False.")
    first, last = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))
    return first, last


def weights_digest(model: Any) -> str:
    """Short digest of the weights: names, shapes, and for each tensor a sample of its bytes.

    Reading 12 GB for a full hash would cost more than it proves; a sample of each tensor tells two
    checkpoints apart.
    """
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        flat = weight.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // 256)].float().cpu().numpy()
        digest.update(picked.tobytes())
    return digest.hexdigest()[:16]
