"""Platform: what people wrote about the platform and its scenarios."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from msr_enhance.errors import PromptError, not_one_of
from msr_enhance.prompts.document import Document
from msr_enhance.prompts.template import clean_text


class ScenarioNote(Document):
    """What people know about one scenario.

    Attributes:
        name: The scenario as the log writes it.
        description: What the scenario is.
        expert_knowledge: What an expert would add.
    """

    name: str
    description: str = ""
    expert_knowledge: str | None = None


class Platform(Document):
    """The platform that the prompts describe; ``Platform.from_yaml`` reads a platform file.

    Attributes:
        name: What to call it in a sentence.
        description: What it is.
        scenarios: Its scenarios, in the order the prompts list them.
    """

    name: str = "the platform"
    description: str = ""
    scenarios: tuple[ScenarioNote, ...] = ()

    def model_post_init(self, context: Any) -> None:
        """Refuse scenarios without a name and names given twice."""
        names = [note.name for note in self.scenarios]
        if blank := [name for name in names if not clean_text(name)]:
            raise PromptError(f"scenario {blank[0]!r} has no visible name; write a name that can be read.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise PromptError(
                f"platform {self.name!r} has scenario {twice[0]!r} twice; write each scenario once."
            )

    @classmethod
    def for_scenarios(cls, names: Iterable[str]) -> Self:
        """A platform of which nothing but the scenario names is known."""
        return cls(scenarios=tuple(ScenarioNote(name=name) for name in names))

    def covering(self, names: Iterable[str]) -> Self:
        """The platform with exactly the scenarios of a log.

        Args:
            names: The scenarios of the log.

        Returns:
            The platform, its scenarios in the order of ``names``; those the log lacks are left out.

        Raises:
            PromptError: If the log has a scenario that the platform lacks.
        """
        notes = {note.name: note for note in self.scenarios}
        wanted = list(names)
        if missing := [name for name in wanted if name not in notes]:
            rest = f" ({', '.join(missing[1:10])} as well)" if missing[1:] else ""
            raise PromptError(
                not_one_of("scenario", missing[0], notes, f"Add it to the platform file{rest}: - name: ...")
            )
        return self.model_copy(update={"scenarios": tuple(notes[name] for name in dict.fromkeys(wanted))})
