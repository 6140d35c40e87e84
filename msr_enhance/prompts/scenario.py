"""The scenario-level prompt: what the scenarios share, and what sets one of them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

from msr_enhance.errors import PromptError, not_one_of
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.template import Template, clean_text

_COUNTS = ("interactions", "users", "items", "shared_users", "shared_items")

_DEFAULT = """\
Here are facts about {platform}.
{platform_description}
It recommends items in {scenario_count} scenarios: {scenario_names}.
{statistics}
State what the scenarios share and what sets the scenario {scenario} apart: who comes, what they look for, \
and which items suit it.
Notes of an expert on this scenario: {expert_knowledge}"""

_PAPER = """\
Here is a description of {platform}, where items are recommended.
{platform_description}
It has {scenario_count} scenarios: {scenario_names}.
{statistics}
According to this information, state what the {scenario_count} scenarios share and what sets the scenario \
{scenario} apart.
{expert_knowledge}"""


class ScenarioCounts(Protocol):
    """Counts of one scenario, over the rows a prompt may see."""

    @property
    def name(self) -> str:
        """The scenario."""

    @property
    def interactions(self) -> int:
        """Its rows."""

    @property
    def users(self) -> int:
        """Its distinct users."""

    @property
    def items(self) -> int:
        """Its distinct items."""

    @property
    def shared_users(self) -> int:
        """Those of its users who also act in another scenario."""

    @property
    def shared_items(self) -> int:
        """Those of its items that another scenario has too."""


class ScenarioPrompt(Template):
    """One prompt for each scenario; the prompts differ only in their last clause.

    ``paper`` is rebuilt from the slots that LLM4MSR (arXiv 2406.12529, Appendix B) describes: platform name
    and description, interactions, users, items and overlaps of each scenario, then what the scenarios share
    and what sets this one apart, with expert notes where there are any. It is not word for word, and it
    gives the real number of scenarios where the paper says "three". ``default`` asks the same of a model
    that may need to be told what to look for.
    """

    allowed: ClassVar[tuple[str, ...]] = (
        "platform",
        "platform_description",
        "scenario_count",
        "scenario_names",
        "statistics",
        "scenario",
        "scenario_description",
        "expert_knowledge",
    )
    texts: ClassVar[dict[str, str]] = {"default": _DEFAULT, "paper": _PAPER}

    level: Literal["scenario"] = "scenario"

    def render_facts(self, platform: Platform, facts: Sequence[ScenarioCounts], scenario: str) -> Prompt:
        """The prompt of one scenario.

        Args:
            platform: What is known of the platform.
            facts: The counts of every scenario of the log, in the order to list them.
            scenario: The scenario to ask about.

        Returns:
            The prompt; its facts are ``scenario`` and ``scenarios``, the counts of all.

        Raises:
            PromptError: If the scenario has no counts, or the platform lacks a scenario.
        """
        counts = {entry.name: {key: int(getattr(entry, key)) for key in _COUNTS} for entry in facts}
        if scenario not in counts:
            raise PromptError(not_one_of("scenario", scenario, counts))
        notes = {note.name: note for note in platform.covering(counts).scenarios}
        note = notes[scenario]
        text = self.render(
            {
                "platform": clean_text(platform.name),
                "platform_description": clean_text(platform.description, 2000),
                "scenario_count": str(len(counts)),
                "scenario_names": ", ".join(map(clean_text, counts)),
                "statistics": "\n".join(
                    _statistics(name, notes[name].description, count) for name, count in counts.items()
                ),
                "scenario": clean_text(scenario),
                "scenario_description": clean_text(note.description, 2000),
                "expert_knowledge": clean_text(note.expert_knowledge or "", 2000),
            }
        )
        return Prompt(text, {"scenario": scenario, "scenarios": counts})


def _statistics(name: str, description: str, count: dict[str, int]) -> str:
    about = f" ({clean_text(description, 2000)})" if clean_text(description) else ""
    return (
        f"- {clean_text(name)}{about}: {count['interactions']:,} interactions of {count['users']:,} users "
        f"with {count['items']:,} items; {count['shared_users']:,} of these users and "
        f"{count['shared_items']:,} of these items also occur in other scenarios."
    )
