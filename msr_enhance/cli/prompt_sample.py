"""The prompts an extraction would send, and an evenly spaced sample of them, written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msr_enhance.cli.job import ExtractJob
from msr_enhance.data.split import Split
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.draft import Draft
from msr_enhance.extract.prompts import LogPrompts
from msr_enhance.fingerprint import canonical_json
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform

AT_ONCE = 512
"""Prompts that the extractor plans batches for at a time."""

# What a store keeps of a row besides vector and texts: id, status, token counts, offsets of texts.
_ROW_BYTES = 8 + 1 + 8 + 24


@dataclass(frozen=True)
class PromptSample:
    """How many prompts there are, and some of them.

    Attributes:
        scenarios: Scenario prompts of the run.
        users: Users with a prompt.
        silent: Users without a positive that prompts may see; they are not asked about.
        of_scenarios: The written scenario drafts.
        of_users: The written user drafts, evenly spaced over the users with a prompt.
        first: The first user drafts of the run.
    """

    scenarios: int
    users: int
    silent: int
    of_scenarios: list[Draft]
    of_users: list[Draft]
    first: list[Draft]

    @classmethod
    def of(
        cls, job: ExtractJob, table: InteractionTable, split: Split, llm: FrozenLLM, most: int, first: int = 2
    ) -> PromptSample:
        """Write at most `most` prompts of each level, shortened to the reader's window as in the run."""
        liked = split.seen[table.labels[split.seen] == 1]
        with_prompt = np.unique(table.user_index[liked])
        everyone = len(table.user_ids) if job.limit is None else min(job.limit, len(table.user_ids))
        with_prompt = with_prompt[with_prompt < everyone]
        notes = job.notes()
        prompts = LogPrompts(
            llm,
            job.templates(),
            Platform.for_scenarios(table.scenarios) if notes is None else notes.covering(table.scenarios),
            table,
            split,
            history=job.history,
            at_once=AT_ONCE,
        )
        ids = [table.user_ids[at] for at in with_prompt[:first].tolist()]
        picked = [table.user_ids[at] for at in _spread(with_prompt.tolist(), most)]
        return cls(
            scenarios=len(table.scenarios),
            users=len(with_prompt),
            silent=everyone - len(with_prompt),
            of_scenarios=_joined(prompts.scenarios(_spread(list(table.scenarios), most))),
            of_users=_joined(prompts.users(picked)),
            first=_joined(prompts.users(ids)),
        )

    def store_bytes(self, shape: Sequence[int], answer_bytes: float) -> int:
        """Bytes of the store: vectors, prompts, answers and facts; the written drafts stand for all.

        Args:
            shape: Of one vector.
            answer_bytes: Of one answer's text.
        """
        vector = 4 * int(np.prod(shape)) + _ROW_BYTES
        total = self.silent * (vector + 60.0)
        for count, drafts in ((self.scenarios, self.of_scenarios), (self.users, self.of_users)):
            texts = [len(str(draft.prompt).encode("utf-8", "replace")) + _facts(draft) for draft in drafts]
            if texts:
                total += count * (vector + answer_bytes + sum(texts) / len(texts))
        return int(total)


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[at] for at in np.linspace(0, len(values) - 1, most).round().astype(int)]


def _joined(chunks: Iterator[list[Draft]]) -> list[Draft]:
    return [draft for chunk in chunks for draft in chunk]


def _facts(draft: Draft) -> int:
    facts = {} if draft.prompt is None else draft.prompt.facts
    return len(canonical_json({**facts, "reason": "length"}))
