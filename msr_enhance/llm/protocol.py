"""What the extractor asks of a frozen language model, and what it gets back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Answer:
    """One prompt's answer and the vector that is kept of it.

    Attributes:
        text: The answer, for people.
        vector: State of the answer, float32 of the model's `shape`: `[dim]` or `[n_layers, dim]`.
        prompt_tokens: Tokens of the prompt as the model saw it.
        answer_tokens: Visible tokens of the answer (without the end token).
        status: ``ok``, or ``failed`` with the reason in `reason`; a failed vector is never used.
        reason: Why the answer failed, else how it ended (``end``, ``length``, ``no text``).
    """

    text: str
    vector: npt.NDArray[np.float32]
    prompt_tokens: int = 0
    answer_tokens: int = 0
    status: Literal["ok", "failed"] = "ok"
    reason: str = ""


@runtime_checkable
class FrozenLLM(Protocol):
    """A frozen model that reads prompts. Bring your own: two attributes and one method.

    Attributes:
        shape: Shape of one vector, `(dim,)` or, where several layers are kept, `(n_layers, dim)`.
        identity: Everything that changes an answer (model, revision, weights, decoding, state) as
            plain JSON values; kept in the store, and compared before a run is resumed. What changes
            only the speed (batch size, device name) stays out.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What changes an answer, as plain JSON values."""
        ...

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answers in the order of the prompts; a row never depends on the other prompts, but for rounding."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A reader that knows how long a prompt may be; the extractor then shortens longer ones."""

    @property
    def prompt_limit(self) -> int | None:
        """Most tokens a prompt may have, room for the answer left; None where nothing limits it."""
        ...

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt as the model sees it, chat format included."""
        ...


@runtime_checkable
class PlansBatches(Protocol):
    """A reader that knows which prompts are best answered together; each batch is then one commit."""

    def batches(self, prompts: Sequence[str]) -> list[list[int]]:
        """Positions of the prompts, batch by batch; every position once, the same for the same prompts."""
        ...
