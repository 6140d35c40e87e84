"""A sentence encoder as the source of vectors: the honest "no reasoning" baseline. It writes no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from msr_enhance.errors import ModelError
from msr_enhance.llm.huggingface import tokenizer_digest, weights_digest
from msr_enhance.llm.plain_text import plain_text
from msr_enhance.llm.protocol import Answer

_LATE_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


class SentenceEncoder:
    """Mean-pooled last hidden states of a transformers encoder (as sentence-transformers does by default).

    Args:
        folder: A local folder with config.json, weights and tokenizer.
        device: By default a GPU when there is one.
        batch_size: Prompts at once; changes the speed only.
    """

    def __init__(self, folder: str | Path, *, device: str | None = None, batch_size: int = 32) -> None:
        from transformers import AutoModel, AutoTokenizer

        if not (Path(folder) / "config.json").is_file():
            raise ModelError(f"{folder} holds no config.json; --encoder takes a local transformers folder.")
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        # Encoders count positions from the left edge, so padding must be on the right.
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
            self._model = AutoModel.from_pretrained(folder, dtype="float32").to(self._device).eval()
        except Exception as error:  # whatever a foreign checkpoint breaks, the caller gets one sentence
            raise ModelError(
                f"Cannot load {folder} as an encoder: {type(error).__name__}: {error} "
                "Allowed: a local folder with config.json, weights and tokenizer."
            ) from error
        self._batch = batch_size
        config = self._model.config
        # RoBERTa's kin count positions from padding_idx + 1.
        reserved = 2 if config.model_type in _LATE_POSITIONS else 0
        window = int(getattr(config, "max_position_embeddings", 512)) - reserved
        self._window = min(window, self._tokenizer.model_max_length)
        self._plain = plain_text(self._tokenizer)
        self._name = Path(folder).resolve().name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector."""
        return (int(self._model.config.hidden_size),)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What changes a vector."""
        return {
            "reader": "sentence-encoder",
            "model": self._name,
            "weights": weights_digest(self._model),
            "tokenizer": tokenizer_digest(self._tokenizer),
            "state": "mean of the last hidden states over the prompt",
            "window": self._window,
        }

    @torch.inference_mode()
    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """One vector a prompt; what lies past the encoder's window is cut and said in `reason`."""
        answers: dict[int, Answer] = {}
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            texts = [self._plain(str(prompts[row])) for row in rows]
            encoded = self._tokenizer(
                texts,
                padding=True,
                truncation=True,
                max_length=self._window,
                split_special_tokens=True,
                return_tensors="pt",
            ).to(self._device)
            mask = encoded["attention_mask"]
            states = self._model(**encoded).last_hidden_state.float()
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for row, vector, length in zip(rows, mean.cpu().numpy(), mask.sum(1).tolist(), strict=True):
                reason = "cut at the window" if length >= self._window else "no text"
                answers[row] = Answer("", vector, int(length), 0, "ok", reason)
        return [answers[row] for row in range(len(prompts))]
