import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_enhance.data.columns import Columns
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import SplitError

KINDS = ("scenario", "global", "user")
PROTOCOLS = ("window", "paper")
PARTS = ("history", "train", "validation", "test")


@st.composite
def logs(draw):
    """Rows (user, scenario, time, label) with ties; long enough that most of them can be divided."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, users, moments = (draw(st.integers(1, most)) for most in (160, 6, 30))
    columns = rng.integers(0, (users, 2, moments, 2), (rows, 4)).tolist()
    return [(user, "ab"[scenario], time, label) for user, scenario, time, label in columns]


def build(rows):
    users, scenarios, times, labels = zip(*rows, strict=True)
    log = {
        "user_id": users,
        "item_id": range(len(rows)),
        "scenario": scenarios,
        "timestamp": times,
        "label": labels,
    }
    return InteractionTable.from_arrays({name: list(values) for name, values in log.items()})


def slow_split(rows, kind, protocol):
    """The four parts, written down row by row from the definition."""

    def group(row):
        user, scenario, _, _ = rows[row]
        return {"global": 0, "scenario": scenario, "user": (user, scenario)}[kind]

    def by_group(some):
        groups = {}
        for row in some:
            groups.setdefault(group(row), []).append(row)
        return groups.values()

    chronological = sorted(range(len(rows)), key=lambda row: (rows[row][2], row))
    history = set()
    if protocol == "window" and kind == "user":
        for mine in by_group(chronological):
            history.update(mine[: len(mine) // 2])
    elif protocol == "window":
        start = rows[chronological[len(rows) // 2]][2]
        history = {row for row in chronological if rows[row][2] < start}
    where = dict.fromkeys(history, "history")
    for mine in by_group(row for row in chronological if row not in history):
        n = len(mine)
        if kind == "user":
            tail = math.ceil(Fraction(n, 10)) if n >= 3 else 0
            first, second = n - 2 * tail, n - tail
        else:
            first, second = math.floor(Fraction(8 * n, 10)), math.floor(Fraction(9 * n, 10))
        for place, row in enumerate(mine):
            where[row] = "train" if place < first else "validation" if place < second else "test"
    return {part: [row for row in chronological if where[row] == part] for part in PARTS}


def possible(rows, parts, protocol):
    scenarios = {scenario for _, scenario, _, _ in rows}
    whole = all({rows[row][1] for row in parts[part]} == scenarios for part in PARTS[1:])
    return (
        whole
        and len({rows[row][3] for row in parts["test"]}) == 2
        and (parts["history"] or protocol == "paper")
    )


@settings(max_examples=150, derandomize=True, deadline=None)
@given(logs(), st.sampled_from(KINDS), st.sampled_from(PROTOCOLS))
def test_the_split_is_the_slow_one(rows, kind, protocol):
    expected = slow_split(rows, kind, protocol)
    if not possible(rows, expected, protocol):
        with pytest.raises(SplitError):
            split_table(build(rows), kind, protocol)
        return
    split = split_table(build(rows), kind, protocol)
    assert {part: getattr(split, part).tolist() for part in PARTS} == expected
    assert split.seen.tolist() == expected["train" if protocol == "paper" else "history"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_longer_logs_too(random_log, seed, kind, protocol):
    log = random_log(seed)
    table = InteractionTable.from_arrays(log)
    rows = list(zip(log["user_id"], log["scenario"], log["timestamp"], log["label"], strict=True))
    split = split_table(table, kind, protocol)
    assert {part: getattr(split, part).tolist() for part in PARTS} == slow_split(rows, kind, protocol)
    together = np.concatenate([getattr(split, part) for part in PARTS])
    assert sorted(together.tolist()) == list(range(len(table)))


@pytest.mark.parametrize("kind", ["scenario", "global"])
def test_no_prompt_sees_the_future_of_any_scenario(random_log, kind):
    table = InteractionTable.from_arrays(random_log())
    split = split_table(table, kind)
    starts = set(split.window.cutoffs.values())
    assert len(starts) == 1
    assert set(split.window.cutoffs) == set(table.scenarios)
    assert table.time[split.seen].max() < min(starts)
    for part in (split.train, split.validation, split.test):
        assert table.time[part].min() >= max(starts)


def test_an_order_column_divides_each_user_and_the_time_does_not(random_log):
    log = random_log()
    backwards = InteractionTable.from_arrays({**log, "step": -log["timestamp"]}, Columns(order="step"))
    log["timestamp"] = -log["timestamp"]
    expected = split_table(InteractionTable.from_arrays(log), "user")
    split = split_table(backwards, "user")
    for part in PARTS:
        assert getattr(split, part).tolist() == getattr(expected, part).tolist()


def test_the_time_divides_scenarios_even_where_there_is_an_order(random_log):
    log = random_log()
    both = InteractionTable.from_arrays({**log, "step": -log["timestamp"]}, Columns(order="step"))
    expected = split_table(InteractionTable.from_arrays(log), "scenario")
    assert split_table(both, "scenario").train.tolist() == expected.train.tolist()


def test_returning_users_are_split_by_time(random_log):
    split = split_table(InteractionTable.from_arrays(random_log()))
    assert split.kind == "scenario"
    assert "100% of the test rows" in split.reason


def test_passing_users_are_split_inside_each_user(random_log):
    log = random_log(rows=1200)
    log["timestamp"] = log["user_id"] * 100 + log["timestamp"]
    split = split_table(InteractionTable.from_arrays(log))
    assert split.kind == "user"
    assert "Only 0% of the test rows" in split.reason
    assert split.window.cutoffs is None


def test_without_a_time_users_are_split_by_order(random_log):
    log = random_log(rows=1200)
    log["step"] = log.pop("timestamp")
    table = InteractionTable.from_arrays(log, Columns(order="step"))
    assert split_table(table).kind == "user"
    with pytest.raises(SplitError, match=r"'global' needs a time column.*'step'.*--split user"):
        split_table(table, "global")
    with pytest.raises(SplitError, match="no time"):
        split_table(table, cutoff=3)


@pytest.mark.parametrize("cutoff", [12, 12.0, "12", "12.0"])
def test_a_cutoff_is_the_first_unseen_time(random_log, cutoff):
    table = InteractionTable.from_arrays(random_log())
    split = split_table(table, cutoff=cutoff)
    assert split.window.cutoffs == dict.fromkeys("abc", 12)
    assert sorted(split.history) == np.flatnonzero(table.time < 12).tolist()


@pytest.mark.parametrize("cutoff", ["1970-01-11", "1970-01-11T00:00:00+00:00", "1970-01-11 02:00:00+02:00"])
def test_a_cutoff_may_be_a_date(random_log, cutoff):
    log = random_log()
    log["timestamp"] = log["timestamp"].astype("datetime64[D]")
    split = split_table(InteractionTable.from_arrays(log), "global", cutoff=cutoff)
    assert set(split.window.cutoffs.values()) == {10 * 86_400_000_000}


@pytest.mark.parametrize(
    ("kind", "protocol", "cutoff", "message"),
    [
        ("scenario", "window", 0, r"cut-off 0 leaves no row before it.*from 0 to 39"),
        ("global", "window", 40, r"cut-off 40 leaves"),
        ("global", "window", math.nan, r"cut-off nan leaves"),
        ("global", "window", "soon", r"'soon' cannot be read; write a number"),
        ("user", "window", 12, r"here is split 'user'.*--split scenario"),
        ("global", "paper", 12, r"here is protocol 'paper'"),
        ("days", "window", None, r"split 'days' is not known; allowed: 'scenario'"),
        ("user", "papers", None, r"protocol 'papers' is not known.*Did you mean 'paper'"),
    ],
)
def test_a_request_that_cannot_be_met(random_log, kind, protocol, cutoff, message):
    with pytest.raises(SplitError, match=message):
        split_table(InteractionTable.from_arrays(random_log()), kind, protocol, cutoff)


def test_a_wrong_date_says_what_a_date_is(random_log):
    log = random_log()
    log["timestamp"] = log["timestamp"].astype("datetime64[D]")
    with pytest.raises(SplitError, match=r"'12/01/1970' cannot be read; write an ISO date"):
        split_table(InteractionTable.from_arrays(log), cutoff="12/01/1970")
    with pytest.raises(SplitError, match=r"from 1970-01-01 .* to 1970-02-09"):
        split_table(InteractionTable.from_arrays(log), cutoff="1999-01-01")


def test_an_empty_history_says_so(random_log):
    log = random_log()
    log["timestamp"] = np.zeros(len(log["timestamp"]), np.int64)
    with pytest.raises(SplitError, match=r"history is empty.*--protocol paper"):
        split_table(InteractionTable.from_arrays(log), "scenario")


def test_an_empty_part_names_scenario_and_part(random_log):
    log = random_log()
    log["timestamp"][log["scenario"] == "b"] = 0
    with pytest.raises(SplitError, match=r"leaves scenario 'b' without a training row.*--split user"):
        split_table(InteractionTable.from_arrays(log), "scenario")


def test_a_test_part_of_one_class_says_so(random_log):
    log = random_log()
    log["label"][log["timestamp"] > 30] = 1
    with pytest.raises(SplitError, match=r"one class: all \d+ labels are 1"):
        split_table(InteractionTable.from_arrays(log), "global")


def test_one_class_in_one_scenario_is_for_the_report(random_log):
    log = random_log()
    log["label"][log["scenario"] == "c"] = 0
    split = split_table(InteractionTable.from_arrays(log), "scenario")
    assert len(split.test) > 0
