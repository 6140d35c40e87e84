"""An extraction that is killed again and again ends as one that was not: the same files, byte for byte.

The real extractor reads prompts of a made-up log with a stand-in for the language model, whose vectors
follow from the prompts. The process is killed with SIGKILL at random moments, and the same call is made
again until it returns.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.durability.oracle import ending, same, small
from benchmarks.durability.victims import ended, killed_after, victim
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.protocol import Answer
from msr_enhance.store.knowledge import KnowledgeStore

ROWS, USERS, COMMIT_EVERY, BATCH = 1500, 150, 5, 2


class Reader:
    """Answers that follow from the prompt, a little slowly."""

    shape = (6,)
    identity = {"reader": "made up", "model": "digest"}  # noqa: RUF012  # as the protocol has it

    def batches(self, prompts: Sequence[str]) -> list[list[int]]:
        """Two at a time, in the order given."""
        return [list(range(n, min(n + BATCH, len(prompts)))) for n in range(0, len(prompts), BATCH)]

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """An answer for each prompt."""
        time.sleep(0.0005)
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: str) -> Answer:
        digest = hashlib.sha256(prompt.encode()).digest()
        vector = np.frombuffer(digest, np.uint8)[:6].astype(np.float32)
        return Answer(digest.hex(), vector, len(prompt), 2, "ok", "end")


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Kill extractions `count` times in all, each of them at most 50 times."""
    kills = runs = 0
    whole = folder / "whole"
    with small():
        started = time.perf_counter()
        _finished(whole)
        seconds = (time.perf_counter() - started) / 2
        end, rows = ending(whole), _rows(whole)
        while kills < count:
            path, draw = folder / f"run-{runs}", random.Random(seed * 1_000_003 + runs)
            try:
                kills += _killed(path, draw, min(50, count - kills), seconds, rows)
                _finished(path)
                same(ending(path), end)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, run {runs}: {error}") from error
            runs += 1
    return {"kills": kills, "runs": runs, "rows": len(rows)}


def _finished(path: Path) -> None:
    """Extract, and once more: the second call finds nothing to do but sweeping."""
    for _ in range(2):
        killed, _ = ended(victim(lambda pipe: _extract(path)))
        assert not killed


def _killed(path: Path, draw: random.Random, most: int, seconds: float, rows: dict[Any, Any]) -> int:
    """Kill an extraction until it has ended or was killed often enough; no row ever goes away."""
    before: dict[Any, Any] = {}
    for kills in range(most):
        killed, _ = killed_after(victim(lambda pipe: _extract(path)), draw.uniform(0.2, 0.7) * seconds)
        if not killed:
            return kills
        now = _rows(path)
        assert before.items() <= now.items() <= rows.items(), f"a row was lost or is another, kill {kills}"
        before = now
    return most


def _extract(path: Path) -> None:
    """In a process of its own: the threads of polars do not survive a fork."""
    draw = np.random.default_rng(3)
    table = InteractionTable.from_arrays(
        {
            "user_id": draw.integers(USERS, size=ROWS),
            "item_id": draw.integers(40, size=ROWS),
            "scenario": np.array(["feed", "shop"], object)[draw.integers(2, size=ROWS)],
            "label": draw.integers(2, size=ROWS),
            "timestamp": np.arange(ROWS),
            "title": np.array([f"t{row}" for row in range(ROWS)], object),
        }
    )
    KnowledgeExtractor(Reader(), commit_every=COMMIT_EVERY).extract(table, path)


def _rows(path: Path) -> dict[Any, Any]:
    """Answer and vector of each row."""
    if not any(path.glob("manifest-*.json")):
        return {}
    store = KnowledgeStore.load(path, verify=True)
    return {
        (level, name): (store.text(level, name), store.vectors(level, [name]).tobytes())
        for level in store.levels
        for name in store.ids(level)
    }
