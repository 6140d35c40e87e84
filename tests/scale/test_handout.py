"""Which part is tried again and which is given up: the rules that every engine follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from msr_enhance.scale.handout import Handout, Task
from msr_enhance.scale.outcome import Outcome
from msr_enhance.scale.part import Part

DONE = Outcome("done")


def handout(count=3, retries=2):
    """A handout, and the list that finished parts go to."""
    finished = []
    tasks = [Task(part, Path(part.name)) for part in Part.all(count)]
    return Handout(tasks, retries, lambda part, more: finished.append((part.index, more))), finished


def declared(task, words="no such model", error="ModelError"):
    return Outcome("declared", error=error, words=f"{task.part.name}: {words}")


def test_every_part_is_handed_out_once():
    tasks, finished = handout()
    while task := tasks.take():
        tasks.settle(task, Outcome("done", more=task.part.index == 1))
    assert finished == [(0, False), (1, True), (2, False)]
    assert not tasks.failures
    assert not tasks.stopped


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_part_that_keeps_dying_is_tried_so_often_and_no_more(retries):
    tasks, finished = handout(retries=retries)
    tries = 0
    while task := tasks.take():
        if task.part.index == 1:
            tries += 1
            tasks.lost(task, "exit code -9 (SIGKILL)")
        else:
            tasks.settle(task, DONE)
    assert tries == retries + 1
    assert sorted(finished) == [(0, False), (2, False)]
    (failure,) = tasks.failures
    assert failure.part == Part(1, 3)
    assert "exit code -9 (SIGKILL)" in failure.words
    assert (f"tried {retries + 1} times" in failure.words) == (retries > 0)


def test_a_part_is_tried_again_after_the_others():
    tasks, _ = handout()
    tasks.settle(tasks.take(), Outcome("broken", error="RuntimeError", words="device lost"))
    order = []
    while task := tasks.take():
        order.append(task.part.index)
        tasks.settle(task, DONE)
    assert order == [1, 2, 0]


def test_a_declared_error_is_final_for_its_part():
    tasks, finished = handout()
    task = tasks.take()
    tasks.settle(task, declared(task))
    while task := tasks.take():
        tasks.settle(task, DONE)
    assert finished == [(1, False), (2, False)]
    assert [failure.error for failure in tasks.failures] == ["ModelError"]


def test_the_same_declared_words_twice_end_the_run():
    tasks, finished = handout(count=50)
    for _ in range(2):
        task = tasks.take()
        tasks.settle(task, declared(task))
    assert tasks.take() is None
    assert len(tasks.failures) == 2
    assert finished == []


def test_different_declared_words_do_not_end_the_run():
    tasks, finished = handout(count=5)
    for words in ("no such model", "all of the first 4 prompts failed"):
        task = tasks.take()
        tasks.settle(task, declared(task, words))
    while task := tasks.take():
        tasks.settle(task, DONE)
    assert len(finished) == 3


def test_after_a_stop_nothing_is_begun_and_what_was_stopped_is_no_failure():
    tasks, finished = handout()
    task = tasks.take()
    tasks.stop()
    assert tasks.take() is None
    tasks.settle(task, Outcome("stopped"))
    assert tasks.stopped
    assert finished == []
    assert not tasks.failures
