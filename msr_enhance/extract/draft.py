"""Draft: one position of the work list, before the model is asked."""

from __future__ import annotations

from dataclasses import dataclass

from msr_enhance.prompts.prompt import Prompt
from msr_enhance.store.record import Status

Ids = list[int | str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A user or scenario, and what would be asked about it.

    Attributes:
        id: The user or scenario, as the log writes it.
        prompt: What the model would read; None without a history, then it is not asked.
        refused: Why the model is not asked although there is a prompt; ``""`` where it is.
    """

    id: int | str
    prompt: Prompt | None
    refused: str = ""

    @property
    def asks(self) -> bool:
        """Whether the model is asked."""
        return self.prompt is not None and not self.refused

    @property
    def status(self) -> Status:
        """The row's status, provided that the model answers."""
        if self.prompt is None:
            return "empty"
        if self.refused:
            return "failed"
        return "truncated" if "dropped" in self.prompt.facts else "ok"
