"""Prompts of real people: MovieLens-100K by release period, with the first listed genre."""

from __future__ import annotations

from pathlib import Path

from benchmarks.builtin_llm.worlds import Event, History, Lesson, answer_of
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.user import UserPrompt

PERIODS = {
    "classics": (0, 1980),
    "eighties": (1980, 1990),
    "nineties": (1990, 1996),
    "new releases": (1996, 9999),
}
LIKED = 4


def lessons(folder: Path, users: int, shown: int = 6) -> dict[str, list[Lesson]]:
    """Prompts of people who like films of two periods or more; titles as they are, and without their year.

    Args:
        folder: Where `u.data`, `u.item` and `u.genre` are.
        users: So many users, in order of their number.
        shown: Films of each period in a prompt, the last ones liked.
    """
    genres = [line.split("|")[0] for line in (folder / "u.genre").read_text().split() if "|" in line]
    films: dict[int, tuple[str, str, str]] = {}
    for line in (folder / "u.item").read_text(encoding="latin-1").splitlines():
        number, title, released, _, _, *flags = line.split("|")
        year = int(released[-4:] or 0)
        period = next(name for name, (first, stop) in PERIODS.items() if first <= year < stop)
        listed = [genre for genre, flag in zip(genres, flags, strict=False) if flag == "1"]
        if listed and listed[0] != "unknown":
            films[int(number)] = (title, listed[0], period)
    liked: dict[int, list[tuple[int, int]]] = {}
    for line in (folder / "u.data").read_text().splitlines():
        user, film, stars, time = map(int, line.split())
        if stars >= LIKED and film in films:
            liked.setdefault(user, []).append((time, film))
    found: dict[str, list[Lesson]] = {"movielens": [], "movielens, no years": []}
    for user in sorted(liked):
        events: dict[str, list[tuple[str, str]]] = {name: [] for name in PERIODS}
        for _, film in sorted(liked[user]):
            title, genre, period = films[film]
            events[period].append((title, genre))
        if sum(map(bool, events.values())) < 2 or len(found["movielens"]) == users:
            continue
        kept = {name: own[-shown:] for name, own in events.items() if own}
        for name, cut in (("movielens", False), ("movielens, no years", True)):
            found[name].append(_lesson(user, kept, cut))
    return found


def _lesson(user: int, kept: dict[str, list[tuple[str, str]]], cut: bool) -> Lesson:
    events = {
        name: [Event("0", (title.rsplit(" (", 1)[0] if cut else title,), genre) for title, genre in own]
        for name, own in kept.items()
    }
    prompt = UserPrompt.named("default").render_facts(
        Platform(name="MovieLens").for_scenarios(kept), History(user, events, {})
    )
    histories = tuple(tuple(genre for _, genre in own) for own in kept.values())
    return Lesson(str(prompt), answer_of(list(kept), histories), histories)
