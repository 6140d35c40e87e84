from collections import defaultdict

import numpy as np
import pytest

from msr_enhance.data.columns import Columns
from msr_enhance.data.facts import Event, scenario_facts, user_histories
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError


def slow_histories(log, rows, history):
    """User → scenario → (events, total), row by row."""
    liked = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: (log["timestamp"][row], row)):
        if log["label"][row] == 1:
            text = tuple(value for value in (log["title"][row], log["category"][row]) if value)
            event = Event(log["scenario"][row], str(log["item_id"][row]), text, log["category"][row])
            liked[int(log["user_id"][row])][log["scenario"][row]].append(event)
    return {
        user: {scenario: (events[-history:], len(events)) for scenario, events in scenarios.items()}
        for user, scenarios in liked.items()
    }


@pytest.mark.parametrize("history", [1, 3, 1000])
def test_histories_are_the_slow_ones(random_log, history):
    log = random_log()
    table = InteractionTable.from_arrays(log)
    rows = np.random.default_rng(1).permutation(len(table))[:400]
    expected = slow_histories(log, rows.tolist(), history)
    facts = list(user_histories(table, rows, history))
    assert [each.user for each in facts] == table.user_ids
    for each in facts:
        mine = expected.get(each.user, {})
        assert each.events == {scenario: events for scenario, (events, _) in mine.items()}
        assert each.totals == {scenario: total for scenario, (_, total) in mine.items()}


def test_many_users_come_in_order():
    users = 10_000
    log = {
        "user_id": np.arange(users)[::-1],
        "item_id": np.arange(users),
        "scenario": ["a"] * users,
        "label": np.arange(users) % 3 == 0,
        "timestamp": [0] * users,
    }
    table = InteractionTable.from_arrays(log)
    facts = list(user_histories(table, np.arange(users), 5))
    assert [each.user for each in facts] == list(range(users))
    expected = [
        {"a": [Event("a", str(item), (), "")]} if item % 3 == 0 else {} for item in range(users)[::-1]
    ]
    assert [each.events for each in facts] == expected


def test_no_rows_are_empty_histories(random_log):
    table = InteractionTable.from_arrays(random_log())
    facts = list(user_histories(table, np.array([], np.int64), 5))
    assert len(facts) == len(table.user_ids)
    assert not any(each.events or each.totals for each in facts)


def test_an_order_column_orders_the_history(small):
    small |= {"step": [2, 1, 1, 2], "scenario": ["s"] * 4, "label": [1] * 4, "timestamp": [1, 2, 3, 4]}
    table = InteractionTable.from_arrays(small, Columns(order="step"))
    items = [[event.item for event in each.events["s"]] for each in user_histories(table, np.arange(4), 5)]
    assert items == [["a", "c"], ["a", "b"]]


def test_a_history_of_nothing_is_refused_at_once(random_log):
    with pytest.raises(DataError, match="allowed: 1 or more"):
        user_histories(InteractionTable.from_arrays(random_log()), np.arange(3), 0)


def test_scenario_facts_are_the_slow_ones(random_log):
    log = random_log(users=300)
    table = InteractionTable.from_arrays(log)
    rows = np.random.default_rng(2).permutation(len(table))[:250].tolist()

    def ids(name, scenario):
        return {log[name][row] for row in rows if log["scenario"][row] == scenario}

    def shared(name, scenario):
        return ids(name, scenario) & set.union(*(ids(name, other) for other in "abc" if other != scenario))

    facts = scenario_facts(table, np.array(rows))
    assert [each.name for each in facts] == ["a", "b", "c"]
    for each in facts:
        mine = [row for row in rows if log["scenario"][row] == each.name]
        assert each.interactions == len(mine)
        assert each.positives == sum(log["label"][row] for row in mine)
        assert each.users == len(ids("user_id", each.name))
        assert each.items == len(ids("item_id", each.name))
        assert each.shared_users == len(shared("user_id", each.name))
        assert each.shared_items == len(shared("item_id", each.name))


def test_a_scenario_without_seen_rows_has_zeros(random_log):
    table = InteractionTable.from_arrays(random_log())
    only_a = np.flatnonzero(table.scenario_index == 0)
    a, b, _ = scenario_facts(table, only_a)
    assert a.interactions == len(only_a)
    assert a.shared_users == 0
    assert set(b.model_dump(exclude={"name"}).values()) == {0}
    assert all(each.users == 0 for each in scenario_facts(table, np.array([], np.int64)))
