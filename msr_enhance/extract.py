"""`KnowledgeExtractor`: log → prompts → frozen language model → knowledge store."""

from __future__ import annotations

import importlib.metadata
import platform as machine
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from msr_enhance.data.digest import rows_digest
from msr_enhance.data.facts import scenario_facts, user_histories
from msr_enhance.data.split import Split, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, ModelError
from msr_enhance.llm.protocol import Answer, FrozenLLM
from msr_enhance.progress import progress
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Level, Record
from msr_enhance.store.writer import StoreWriter


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


class KnowledgeExtractor:
    """Writes a prompt for every scenario and user, has a frozen model answer it, keeps the answers.

    Args:
        llm: Any `FrozenLLM`; `HuggingFaceLLM.load(...)` is ours.
        templates: Prompt templates.
        platform: What is known of the platform and its scenarios; without it the log's scenario names
            serve.
        history: T, the most recent positives shown for each scenario (the paper: 35 to 55).
        commit_every: Rows after which finished answers are made durable; a crash loses fewer.

    Example:
        >>> extractor = KnowledgeExtractor(HuggingFaceLLM.load("builtin", max_new_tokens=2))
        >>> store = extractor.extract(table, "knowledge")
        >>> store.vectors("user", table.user_ids[:3]).shape
        (3, 128)
    """

    def __init__(
        self,
        llm: FrozenLLM,
        templates: Templates | None = None,
        *,
        platform: Platform | None = None,
        history: int = 50,
        commit_every: int = 512,
    ) -> None:
        if history < 1:
            raise DataError(f"history is {history}; write 1 or more positives per scenario.")
        self.llm = llm
        self.templates = templates or Templates()
        self.platform = platform
        self.history = history
        self.commit_every = commit_every

    def extract(
        self,
        table: InteractionTable,
        out: str | Path,
        *,
        split: Split | None = None,
        limit: int | None = None,
    ) -> KnowledgeStore:
        """Fill a store with the knowledge of every scenario and user; resumes where it stopped.

        A prompt is written only from the rows that `split` allows prompts to see. Every user of the
        log gets a row: status ``empty`` (and zero knowledge) without a positive in those rows, then
        the model is not asked.

        Args:
            table: The log.
            out: Folder of the store; an unfinished store of the same identity is continued.
            split: Which rows prompts may see; by default `split_table(table)`.
            limit: Only the first so many users.

        Returns:
            The finished store.

        Raises:
            StoreIdentityError: `out` holds a store of another model, template or window.
            DataError: The log cannot be divided.
        """
        split = split or split_table(table)
        platform = self._platform(table)
        facts = scenario_facts(table, split.seen)
        writer = StoreWriter.open(out, self._provenance(table, split, platform))
        prompts: Iterable[tuple[Any, Prompt | None]] = [
            (name, _windowed(self.templates.scenario.render_facts(platform, facts, name), split))
            for name in table.scenarios
        ]
        self._fill(writer, "scenario", prompts, len(table.scenarios))
        users = len(table.user_ids) if limit is None else min(limit, len(table.user_ids))
        self._fill(writer, "user", islice(self._user_prompts(table, split, platform), users), users)
        return KnowledgeStore.load(out, verify=False)

    def preview(
        self, table: InteractionTable, *, split: Split | None = None
    ) -> Iterator[tuple[Any, Prompt | None]]:
        """The user prompts `(id, prompt)` that would be sent, without a model; None for an empty history."""
        split = split or split_table(table)
        return self._user_prompts(table, split, self._platform(table))

    def _platform(self, table: InteractionTable) -> Platform:
        if self.platform is None:
            return Platform.for_scenarios(table.scenarios)
        return self.platform.covering(table.scenarios)

    def _user_prompts(
        self, table: InteractionTable, split: Split, platform: Platform
    ) -> Iterator[tuple[Any, Prompt | None]]:
        for facts in user_histories(table, split.seen, self.history):
            shown = any(facts.events.values())
            prompt = self.templates.user.render_facts(platform, facts) if shown else None
            yield facts.user, prompt and _windowed(prompt, split)

    def _fill(
        self, writer: StoreWriter, level: Level, prompts: Iterable[tuple[Any, Prompt | None]], total: int
    ) -> None:
        done = writer.done(level)
        waiting = iter(prompts)
        with progress(f"{level} prompts", total, unit="prompts") as advance:
            while chunk := list(islice(waiting, self.commit_every)):
                todo = [(name, prompt) for name, prompt in chunk if name not in done]
                if todo:
                    records = self._records(todo)
                    if not done and all(record.status == "failed" for record in records):
                        raise ModelError(
                            f"All of the first {len(records)} {level} prompts failed: "
                            f"{records[0].facts['reason']}. Nothing was stored."
                        )
                    writer.append(level, records)
                    done.update(name for name, _ in todo)
                advance(len(chunk))

    def _records(self, chunk: Sequence[tuple[Any, Prompt | None]]) -> list[Record]:
        asked = [prompt for _, prompt in chunk if prompt is not None]
        answers = iter(self.llm.answer(asked) if asked else [])
        return [
            self._empty(name) if prompt is None else _record(name, prompt, next(answers))
            for name, prompt in chunk
        ]

    def _empty(self, name: Any) -> Record:
        zero = np.zeros(self.llm.shape, np.float32)
        facts = {"reason": "no positive in the rows a prompt may see"}
        return Record(
            id=name,
            status="empty",
            prompt="",
            text="",
            facts=facts,
            prompt_tokens=0,
            answer_tokens=0,
            vector=zero,
        )

    def _provenance(self, table: InteractionTable, split: Split, platform: Platform) -> Provenance:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy")}
        return Provenance(
            identity={
                "llm": dict(self.llm.identity),
                "templates": {
                    "scenario": self.templates.scenario.fingerprint(),
                    "user": self.templates.user.fingerprint(),
                },
                "platform": platform.model_dump(mode="json"),
                "history": self.history,
                "scenarios": list(table.scenarios),
                "seen_rows": split.window.digest,
                "seen_texts": rows_digest(table, split.seen, texts=True),
            },
            window=split.window.model_dump(mode="json"),
            facts={
                "template_names": [self.templates.scenario.name, self.templates.user.name],
                "split": split.reason,
                "log": table.fingerprint(),
                "versions": {"python": machine.python_version(), **versions},
            },
        )


def _windowed(prompt: Prompt, split: Split) -> Prompt:
    """The prompt with the name of its window among its facts."""
    prompt.facts["window"] = split.window.digest[:16]
    return prompt


def _record(name: Any, prompt: Prompt, answer: Answer) -> Record:
    return Record(
        id=name,
        status=answer.status,
        prompt=str(prompt),
        text=answer.text,
        facts={**prompt.facts, "reason": answer.reason},
        prompt_tokens=answer.prompt_tokens,
        answer_tokens=answer.answer_tokens,
        vector=answer.vector,
    )
