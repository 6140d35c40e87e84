"""LogPrompts: the prompts of a log under one split, each as the reader can take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, islice

import numpy as np

from msr_enhance.data.facts import UserFacts, scenario_facts, user_histories
from msr_enhance.data.split import Split
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.budget import fit_scenarios, fit_users
from msr_enhance.extract.draft import Draft, Ids
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.templates import Templates
from msr_enhance.prompts.user import UserHistory


class LogPrompts:
    """Writes prompts, many at a time, from the rows that a split allows them to see.

    Args:
        llm: The reader, for its context window; it is not asked.
        templates: Prompt templates.
        platform: What is known of the platform, with the scenarios of the log.
        table: The log.
        split: Which rows prompts may see.
        history: The most recent positives shown for each scenario.
        at_once: Drafts written, and measured against the window, at a time.
    """

    def __init__(
        self,
        llm: FrozenLLM,
        templates: Templates,
        platform: Platform,
        table: InteractionTable,
        split: Split,
        *,
        history: int,
        at_once: int,
    ) -> None:
        self._llm, self._templates, self._platform = llm, templates, platform
        self._table, self._split = table, split
        self._history, self._at_once = history, at_once

    def scenarios(self, wanted: Ids) -> Iterator[list[Draft]]:
        """Drafts of scenarios.

        Args:
            wanted: Scenarios of the log.

        Yields:
            `at_once` drafts, in the order of `wanted`; the last list may be shorter.
        """
        facts = scenario_facts(self._table, self._split.seen)
        for start in range(0, len(wanted), self._at_once):
            names = wanted[start : start + self._at_once]
            template, platform = self._templates.scenario, self._platform
            prompts = {name: template.render_facts(platform, facts, str(name)) for name in names}
            drafts = [Draft(name, self._windowed(prompt)) for name, prompt in prompts.items()]
            yield fit_scenarios(self._llm, drafts)

    def users(self, wanted: Sequence[int | str]) -> Iterator[list[Draft]]:
        """Drafts of users.

        Args:
            wanted: Users of the log, in its order.

        Yields:
            `at_once` drafts, in the order of `wanted`; the last list may be shorter.
        """
        table, seen, names = self._table, self._split.seen, set(wanted)
        chosen = np.fromiter((user in names for user in table.user_ids), np.bool_, len(table.user_ids))
        everyone = user_histories(table, seen[chosen[table.user_index[seen]]], self._history)
        histories = compress(everyone, chosen)
        while chunk := list(islice(histories, self._at_once)):
            drafts = [self._draft(facts) for facts in chunk]
            yield fit_users(self._llm, drafts, chunk, self._render)

    def _draft(self, facts: UserFacts) -> Draft:
        return Draft(facts.user, self._render(facts) if any(facts.events.values()) else None)

    def _render(self, facts: UserHistory) -> Prompt:
        return self._windowed(self._templates.user.render_facts(self._platform, facts))

    def _windowed(self, prompt: Prompt) -> Prompt:
        """The prompt with the name of its window among its facts."""
        prompt.facts["window"] = self._split.window.digest[:16]
        return prompt
