"""What is known of the reader that a job asks for, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msr_enhance.cli.job import ExtractJob
from msr_enhance.data.table import InteractionTable
from msr_enhance.llm import builtin, category_frequency
from msr_enhance.llm.outline import Outline, outline
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.llm.weightless import Weightless


@dataclass(frozen=True)
class ReaderOutline:
    """A reader as far as it is known.

    Attributes:
        llm: Stands in for it where prompts are written; it is not asked.
        shape: Of one vector; None where unknown.
        facts: What to say of it.
        unknown: What cannot be said of its run, and why.
        known: The outline of its model; None for a reader that is no causal model.
        tokens: `llm` where it counts tokens as the reader would.
    """

    llm: FrozenLLM
    shape: tuple[int, ...] | None
    facts: dict[str, Any]
    unknown: list[str]
    known: Outline | None = None
    tokens: Weightless | None = None

    @classmethod
    def of(cls, job: ExtractJob, table: InteractionTable) -> ReaderOutline:
        """Look at the configuration and the tokenizer of what a job names.

        Raises:
            ModelError: They cannot be read, or leave no room for a prompt.
        """
        counter = category_frequency.CategoryFrequency
        if job.encoder is not None:
            unknown = [f"tokens, time, memory and disk: the encoder {job.encoder} was not loaded"]
            return cls(counter(["any"], []), None, {"encoder": job.encoder}, unknown)
        if job.model == category_frequency.NAME:
            control = counter(table.categories, table.scenarios)
            unknown = ["tokens and time: this control counts what a prompt shows and reads no text"]
            return cls(control, control.shape, {"model": job.model}, unknown)
        known = outline(
            job.model, revision=job.revision, trust_remote_code=job.trust_remote_code, chat=job.chat
        )
        tokens = Weightless(
            known,
            max_new_tokens=job.max_new_tokens,
            state=job.state,
            layers=job.layers,
            max_prompt_tokens=job.max_prompt_tokens,
        )
        facts = {
            "model": known.name,
            "revision": known.revision,
            "server": job.server,
            "parameters": known.parameters(),
            "window": known.window,
            "longest_prompt": tokens.prompt_limit,
            "longest_answer": tokens.new_tokens,
            "chat_format": known.chat is not None,
        }
        unknown = ["whether the weights are there and fit the model: they were not looked at"]
        if known.name == builtin.NAME:
            unknown = []
        if job.server is not None:
            unknown = [f"time: {job.server} was not asked; its window may be shorter than the model's"]
        elif job.state == "token-mean":
            unknown.append("time: token-mean runs no layer")
        return cls(tokens, tokens.shape, facts, unknown, known, tokens)
