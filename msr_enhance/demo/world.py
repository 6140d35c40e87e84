"""A generated multi-scenario world with planted interests, where the right answer is known.

Three services of one platform share users and item categories, not items. Every user has a taste over
the categories: a part common to all services and a part of its own in each. A row is shown at random
and liked with probability `sigmoid(taste of the item's category + item quality)`. Users have a long
early history and only a few recent rows, so an id embedding cannot learn the taste from the recent
rows, while a prompt of the history shows it. Tastes are centred and activity is equal, so no count
gives a label away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SCENARIOS = ("news", "shop", "video")
CATEGORIES = ("cooking", "football", "gardening", "history", "music", "travel")
_NOUNS = {
    "news": ("guide", "report", "column", "review"),
    "shop": ("kit", "set", "box", "pack"),
    "video": ("clip", "story", "lesson", "show"),
}
_QUALITIES = ("quick", "slow", "bright", "old", "fresh", "small", "great", "quiet", "plain", "bold")
PLATFORM = {
    "name": "Harbour",
    "description": "an app with short videos, a shop and a news page",
    "scenarios": [
        {"name": "news", "description": "articles that are read"},
        {"name": "shop", "description": "things that are bought"},
        {"name": "video", "description": "short videos that are watched"},
    ],
}
CUTOFF = 60 * 86_400
"""Time (seconds) before which all history lies and at which the recent rows begin."""


@dataclass(frozen=True)
class World:
    """A log and the truth behind it.

    Attributes:
        columns: The log: user_id, item_id, scenario, label, timestamp, title, category.
        oracle: `[rows]`, the logit each label was drawn from.
        taste: `[users, scenarios, categories]`, what a perfect reader would know.
        cutoff: First time of the recent rows.
    """

    columns: dict[str, npt.NDArray[Any]]
    oracle: npt.NDArray[np.float64]
    taste: npt.NDArray[np.float64]
    cutoff: int = CUTOFF


def generate(
    seed: int = 0,
    *,
    users: int = 4_500,
    history: int = 9,
    recent: int = 2,
    items: int = 200,
    strength: float = 2.0,
) -> World:
    """Draw a world.

    Args:
        seed: Of the world; the same seed gives the same log.
        users: Number of users.
        history: Rows of each user in each scenario before the cut-off.
        recent: Rows of each user in each scenario after it.
        items: Items of each scenario.
        strength: Standard deviation of the common taste, in logits; the part of each scenario has
            two thirds of it.

    Returns:
        The log, ordered by time, and the truth.
    """
    draw = np.random.default_rng(seed)
    places, kinds, each = len(SCENARIOS), len(CATEGORIES), history + recent
    common = draw.normal(size=(users, 1, kinds)) * strength
    own = draw.normal(size=(users, places, kinds)) * strength * 2 / 3
    taste = common + own
    taste -= taste.mean(axis=2, keepdims=True)
    category = draw.integers(kinds, size=(places, items))
    quality = draw.normal(size=(places, items)) * 0.3

    user = np.repeat(np.arange(users), places * each)
    place = np.tile(np.repeat(np.arange(places), each), users)
    item = draw.integers(items, size=len(user))
    early = np.tile(np.arange(each) < history, users * places)
    time = np.where(
        early,
        draw.integers(0, CUTOFF, size=len(user)),
        draw.integers(CUTOFF, CUTOFF * 5 // 4, size=len(user)),
    )
    logit = taste[user, place, category[place, item]] + quality[place, item]
    label = (draw.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.int8)

    names = np.array(CATEGORIES)[category]
    nouns = np.stack([draw.choice(_NOUNS[name], size=items) for name in SCENARIOS])
    titles = np.char.add(np.char.add(draw.choice(_QUALITIES, size=(places, items)), " "), nouns)
    order = np.argsort(time, kind="stable")
    columns: dict[str, npt.NDArray[Any]] = {
        "user_id": user,
        "item_id": place * items + item,
        "scenario": np.array(SCENARIOS)[place],
        "label": label,
        "timestamp": time,
        "title": titles[place, item],
        "category": names[place, item],
    }
    return World({name: values[order] for name, values in columns.items()}, logit[order], taste)
