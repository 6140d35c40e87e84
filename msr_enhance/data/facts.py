"""What a prompt may say of a scenario and of a user, from given rows only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from msr_enhance.data.ranks import ranks
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError

_USERS_AT_ONCE = 4_096


class ScenarioFacts(BaseModel):
    """A scenario in numbers, as in Table 1 of LLM4MSR (arXiv 2406.12529), with its overlaps.

    Attributes:
        name: The scenario.
        interactions: Its rows.
        users: Its distinct users.
        items: Its distinct items.
        positives: Its rows with label 1.
        shared_users: Its users that are also active in another scenario.
        shared_items: Its items that also occur in another scenario.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    interactions: int
    users: int
    items: int
    positives: int
    shared_users: int
    shared_items: int


class Event(NamedTuple):
    """One positive interaction, in plain strings.

    Attributes:
        scenario: Where.
        item: The item's id.
        text: The item's texts that are not empty, the category last.
        category: The item's category, ``""`` when unknown.
    """

    scenario: str
    item: str
    text: tuple[str, ...]
    category: str


@dataclass(frozen=True, slots=True)
class UserFacts:
    """What prompts may see of one user.

    Attributes:
        user: The id.
        events: The most recent positives of each scenario, oldest first; only scenarios that have some.
        totals: All positives of each of these scenarios, also those too old to be in `events`.
    """

    user: int | str
    events: dict[str, list[Event]]
    totals: dict[str, int]


def scenario_facts(table: InteractionTable, rows: npt.NDArray[np.int64]) -> list[ScenarioFacts]:
    """Count what each scenario has.

    Args:
        table: The log.
        rows: The rows that may be seen ``[n]``.

    Returns:
        One entry for each of `InteractionTable.scenarios`, in their order; zeros where it has no such row.
    """
    scenario, size = table.scenario_index[rows], len(table.scenarios)
    interactions = np.bincount(scenario, minlength=size)
    positives = np.bincount(scenario[table.labels[rows] == 1], minlength=size)
    users, shared_users = _distinct(table.user_index[rows], scenario, size)
    items, shared_items = _distinct(table.item_index[rows], scenario, size)
    return [
        ScenarioFacts(
            name=name,
            interactions=int(interactions[at]),
            users=int(users[at]),
            items=int(items[at]),
            positives=int(positives[at]),
            shared_users=int(shared_users[at]),
            shared_items=int(shared_items[at]),
        )
        for at, name in enumerate(table.scenarios)
    ]


def user_histories(table: InteractionTable, rows: npt.NDArray[np.int64], history: int) -> Iterator[UserFacts]:
    """Each user's most recent positives in each scenario: the T behaviors of LLM4MSR's user prompt.

    Args:
        table: The log.
        rows: The rows that may be seen ``[n]``, in any order.
        history: At most so many positives a scenario.

    Returns:
        One entry for every user of the log, in the order of `InteractionTable.user_ids`; without a positive
        its events are empty. Users are made a few thousand at a time.

    Raises:
        DataError: ``history`` is below 1.
    """
    if history < 1:
        raise DataError(
            f"a history of {history} events shows nothing; allowed: 1 or more. Write --history 20."
        )
    return _histories(table, np.sort(rows), history)


def _histories(table: InteractionTable, rows: npt.NDArray[np.int64], history: int) -> Iterator[UserFacts]:
    rows = rows[table.labels[rows] == 1]
    width = len(table.scenarios)
    group = table.user_index[rows] * width + table.scenario_index[rows]
    order = np.lexsort((table.clock[rows], group))
    rows, group = rows[order], group[order]
    rank, size = ranks(group)
    shown = size - rank <= history
    rows, group, size = rows[shown], group[shown], size[shown]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    bounds = [*starts.tolist(), len(rows)]
    groups, totals = group[starts], size[starts].tolist()
    for first in range(0, len(table.user_ids), _USERS_AT_ONCE):
        users = table.user_ids[first : first + _USERS_AT_ONCE]
        low, high = np.searchsorted(groups, (first * width, (first + len(users)) * width)).tolist()
        events = _events(table, rows[bounds[low] : bounds[high]])
        facts = [UserFacts(user, {}, {}) for user in users]
        for at, number in enumerate(groups[low:high].tolist(), start=low):
            user, scenario = divmod(number, width)
            name, known = table.scenarios[scenario], facts[user - first]
            known.events[name] = events[bounds[at] - bounds[low] : bounds[at + 1] - bounds[low]]
            known.totals[name] = totals[at]
        yield from facts


def _events(table: InteractionTable, rows: npt.NDArray[np.int64]) -> list[Event]:
    columns = table.columns
    needed = dict.fromkeys((columns.scenario, columns.item, *columns.text))
    frame = table.frame.select(*needed)[rows].cast(pl.String)
    values = zip(*(frame[name].to_list() for name in columns.text), strict=True)
    texts = [tuple(filter(None, each)) for each in values] if columns.text else [()] * len(rows)
    categories = [""] * len(rows) if columns.category is None else frame[columns.category].to_list()
    fields = zip(
        frame[columns.scenario].to_list(), frame[columns.item].to_list(), texts, categories, strict=True
    )
    return [Event._make(each) for each in fields]


def _distinct(
    ids: npt.NDArray[np.int64], scenario: npt.NDArray[np.int64], scenarios: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct ids of each scenario, and those among them that another scenario has as well."""
    who, where = np.divmod(np.unique(ids * scenarios + scenario), scenarios)
    shared = np.bincount(who)[who] > 1 if len(who) else np.zeros(0, np.bool_)
    return np.bincount(where, minlength=scenarios), np.bincount(where[shared], minlength=scenarios)
