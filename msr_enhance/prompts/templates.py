"""Templates: the two prompt templates of an extraction."""

from __future__ import annotations

from dataclasses import dataclass, field

from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt


@dataclass(frozen=True)
class Templates:
    """The two prompt templates of an extraction.

    Attributes:
        scenario: One prompt for each scenario.
        user: One prompt for each user.
    """

    scenario: ScenarioPrompt = field(default_factory=lambda: ScenarioPrompt.named("default"))
    user: UserPrompt = field(default_factory=lambda: UserPrompt.named("default"))

    @classmethod
    def named(cls, name: str) -> Templates:
        """Both templates of one name: ``default`` or ``paper``."""
        return cls(ScenarioPrompt.named(name), UserPrompt.named(name))
