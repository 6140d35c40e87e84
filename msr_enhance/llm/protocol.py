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
        vector: State of the answer, `[dim]`, float32.
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
        dim: Width of the vectors.
        identity: Everything that changes an answer (model, revision, weights, decoding, state) as
            plain JSON values; kept in the store, and compared before a run is resumed. What changes
            only the speed (batch size, device name) stays out.
    """

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What changes an answer, as plain JSON values."""
        ...

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Answers in the order of the prompts; a row never depends on the other prompts."""
        ...
