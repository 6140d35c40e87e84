"""Lessons as tensors: tokens, what each answer token should be, and what each comma could already know."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.builtin_llm.worlds import NONE, Lesson, Worlds

SLOTS = 4
"""Scenarios (in the order of the prompt) whose own frequencies the last state should carry."""
_POOL = 512
_VALUE = 3
"""A word that had to be found out counts as much as so many that follow from the form."""


@dataclass
class Example:
    """One lesson in tokens.

    Attributes:
        tokens: Prompt, answer, end token.
        start: Where the answer begins.
        values: Positions in the answer that do not follow from its form.
        words: Positions of tokens inside a category of the prompt.
        marks: Of each event: position right behind its category, events of that category so far (all,
            here), scenarios it was in so far, first token of the commonest shared category so far.
        bags: `(position, slot, {token: weight})`; slot 0 is all scenarios together.
    """

    tokens: list[int]
    start: int
    values: list[int]
    words: list[int]
    marks: list[tuple[int, int, int, int, int]]
    bags: list[tuple[int, int, dict[int, float]]]


def example(lesson: Lesson, tokenizer: Any, end: int) -> Example:
    """Tokens and targets of a lesson."""
    encoded = tokenizer.encode(lesson.prompt)
    ids, spans = encoded.ids, encoded.offsets
    said = tokenizer.encode(lesson.answer)
    tokens = [*ids, *said.ids, end]
    values = [len(ids) + at for at, (first, _) in enumerate(said.offsets) if _is_value(lesson.answer, first)]
    none = tokenizer.encode(f" {NONE}").ids[0]
    made = Example(tokens, len(ids), values, [], [], [])
    if not lesson.histories:
        return made
    pieces: dict[str, list[int]] = {}
    lines = [line for line in _lines(lesson.prompt) if line[1].startswith("In ")]
    at, everywhere, last = 0, Counter[str](), {}
    places: dict[str, int] = {}
    for events, (offset, line) in zip(lesson.histories, lines, strict=True):
        here = Counter[str]()
        position = offset + line.index(": ") + 2
        shown = line[line.index(": ") + 2 : -1].split("; ")
        for category, text in zip(events, shown, strict=True) if events else ():
            stop = position + len(text)
            while at < len(spans) and spans[at][1] <= stop - len(category):
                at += 1
            first = at
            while spans[at][0] < stop:
                at += 1
            made.words += range(first, at)
            pieces.setdefault(category, ids[first:at])
            everywhere[category] += 1
            here[category] += 1
            places[category] = places.get(category, 0) + (here[category] == 1)
            last[category] = at
            shared = [(everywhere[name], last[name], name) for name in places if places[name] > 1]
            made.marks.append(
                (
                    at,
                    min(everywhere[category], 8) - 1,
                    min(here[category], 8) - 1,
                    min(places[category], 4) - 1,
                    pieces[max(shared)[2]][0] if shared else none,
                )
            )
            if len(made.marks) % 4 == 0:
                made.bags.append((at, 0, _bag(everywhere, pieces)))
            position = stop + 2
    if everywhere:
        end_at = len(tokens) - 2
        made.bags += [(end_at, 0, _bag(everywhere, pieces))] * 2
        made.bags += [
            (end_at, slot, _bag(Counter(own), pieces))
            for slot, own in enumerate(lesson.histories[:SLOTS], 1)
            if own
        ]
    return made


def _is_value(answer: str, at: int) -> bool:
    """Whether a token that begins there, perhaps by a space, is behind its line's colon."""
    return ": " in answer[answer.rfind("\n", 0, at + 1) + 1 : at + 2] and answer[at] != "\n"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    offset = 0
    for line in text.split("\n"):
        yield offset, line
        offset += len(line) + 1


def _bag(counts: Counter[str], pieces: dict[str, list[int]]) -> dict[int, float]:
    """Tokens of the categories, as often as the categories occur; together 1."""
    weights: Counter[int] = Counter()
    for name, count in counts.items():
        for token in pieces[name]:
            weights[token] += count / len(pieces[name])
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


@dataclass
class Batch:
    """Tensors of one step; rows are padded on the right.

    Attributes:
        tokens: `[rows, width]`.
        answer: Flat positions whose next token is scored, with that token and its weight `[3, n]`.
        words: The same, without weights, for category tokens of the prompts.
        marks: `[n, 5]`, flat positions and targets.
        bag_at: `[n, 2]`, flat position and slot; `bags` `[n, vocabulary]` what to predict there.
    """

    tokens: Tensor
    answer: Tensor
    words: Tensor
    marks: Tensor
    bag_at: Tensor
    bags: Tensor


def collate(examples: Sequence[Example], vocabulary: int) -> Batch:
    """One batch."""
    width = -(-max(len(one.tokens) for one in examples) // 16) * 16
    tokens = torch.zeros(len(examples), width, dtype=torch.long)
    answer, words, marks, places, weights = [], [], [], [], []
    for row, one in enumerate(examples):
        base = row * width
        tokens[row, : len(one.tokens)] = torch.tensor(one.tokens)
        values = set(one.values)
        answer += [
            (base + at - 1, one.tokens[at], _VALUE if at in values else 1)
            for at in range(one.start, len(one.tokens))
        ]
        words += [(base + at - 1, one.tokens[at]) for at in one.words]
        marks += [(base + mark[0], *mark[1:]) for mark in one.marks]
        places += [(base + at, slot) for at, slot, _ in one.bags]
        weights += [bag for _, _, bag in one.bags]
    bags = torch.zeros(len(weights), vocabulary)
    for row, bag in enumerate(weights):
        bags[row, list(bag)] = torch.tensor(list(bag.values()))
    return Batch(
        tokens,
        torch.tensor(answer).T,
        torch.tensor(words).reshape(-1, 2).T,
        torch.tensor(marks).reshape(-1, 5),
        torch.tensor(places).reshape(-1, 2),
        bags,
    )


def batches(worlds: Worlds, tokenizer: Any, end: int, *, size: int, window: int) -> Iterator[Batch]:
    """Batches of about `size` tokens, each of rows of similar length, without end."""
    vocabulary = tokenizer.get_vocab_size()
    shuffle = random.Random(0)
    while True:
        pool = [example(worlds.lesson(), tokenizer, end) for _ in range(_POOL)]
        pool = sorted((one for one in pool if len(one.tokens) <= window), key=lambda one: len(one.tokens))
        groups: list[list[Example]] = [[]]
        for one in pool:
            if (len(groups[-1]) + 1) * len(one.tokens) > size and groups[-1]:
                groups.append([])
            groups[-1].append(one)
        shuffle.shuffle(groups)
        yield from (collate(group, vocabulary) for group in groups)


def copying(draw: torch.Generator, vocabulary: int, size: int) -> Batch:
    """Random tokens, twice: what comes next the second time is known."""
    half = int(torch.randint(16, 64, (1,), generator=draw))
    rows = max(1, size // (2 * half))
    tokens = torch.randint(2, vocabulary, (rows, half), generator=draw).repeat(1, 2)
    at = torch.arange(rows)[:, None] * 2 * half + torch.arange(half, 2 * half - 1)
    answer = torch.stack([at.flatten(), tokens[:, half + 1 :].flatten(), torch.ones(at.numel()).long()])
    nothing = torch.zeros(2, 0, dtype=torch.long)
    return Batch(
        tokens,
        answer,
        nothing,
        torch.zeros(0, 5).long(),
        torch.zeros(0, 2).long(),
        torch.zeros(0, vocabulary),
    )
