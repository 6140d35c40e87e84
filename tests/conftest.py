"""A small log whose every row has a title of its own, and a reader that writes no text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from msr_enhance.llm.protocol import Answer
from msr_enhance.store.knowledge import KnowledgeStore


class FakeLLM:
    """Vectors from the digest of a prompt: any change of a prompt changes its vector.

    Args:
        name: Part of the identity.
        breaks_after: Prompts after which `answer` raises.
        fails: Prompts that hold one of these words get a failed answer.
        limit: Makes it a `CountsTokens`: a prompt may have so many tokens.
        count: Tokens of one prompt; by default its words.
        plans: Makes it a `PlansBatches`: batches of so many prompts, ascending in length.
    """

    shape = (6,)

    def __init__(
        self,
        name: str = "fake",
        breaks_after: int | None = None,
        fails: Sequence[str] = (),
        limit: int | None = None,
        count: Callable[[str], int] = lambda prompt: len(prompt.split()),
        plans: int | None = None,
    ) -> None:
        self.identity = {"reader": "fake", "model": name}
        self.asked: list[Any] = []
        self.batched: list[int] = []
        self._breaks_after, self._fails = breaks_after, tuple(fails)
        if limit is not None:
            self.prompt_limit = limit
            self.count_tokens = lambda prompts: [count(prompt) for prompt in prompts]
        if plans is not None:
            self.batches = lambda prompts: _planned(prompts, plans)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        if self._breaks_after is not None and len(self.asked) + len(prompts) > self._breaks_after:
            raise RuntimeError("the machine went away")
        self.asked += prompts
        self.batched.append(len(prompts))
        return [self._read(prompt) for prompt in prompts]

    def _read(self, prompt: str) -> Answer:
        digest = hashlib.sha256(prompt.encode()).digest()
        vector = np.frombuffer(digest, np.uint8)[: self.shape[0]].astype(np.float32) / 64 + 3
        if any(word in prompt for word in self._fails):
            return Answer("", np.full(self.shape, 9, np.float32), 3, 0, "failed", "said nothing")
        return Answer(f"answer {digest.hex()[:8]}", vector, len(prompt), 2, "ok", "end")


def _planned(prompts: Sequence[str], size: int) -> list[list[int]]:
    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.fixture
def fake_llm() -> type[FakeLLM]:
    return FakeLLM


@pytest.fixture
def contents() -> Callable[[KnowledgeStore], dict[Any, Any]]:
    """Everything a store says of each row, whatever the order in which rows were written."""

    def read(store: KnowledgeStore) -> dict[Any, Any]:
        rows = {}
        for level in store.levels:
            for name in store.ids(level):
                row = store.record(level, name)
                rows[level, name] = (row.status, row.prompt, row.text, row.facts, row.vector.tobytes())
        return rows

    return read


@pytest.fixture
def titled_log() -> Callable[..., dict[str, Any]]:
    """Columns of a log: users like one of four categories, in two scenarios; row n has the title `t<n>x`."""

    def make(seed: int = 0, users: int = 30, each: int = 20, moments: int | None = None) -> dict[str, Any]:
        draw = np.random.default_rng(seed)
        rows = users * each
        user = np.repeat(np.arange(users), each)
        category = draw.integers(4, size=rows)
        order = draw.permutation(rows)
        log = {
            "user_id": user + 100,
            "item_id": draw.integers(40, size=rows),
            "scenario": np.array(["feed", "shop"], object)[draw.integers(2, size=rows)],
            "label": (draw.random(rows) < np.where(category == user % 4, 0.9, 0.35)).astype(int),
            "timestamp": draw.permutation(rows) if moments is None else draw.integers(moments, size=rows),
            "category": np.array(["art", "food", "sea", "war"], object)[category],
        }
        log = {name: values[order] for name, values in log.items()}
        return {**log, "title": np.array([f"t{row:04d}x" for row in range(rows)], object)}

    return make
