"""Generated worlds: a prompt of this package's own templates, and the answer that is true of it.

The truth of a user: *common* interests are categories that occur in two scenarios or more, by number of
events, at most two; the *distinct* one of a scenario occurs in that one alone, most often; of equals, the one
seen last comes first. There are no counts in the answer: they were the part that could not be learnt.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Literal, TypeVar

from benchmarks.builtin_llm import words
from msr_enhance.prompts.platform import Platform, ScenarioNote
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt

COMMON, DISTINCT = 2, 1
NONE = "none"
Kind = Literal["seen", "unseen", "random", "mixed"]
T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """One liked item, as `UserPrompt` reads it."""

    item: str
    text: tuple[str, ...]
    category: str


@dataclass(frozen=True)
class History:
    """A user's liked items, as `UserPrompt` reads them."""

    user: int
    events: dict[str, list[Event]]
    totals: dict[str, int]


@dataclass(frozen=True)
class Lesson:
    """A prompt and its true answer.

    Attributes:
        prompt: What the model reads.
        answer: What it should write.
        histories: Of each scenario, the categories of its events in order; empty for a scenario's prompt.
    """

    prompt: str
    answer: str
    histories: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Truth:
    """What a perfect reader would say."""

    common: list[str]
    distinct: list[list[str]]


def truth(histories: Sequence[Sequence[str]]) -> Truth:
    """Common and distinct interests of the histories of each scenario."""
    total: Counter[str] = Counter()
    places: Counter[str] = Counter()
    last: dict[str, int] = {}
    for events in histories:
        places.update(set(events))
        for category in events:
            total[category] += 1
            last[category] = len(last) and max(last.values()) + 1

    def ranked(names: Sequence[str], count: Counter[str]) -> list[str]:
        return sorted(names, key=lambda name: (-count[name], -last[name]))

    common = ranked([name for name in total if places[name] > 1], total)
    distinct = [ranked([name for name in Counter(h) if places[name] == 1], Counter(h)) for h in histories]
    return Truth(common, distinct)


def answer_of(names: Sequence[str], histories: Sequence[Sequence[str]]) -> str:
    """The true answer as text."""
    found = truth(histories)
    lines = [f"Common interests: {', '.join(found.common[:COMMON]) or NONE}."]
    lines += [
        f"Only in {name}: {', '.join(own[:DISTINCT]) or NONE}."
        for name, own in zip(names, found.distinct, strict=True)
    ]
    return "\n" + "\n".join(lines)


class Worlds:
    """An endless supply of lessons from one seed.

    Args:
        seed: The same seed gives the same lessons.
        level: From 0 (short, easy) to 1 (as long as real prompts); may be changed at any time.
        kind: Where category words come from; None draws it anew for each world.
        pieces: Texts of tokens that random names are put together from.
    """

    def __init__(
        self, seed: int, pieces: Sequence[str], *, level: float = 1.0, kind: Kind | None = None
    ) -> None:
        self.draw = random.Random(seed)
        self.level, self.kind = level, kind
        self._pieces = list(pieces)
        clean = [
            [word for word in source if not words.held_out(word)]
            for source in (words.THINGS, words.QUALITIES, words.SCENARIOS, words.SECOND)
        ]
        self._things, self._qualities, self._scenarios, self._seconds = clean

    def lesson(self) -> Lesson:
        """One prompt with its answer."""
        return self._scenario() if self.kind is None and self.draw.random() < 0.08 else self.user()

    def user(self) -> Lesson:
        """A user's prompt."""
        draw = self.draw
        names = self._names(_one(draw, {1: 2, 2: 30, 3: 43, 4: 13, 5: 8, 6: 4}))
        most = 3 + round(self.level * _one(draw, {3: 30, 5: 30, 7: 25, 9: 12, 17: 3}))
        categories = self._categories(draw.randint(2, 4 + round(self.level * 9)))
        strength, apart = draw.uniform(0.3, 2.0), draw.uniform(0.2, 1.6)
        taste = [draw.gauss(0, strength) for _ in categories]
        title = self._titles()
        single = draw.random() < 0.05  # items that show nothing but one text
        histories, events = [], {}
        for name in names:
            own = [math.exp(common + draw.gauss(0, apart)) for common in taste]
            shown = draw.choices(categories, own, k=0 if draw.random() < 0.07 else draw.randint(1, most))
            histories.append(tuple(shown))
            events[name] = [Event("0", () if single else title(), category) for category in shown]
        prompt = UserPrompt.named("paper" if draw.random() < 0.2 else "default").render_facts(
            self._platform(names), History(draw.randrange(10 ** draw.randint(1, 7)), events, {})
        )
        return Lesson(str(prompt), answer_of(names, histories), tuple(histories))

    def _scenario(self) -> Lesson:
        """A scenario's prompt: the answer names it, what it is, and the others."""
        draw = self.draw
        names = self._names(draw.randint(1, 5))
        described = draw.random() < 0.7
        platform = self._platform(names, described)
        name = draw.choice(names)
        notes = {note.name: note.description for note in platform.scenarios}
        counts = [_Counts(n, *(draw.randrange(10 ** draw.randint(2, 7)) for _ in range(5))) for n in names]
        prompt = ScenarioPrompt.named("paper" if draw.random() < 0.2 else "default").render_facts(
            platform, counts, name
        )
        return Lesson(str(prompt), scenario_answer(name, notes[name], [n for n in names if n != name]))

    def _platform(self, names: Sequence[str], described: bool = False) -> Platform:
        draw = self.draw
        notes = tuple(
            ScenarioNote(name=name, description=draw.choice(words.DESCRIPTIONS) if described else "")
            for name in names
        )
        about = f"an app with {names[0]}" if described and draw.random() < 0.5 else ""
        return Platform(name=draw.choice(words.PLATFORMS), description=about, scenarios=notes)

    def _names(self, count: int) -> list[str]:
        draw = self.draw
        style = _one(draw, {0: 55, 1: 20, 2: 15, 3: 10})
        found: dict[str, None] = {}
        while len(found) < count:
            name = draw.choice(self._scenarios)
            if style == 1:
                name = f"{name} {draw.choice(words.SCENARIO_SECONDS)}"
            elif style == 2:
                name = self._word(3)
            elif style == 3:
                name = draw.choice(["", "tab", "domain", "D", "scene "]) + str(draw.randrange(20))
            found[name.title() if style == 0 and draw.random() < 0.2 else name] = None
        return list(found)

    def _categories(self, count: int) -> list[str]:
        """Distinct category names in one style of writing."""
        draw = self.draw
        kind = self.kind or _one(draw, {"seen": 40, "random": 30, "mixed": 30})
        double = draw.random() < 0.25
        style = _one(draw, {"title": 40, "lower": 35, "as is": 20, "upper": 5})
        found: dict[str, None] = {}
        while len(found) < count:
            if kind == "random" or (kind == "mixed" and draw.random() < 0.5):
                name = self._word(5)
            else:
                name = draw.choice(words.UNSEEN if kind == "unseen" else words.SEEN)
            if double and draw.random() < 0.4:
                joined = _one(draw, {"{} {}": 60, "{} and {}": 15, "{} & {}": 15, "{}-{}": 10})
                name = joined.format(name, draw.choice(self._seconds))
            found[{"title": str.title, "lower": str.lower, "upper": str.upper}.get(style, str)(name)] = None
        return list(found)

    def _word(self, most: int) -> str:
        """A word nobody has seen: pieces of the vocabulary, often single letters."""
        draw = self.draw
        single = draw.random() < 0.4
        while True:
            parts = [
                draw.choice(ascii_lowercase if single and draw.random() < 0.5 else self._pieces)
                for _ in range(draw.randint(1, most))
            ]
            word = "".join(parts)
            if 2 < len(word) < 16:
                return word

    def _titles(self) -> Callable[[], tuple[str, ...]]:
        """A way of writing items, the same for a whole world."""
        draw = self.draw
        style = _one(draw, {0: 40, 1: 20, 2: 15, 3: 10, 4: 10, 5: 5})
        brand = style == 3
        upper = draw.random() < 0.4

        def title() -> tuple[str, ...]:
            thing, quality = draw.choice(self._things), draw.choice(self._qualities)
            text = f"{quality} {thing}"
            if style == 1:
                text = f"{text} {draw.choice(words.JOINS)} {draw.choice(self._things)}"
            elif style == 2:
                text = f"{text if draw.random() < 0.5 else self._word(4)} ({draw.randrange(1920, 2024)})"
            elif style == 4:
                text = " ".join(self._word(4) for _ in range(draw.randint(1, 3)))
            elif style == 5:
                text = thing
            text = text.title() if upper else text
            return (text, self._word(3).title()) if brand else (text,)

        return title


@dataclass(frozen=True)
class _Counts:
    name: str
    interactions: int
    users: int
    items: int
    shared_users: int
    shared_items: int


def scenario_answer(name: str, description: str, others: Sequence[str]) -> str:
    """The answer to a scenario's prompt."""
    what = f"The scenario {name}: {description}." if description else f"The scenario {name}."
    beside = f"Beside it: {', '.join(others)}." if others else "Beside it: none."
    return f"\n{what}\n{beside}"


def _one(draw: random.Random, weights: dict[T, int]) -> T:
    """One of the keys, as often as its weight says."""
    return draw.choices(list(weights), list(weights.values()))[0]
