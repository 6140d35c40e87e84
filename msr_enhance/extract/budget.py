"""Prompts over the context window: a user's loses its oldest interactions, evenly over the scenarios.

A scenario's loses what it says of the other scenarios.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msr_enhance.errors import ModelError
from msr_enhance.extract.draft import Draft
from msr_enhance.llm.protocol import CountsTokens, FrozenLLM
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.template import clean_text
from msr_enhance.prompts.user import LikedItem, UserHistory

_GUESSES = 4  # rounds that trust tokens to fall evenly; bisection ends what they leave

Render = Callable[[UserHistory], Prompt]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A history that shows less; it still counts everything."""

    user: int | str
    events: Mapping[str, Sequence[LikedItem]]
    totals: Mapping[str, int]


def kept_of_each(lengths: Sequence[int], dropped: int) -> list[int]:
    """How many interactions each scenario keeps when some are dropped, one after the other.

    Each time the longest list loses its oldest, of equally long lists the first. So all lists are cut
    to one common length, and a list that is shorter loses nothing.

    Args:
        lengths: Interactions of each scenario.
        dropped: How many go in all.

    Returns:
        The new lengths.
    """
    keep = sum(lengths) - dropped
    tops = range(max(lengths, default=0) + 1)
    level = bisect.bisect_right(tops, keep, key=lambda top: sum(min(n, top) for n in lengths)) - 1
    kept = [min(n, level) for n in lengths]
    longer = [at for at, n in enumerate(lengths) if n > level]
    for at in longer[len(longer) - (keep - sum(kept)) :]:
        kept[at] += 1
    return kept


def fit_users(
    llm: FrozenLLM, drafts: Sequence[Draft], histories: Sequence[UserHistory], render: Render
) -> list[Draft]:
    """Shorten the prompts of users that are too long for the reader.

    A shortened prompt fits, and with the interaction that was dropped last it would not. Its facts
    describe what it still shows, and hold ``dropped``, scenario → interactions. Where not even one
    interaction fits, the prompt could say nothing of its user, and the model is not asked. A draft's
    outcome never depends on the drafts beside it.

    Args:
        llm: The reader; one that names no limit takes everything.
        drafts: What would be asked.
        histories: What each draft was written from.
        render: Writes the prompt of a history.

    Returns:
        The drafts in their order, those that fit as they were.
    """
    fitted, searches = list(drafts), {}
    limit = token_limit(llm)
    for at, tokens in _too_long(llm, drafts, limit):
        searches[at] = _shortened(drafts[at], histories[at], tokens, limit or 0, render)
    proposed = {at: next(search) for at, search in searches.items()}
    while proposed:  # all searches advance together, so that tokens are counted many prompts at a time
        for at, tokens in zip(tuple(proposed), _counted(llm, list(proposed.values())), strict=True):
            try:
                proposed[at] = searches[at].send(tokens)
            except StopIteration as found:
                fitted[at] = found.value
                del proposed[at]
    return fitted


def fit_scenarios(llm: FrozenLLM, drafts: Sequence[Draft]) -> list[Draft]:
    """Shorten the prompts of scenarios that are too long for the reader.

    A prompt is never just cut at its end: prompts of scenarios differ in their last lines only, so cut
    ones would be the same for all. Lines about other scenarios go, those with the fewest interactions
    first and no more than must. The prompt's facts then hold ``dropped``, the scenarios that lost their
    line. Where that is not enough the model is not asked.

    Args:
        llm: The reader; one that names no limit takes everything.
        drafts: What would be asked.

    Returns:
        The drafts in their order, those that fit as they were.
    """
    fitted, limit = list(drafts), token_limit(llm)
    for at, _ in _too_long(llm, drafts, limit):
        fitted[at] = _fewer_lines(llm, drafts[at], limit or 0)
    return fitted


def token_limit(llm: FrozenLLM) -> int | None:
    """The most tokens a prompt may have, None where the reader names no limit.

    Raises:
        ModelError: The reader leaves no room for a prompt.
    """
    limit = llm.prompt_limit if isinstance(llm, CountsTokens) else None
    if limit is not None and limit < 1:
        raise ModelError(
            f"{type(llm).__name__} leaves {limit} tokens for a prompt: the answer fills the context window. "
            "Ask for fewer new tokens."
        )
    return limit


def _too_long(llm: FrozenLLM, drafts: Sequence[Draft], limit: int | None) -> list[tuple[int, int]]:
    """Position and tokens of the prompts over the limit."""
    asked = {at: draft.prompt for at, draft in enumerate(drafts) if draft.prompt is not None}
    if limit is None or not asked:
        return []
    counted = zip(asked, _counted(llm, list(asked.values())), strict=True)
    return [(at, tokens) for at, tokens in counted if tokens > limit]


def _counted(llm: FrozenLLM, prompts: Sequence[Prompt]) -> list[int]:
    if not isinstance(llm, CountsTokens):
        raise ModelError(f"{type(llm).__name__} does not count tokens; it needs count_tokens(prompts).")
    counts = llm.count_tokens(prompts)
    if len(counts) != len(prompts):
        raise ModelError(f"{type(llm).__name__} counted {len(counts)} of {len(prompts)} prompts.")
    return counts


def _shortened(
    draft: Draft, history: UserHistory, tokens: int, limit: int, render: Render
) -> Generator[Prompt, int, Draft]:
    """Propose prompts, be told their tokens, return the draft whose prompt fits by the least loss."""
    lengths = [len(events) for events in history.events.values()]
    low, low_tokens = 0, tokens  # so many dropped are too few
    high = max(sum(lengths) - 1, 0)  # so many are enough, once their tokens are known
    best = _without(history, lengths, high, render)
    high_tokens = yield best
    if high_tokens > limit:
        why = f"{high_tokens:,} prompt tokens with one interaction, and the model takes {limit:,}"
        return replace(draft, refused=why)
    guesses = 0
    while high - low > 1:
        middle = (low + high) // 2
        if guesses < _GUESSES and low_tokens > high_tokens:
            share = (low_tokens - limit) / (low_tokens - high_tokens)
            middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        guesses += 1
        prompt = _without(history, lengths, middle, render)
        tokens = yield prompt
        if tokens > limit:
            low, low_tokens = middle, tokens
        else:
            high, high_tokens, best = middle, tokens, prompt
    return replace(draft, prompt=best)


def _fewer_lines(llm: FrozenLLM, draft: Draft, limit: int) -> Draft:
    prompt = draft.prompt or Prompt("")
    lines = prompt.split("\n")
    at = _lines_of_others(lines, prompt.facts)

    def without(count: int) -> Prompt:
        names = list(at)[:count]
        gone = {at[name] for name in names}
        text = "\n".join(line for place, line in enumerate(lines) if place not in gone)
        return Prompt(text, {**prompt.facts, "dropped": names})

    def tokens(count: int) -> int:
        return _counted(llm, [without(count)])[0]

    if (least := tokens(len(at))) > limit:
        why = f"{least:,} prompt tokens, and the model takes {limit:,}; write shorter descriptions"
        return replace(draft, refused=why)
    enough = bisect.bisect_left(range(len(at)), True, key=lambda count: tokens(count) <= limit)
    return replace(draft, prompt=without(enough))


def _lines_of_others(lines: Sequence[str], facts: Mapping[str, Any]) -> dict[str, int]:
    """Scenarios but the prompt's own that have a line of their own, fewest interactions first."""
    found, start = {}, 0
    for name in facts.get("scenarios", ()):  # in the order of their lines
        begins = tuple(f"- {clean_text(name)}{mark}" for mark in (": ", " ("))
        places = (at for at in range(start, len(lines)) if lines[at].startswith(begins))
        if (place := next(places, None)) is not None:
            found[name], start = place, place + 1
    counts = facts.get("scenarios", {})
    others = (name for name in found if name != facts["scenario"])
    return {name: found[name] for name in sorted(others, key=lambda name: counts[name]["interactions"])}


def _without(history: UserHistory, lengths: Sequence[int], dropped: int, render: Render) -> Prompt:
    kept = dict(zip(history.events, kept_of_each(lengths, dropped), strict=True))
    events = {name: liked[len(liked) - kept[name] :] for name, liked in history.events.items()}
    prompt = render(_Cut(history.user, events, history.totals))
    lost = {name: len(liked) - kept[name] for name, liked in history.events.items()}
    prompt.facts["dropped"] = {name: count for name, count in lost.items() if count}
    return prompt
