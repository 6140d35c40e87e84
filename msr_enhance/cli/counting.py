"""A reader that counts what it is asked, for the speed in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msr_enhance.llm.protocol import Answer, CountsTokens, FrozenLLM, PlansBatches


@dataclass
class Asked:
    """What a reader was asked so far.

    Attributes:
        prompts: Prompts.
        tokens: Tokens of prompts and answers.
    """

    prompts: int = 0
    tokens: int = 0


def counted(reader: FrozenLLM) -> tuple[FrozenLLM, Asked]:
    """A reader that answers as before and counts; it can do what the other can, and no more.

    Args:
        reader: Any reader.

    Returns:
        The reader to use instead, and its counts, which go on changing.
    """
    asked = Asked()
    counts, plans = isinstance(reader, CountsTokens), isinstance(reader, PlansBatches)
    kind = {
        (False, False): _Counted,
        (True, False): _CountedWithTokens,
        (False, True): _CountedWithPlans,
        (True, True): _CountedWithBoth,
    }[counts, plans]
    return kind(reader, asked), asked


class _Counted:
    def __init__(self, reader: Any, asked: Asked) -> None:
        self._reader, self._asked = reader, asked

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._reader.shape)

    @property
    def identity(self) -> Mapping[str, Any]:
        identity: Mapping[str, Any] = self._reader.identity
        return identity

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        answers: list[Answer] = self._reader.answer(prompts)
        self._asked.prompts += len(answers)
        self._asked.tokens += sum(answer.prompt_tokens + answer.answer_tokens for answer in answers)
        return answers


class _CountedWithTokens(_Counted):
    @property
    def prompt_limit(self) -> int | None:
        limit: int | None = self._reader.prompt_limit
        return limit

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        counts: list[int] = self._reader.count_tokens(prompts)
        return counts


class _CountedWithPlans(_Counted):
    def batches(self, prompts: Sequence[str]) -> list[list[int]]:
        plan: list[list[int]] = self._reader.batches(prompts)
        return plan


class _CountedWithBoth(_CountedWithTokens, _CountedWithPlans):
    pass
