"""Handout: which part is tried next, how often, and what became of each; the same rules for every engine."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from msr_enhance.scale.outcome import Outcome
from msr_enhance.scale.part import Part


class Task(NamedTuple):
    """A part and the folder of its private store."""

    part: Part
    folder: Path


class Failure(NamedTuple):
    """A part that was given up.

    Attributes:
        part: The part.
        error: Name of the error's class; ``""`` where its worker died.
        words: What happened, in a sentence.
    """

    part: Part
    error: str
    words: str


class Handout:
    """Hands tasks out one by one and takes the outcomes.

    A part whose worker died, or that broke with an error nobody declared, is tried again at the end of
    the line, `retries` times. A declared error is final for its part: a model that does not exist will
    not exist the next time either. When two parts end with the same declared words, the rest would too,
    and no more are tried.

    Args:
        tasks: What is to be done.
        retries: How often a part may be tried again.
        done: Called with each finished part and what its work returned.

    Attributes:
        failures: Parts that were given up.
        stopped: Whether some parts are left because the run was asked to stop.
    """

    def __init__(self, tasks: Sequence[Task], retries: int, done: Callable[[Part, bool], None]) -> None:
        self.failures: list[Failure] = []
        self.stopped = False
        self._waiting = deque(tasks)
        self._tries: Counter[Part] = Counter()
        self._retries = retries
        self._done = done

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Task | None:
        """The next task, or None when there is none to begin."""
        return self._waiting.popleft() if self._waiting and not self.stopped else None

    def stop(self) -> None:
        """Begin nothing more."""
        self.stopped = True

    def settle(self, task: Task, outcome: Outcome) -> None:
        """Take what a worker reports of its task."""
        if outcome.kind == "done":
            self._done(task.part, outcome.more)
        elif outcome.kind == "stopped":
            self.stopped = True
            self._waiting.append(task)
        elif outcome.kind == "declared":
            failure = Failure(task.part, outcome.error, outcome.words)
            if any(_alike(failure, other) for other in self.failures):
                self._waiting.clear()
            self.failures.append(failure)
        else:
            self._again(task, Failure(task.part, outcome.error, f"{outcome.error}: {outcome.words}"))

    def lost(self, task: Task, how: str) -> None:
        """Take back a task whose worker died.

        Args:
            task: The task.
            how: How the worker ended, for example its exit code.
        """
        self._again(task, Failure(task.part, "", f"its worker ended with {how}"))

    def give_up(self, task: Task, how: str) -> None:
        """Take back a task that an engine has tried often enough by its own means."""
        self.failures.append(Failure(task.part, "", f"{how} (tried {self._retries + 1} times)"))

    def _again(self, task: Task, failure: Failure) -> None:
        self._tries[task.part] += 1
        tries = self._tries[task.part]
        if tries <= self._retries:
            self._waiting.append(task)
            return
        words = f"{failure.words} (tried {tries} times)" if tries > 1 else failure.words
        self.failures.append(failure._replace(words=words))


def _alike(one: Failure, other: Failure) -> bool:
    """Whether two parts failed with the same words, but for their own names."""
    return (one.error, one.words.replace(one.part.name, "")) == (
        other.error,
        other.words.replace(other.part.name, ""),
    )
