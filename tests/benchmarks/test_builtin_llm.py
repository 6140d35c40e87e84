"""What the built-in decoder is to learn from: worlds, their answers, lessons, a step of training."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from benchmarks.builtin_llm import circuits, lessons, tokenizer, words
from benchmarks.builtin_llm.evaluate import PIECES, parse, score
from benchmarks.builtin_llm.train import Heads, losses
from benchmarks.builtin_llm.worlds import COMMON, DISTINCT, Truth, Worlds, truth
from msr_enhance.llm.outline import outline


@pytest.fixture(scope="module")
def words_of() -> Any:
    return outline("builtin").tokenizer.backend_tokenizer


def slow_truth(histories: Any) -> Truth:
    """The same truth, counted the long way."""
    flat = [(place, name) for place, events in enumerate(histories) for name in events]
    names = list(dict.fromkeys(name for _, name in flat))
    rank = {}
    for name in names:
        positions = [at for at, (_, seen) in enumerate(flat) if seen == name]
        rank[name] = (len(positions), positions[-1])
    shared = [name for name in names if len({place for place, seen in flat if seen == name}) >= 2]
    own = [
        sorted(
            {name for name in events if name not in shared},
            key=lambda name: (sum(seen == name for seen in events), rank[name][1]),
            reverse=True,
        )
        for events in histories
    ]
    return Truth(sorted(shared, key=rank.__getitem__, reverse=True), own)


def test_the_truth_of_a_world_is_what_counting_says() -> None:
    worlds = Worlds(3, PIECES)
    for _ in range(300):
        lesson = worlds.user()
        assert truth(lesson.histories) == slow_truth(lesson.histories)
        names = re.findall(r"^In (.*?): ", lesson.prompt, flags=re.MULTILINE)
        said = parse(lesson.answer, names)
        assert said is not None, lesson.answer
        right = slow_truth(lesson.histories)
        assert said.common == right.common[:COMMON]
        assert said.distinct == [own[:DISTINCT] for own in right.distinct]


def test_a_perfect_and_a_careless_reader_are_told_apart() -> None:
    worlds = Worlds(4, PIECES)
    cases = [worlds.user() for _ in range(50)]
    perfect = score(cases, [lesson.answer for lesson in cases])
    assert perfect["top common"] == perfect["well-formed"] == perfect["same answer"] == 1
    assert perfect["invented"] == perfect["repeated"] == 0
    moved = score(cases, [lesson.answer for lesson in cases[1:] + cases[:1]])
    assert moved["top common"] < 0.3
    invented = [lesson.answer.replace(": ", ": Zyzzyva, ", 1) for lesson in cases]
    assert score(cases, invented)["invented"] == 1


def test_lessons_mark_every_category_and_what_was_known_there(words_of: Any) -> None:
    worlds = Worlds(5, tokenizer.pieces(words_of))
    for _ in range(200):
        lesson = worlds.lesson()
        made = lessons.example(lesson, words_of, 1)
        flat = [(place, name) for place, events in enumerate(lesson.histories) for name in events]
        assert len(made.marks) == len(flat)
        for number, ((place, name), mark) in enumerate(zip(flat, made.marks, strict=True)):
            so_far = flat[: number + 1]
            assert words_of.decode(made.tokens[: mark[0]]).endswith(name)
            assert mark[1] == min(8, sum(seen == name for _, seen in so_far)) - 1
            assert mark[2] == min(8, so_far.count((place, name))) - 1
            assert mark[3] == min(4, len({at for at, seen in so_far if seen == name})) - 1


def test_no_held_out_word_is_in_a_training_prompt(words_of: Any) -> None:
    assert 30 < len(words.UNSEEN) < len(words.SEEN)
    worlds = Worlds(6, tokenizer.pieces(words_of))
    for _ in range(300):
        for events in worlds.lesson().histories:
            for name in events:
                assert not {part.lower() for part in name.split()} & {word.lower() for word in words.UNSEEN}


def test_training_lowers_every_part_of_the_loss(words_of: Any) -> None:
    """A few steps on one batch: the script learns, and no part of the loss is dead."""
    from transformers import LlamaForCausalLM

    size = words_of.get_vocab_size()
    model: Any = LlamaForCausalLM(circuits.config(size, 0, 1, 256))
    circuits.fill(model, torch.Generator().manual_seed(0))
    heads = Heads(circuits.WIDTH)
    worlds = Worlds(0, tokenizer.pieces(words_of), level=0.0)
    batch = next(lessons.batches(worlds, words_of, 1, size=512, window=256))
    adam = torch.optim.Adam([*model.parameters(), *heads.parameters()], lr=1e-3)
    first = {name: float(value.detach()) for name, value in losses(model, heads, batch).items()}
    for _ in range(12):
        adam.zero_grad()
        torch.stack(list(losses(model, heads, batch).values())).sum().backward()
        adam.step()
    last = {name: float(value.detach()) for name, value in losses(model, heads, batch).items()}
    assert first.keys() == {"answer", "words", "counts", "pick", "bag"}
    assert all(last[name] < first[name] for name in first), (first, last)
