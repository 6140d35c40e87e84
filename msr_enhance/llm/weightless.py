"""A reader without weights: it counts tokens as the model would, and is never asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msr_enhance.errors import ModelError
from msr_enhance.llm.encodings import Encodings
from msr_enhance.llm.outline import Outline
from msr_enhance.llm.protocol import Answer

_WRITES = ("last", "last_step")


class Weightless:
    """A `FrozenLLM` as far as the shape of its vectors and the length of prompts go.

    Args:
        known: The model's outline.
        max_new_tokens: Longest answer, in tokens.
        state: Which state would be kept; only ``last`` and ``last_step`` write an answer.
        layers: Layers whose states would be kept together.
        max_prompt_tokens: Longest prompt, below what the window allows.

    Raises:
        ModelError: An answer of that length leaves no room for a prompt.
    """

    def __init__(
        self,
        known: Outline,
        *,
        max_new_tokens: int,
        state: str = "last",
        layers: Sequence[int] | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        self._known = known
        self._layers = layers
        self._encoded = Encodings(known.encode)
        self.new_tokens = max_new_tokens if state in _WRITES else 0
        self._limit = known.prompt_limit(self.new_tokens, max_prompt_tokens)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector: `(dim,)` or `(n_layers, dim)`."""
        dim = int(self._known.config.get_text_config().hidden_size)
        return (dim,) if self._layers is None else (len(self._layers), dim)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name; no store is made under it."""
        return {"reader": "none", "model": self._known.name}

    @property
    def prompt_limit(self) -> int | None:
        """Most tokens a prompt may have, room for the answer left."""
        return self._limit

    def ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt as the model would see it, chat format included."""
        return self._encoded[prompt]

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, chat format included."""
        return [len(self.ids(prompt)) for prompt in prompts]

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Nothing can be answered without weights.

        Raises:
            ModelError: Always.
        """
        raise ModelError(f"{self._known.name} was opened without its weights, so it cannot answer.")
