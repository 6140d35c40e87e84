import numpy as np
import pytest

from msr_enhance.data.digest import rows_digest
from msr_enhance.data.split import Window, seen_rows, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import LeakageError


@pytest.fixture
def table(random_log):
    return InteractionTable.from_arrays(random_log())


@pytest.mark.parametrize("kind", ["scenario", "global", "user"])
@pytest.mark.parametrize("protocol", ["window", "paper"])
def test_a_split_knows_its_own_seen_rows(table, kind, protocol):
    split = split_table(table, kind, protocol)
    mask = seen_rows(split.window, table, split)
    assert np.flatnonzero(mask).tolist() == sorted(split.seen.tolist())
    assert not mask[split.test].any()
    assert mask[split.train].any() == (protocol == "paper")


def test_a_window_survives_json(table):
    for kind in ("scenario", "user"):
        window = split_table(table, kind).window
        assert Window.model_validate_json(window.model_dump_json()) == window


def test_cutoffs_speak_of_any_log(table, random_log):
    window = split_table(table, cutoff=12).window
    other = InteractionTable.from_arrays(random_log(seed=9))
    assert seen_rows(window, other, None).tolist() == (other.time < 12).tolist()


def test_a_scenario_without_a_cutoff_is_an_error(table, random_log):
    window = split_table(table, "scenario").window
    log = random_log()
    log["scenario"][0] = "d"
    with pytest.raises(LeakageError, match=r"no cut-off for scenario 'd'.*'a', 'b', 'c'.*Extract"):
        seen_rows(window, InteractionTable.from_arrays(log), None)


def test_other_rows_are_an_error(table, random_log):
    window = split_table(table, "user").window
    other = InteractionTable.from_arrays(random_log(seed=1))
    message = r"not describe the same rows.*--protocol window --split user.*extract a new store"
    with pytest.raises(LeakageError, match=message):
        seen_rows(window, other, split_table(other, "user"))
    with pytest.raises(LeakageError, match="no split was given"):
        seen_rows(window, table, None)


def test_the_digest_is_of_a_set_of_rows(table):
    shuffled = np.random.default_rng(0).permutation(len(table))
    rows = np.arange(100)
    digest = rows_digest(table, rows)
    assert rows_digest(table, rows[::-1]) == digest
    assert rows_digest(table.take(shuffled), np.argsort(shuffled)[rows]) == digest
    assert rows_digest(table.take(rows), rows) == digest
    assert rows_digest(table, np.append(rows, 0)) != digest
    assert rows_digest(table, rows[1:]) != digest


@pytest.mark.parametrize(
    ("name", "value"),
    [("user_id", 0), ("item_id", 99), ("scenario", "z"), ("timestamp", 77), ("label", None)],
)
def test_the_digest_sees_every_role(random_log, name, value):
    log = random_log()
    rows = np.arange(len(log["label"]))
    before = rows_digest(InteractionTable.from_arrays(log), rows)
    log[name][5] = 1 - log[name][5] if value is None else value
    assert rows_digest(InteractionTable.from_arrays(log), rows) != before


def test_swapped_values_are_other_rows(small):
    swapped = {**small, "user_id": [1, 1, 2, 2]}
    tables = [InteractionTable.from_arrays(log) for log in (small, swapped)]
    assert rows_digest(tables[0], np.arange(4)) != rows_digest(tables[1], np.arange(4))


def test_the_digest_of_a_log_never_changes(small):
    # Stores remember it: another value here makes every stored one worthless.
    expected = "1c50cfc81146996aadee928bdb10488b60214d8b2f239f935bc6fd04f8a7b1f3"
    assert rows_digest(InteractionTable.from_arrays(small), np.arange(4)) == expected
    floats = {**small, "timestamp": [30.0, 10.0, 20.0, 40.0]}
    assert rows_digest(InteractionTable.from_arrays(floats), np.arange(4)) != expected
