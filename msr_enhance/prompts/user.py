"""The user-level prompt: interests a user shows everywhere, then those of each scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

from msr_enhance.errors import PromptError, not_one_of
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.template import Template, clean_text

_DEFAULT = """\
A user of {platform} meets items in {scenario_count} scenarios: {scenario_names}.
These are the items that this user liked last in each of them, oldest first.
{histories}
Describe what this user likes: common interests first, then distinct interests per scenario."""

_PAPER = """\
Items are recommended on {platform} in {scenario_count} scenarios: {scenario_names}.
The recent positive behaviours of user_{user_id} in the {scenario_count} scenarios are as follows.
{histories}
According to these behaviours, summarise the interests of user_{user_id}: common interests of the \
{scenario_count} scenarios first, then distinct interests per scenario."""


class LikedItem(Protocol):
    """One positive event of a user."""

    @property
    def item(self) -> str:
        """The item; shown only where it has no text."""

    @property
    def text(self) -> tuple[str, ...]:
        """The values of the item's text columns."""

    @property
    def category(self) -> str:
        """The item's category, empty where none is known."""


class UserHistory(Protocol):
    """The positive events of one user, over the rows a prompt may see."""

    @property
    def user(self) -> int | str:
        """The user."""

    @property
    def events(self) -> Mapping[str, Sequence[LikedItem]]:
        """The events to show of each scenario, oldest first."""

    @property
    def totals(self) -> Mapping[str, int]:
        """How many events there were in each scenario before the list was cut."""


class UserPrompt(Template):
    """One prompt for each user.

    ``paper`` is rebuilt from the slots that LLM4MSR (arXiv 2406.12529, Appendix B) describes: the scenario
    names, per scenario the user's recent positive behaviours with type and category, then the question for
    common and for distinct interests. It is not word for word, and it gives the real number of scenarios
    where the paper says "three". It names ``user_<id>``, so the raw id reaches the model, its answer and
    its vector. ``default`` says "this user".
    """

    allowed: ClassVar[tuple[str, ...]] = (
        "platform",
        "scenario_count",
        "scenario_names",
        "histories",
        "user_id",
    )
    texts: ClassVar[dict[str, str]] = {"default": _DEFAULT, "paper": _PAPER}

    level: Literal["user"] = "user"

    def render_facts(self, platform: Platform, facts: UserHistory) -> Prompt:
        """The prompt of one user.

        Args:
            platform: What is known of the platform, with the scenarios of the log.
            facts: The user's history.

        Returns:
            The prompt; its facts count the shown events by scenario and category, the categories as
            the log writes them.

        Raises:
            PromptError: If the history has a scenario that the platform lacks.
        """
        names = [note.name for note in platform.scenarios]
        if unknown := [name for name in facts.events if name not in names]:
            raise PromptError(not_one_of("scenario", unknown[0], names, "Add it to the platform file."))
        events = {name: facts.events.get(name, ()) for name in names}
        text = self.render(
            {
                "platform": clean_text(platform.name),
                "scenario_count": str(len(names)),
                "scenario_names": ", ".join(map(clean_text, names)),
                "histories": "\n".join(
                    f"In {clean_text(name)}: {'; '.join(map(_shown, liked)) or _nothing(facts, name)}."
                    for name, liked in events.items()
                ),
                "user_id": clean_text(str(facts.user)),
            }
        )
        by_scenario = {
            name: Counter(event.category for event in liked if event.category)
            for name, liked in events.items()
        }
        return Prompt(
            text,
            {
                "shown": {name: len(liked) for name, liked in events.items()},
                "total": {name: int(facts.totals.get(name, 0)) for name in names},
                "categories": dict(sum(by_scenario.values(), Counter[str]())),
                "by_scenario": {name: dict(counts) for name, counts in by_scenario.items()},
            },
        )


def _nothing(facts: UserHistory, name: str) -> str:
    # A list that was cut to nothing, to fit a context window, is no empty history. One short word: the
    # last title to go must not be replaced by something longer.
    return "some" if facts.totals.get(name) else "nothing yet"


def _shown(event: LikedItem) -> str:
    # The category comes last: a decoder's state at the separator is closest to the text right before it.
    fields = list(event.text)
    if event.category:
        if event.category in fields:
            fields.remove(event.category)
        fields.append(event.category)
    return " | ".join(filter(None, map(clean_text, fields))) or f"item {clean_text(event.item)}"
