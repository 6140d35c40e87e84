from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from msr_enhance.data.columns import Columns
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError


def test_what_a_table_knows(small):
    table = InteractionTable.from_arrays(small)
    assert len(table) == 4
    assert table.user_ids == [1, 2]
    assert table.item_ids == ["a", "b", "c"]
    assert table.scenarios == ("feed", "shop")
    assert table.labels.tolist() == [1, 0, 1, 1]
    assert table.labels.dtype == np.float32
    assert table.clock.tolist() == table.time.tolist() == [30, 10, 20, 40]
    assert table.order is None
    assert table.column("title").tolist() == ["Boat", "Arch", "Arch", ""]
    assert table.name == ""
    assert not table.dated


def test_indices_point_into_the_ids(random_log):
    log = random_log()
    log["item_id"] = [f"item {item}" for item in log["item_id"]]
    table = InteractionTable.from_arrays(log)
    assert [table.user_ids[at] for at in table.user_index] == log["user_id"].tolist()
    assert [table.item_ids[at] for at in table.item_index] == log["item_id"]
    assert [table.scenarios[at] for at in table.scenario_index] == log["scenario"].tolist()


def test_an_order_decides_within_a_user_and_the_time_stays(small):
    table = InteractionTable.from_arrays({**small, "step": [4, 3, 2, 1]}, Columns(order="step"))
    assert table.clock.tolist() == table.order.tolist() == [4, 3, 2, 1]
    assert table.time.tolist() == [30, 10, 20, 40]


class _Arrow:
    def __init__(self, frame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self.frame.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "make", [pl.DataFrame, pd.DataFrame, lambda log: _Arrow(pl.DataFrame(log)), pl.LazyFrame]
)
def test_every_frame_is_the_same_table(small, make):
    small["price"] = [1.5, 2.5, 3.5, 4.0]
    expected = InteractionTable.from_arrays(small)
    table = InteractionTable.from_frame(make(small))
    assert table.frame.equals(expected.frame)
    assert table.fingerprint() == expected.fingerprint()


def test_pandas_kinds(small):
    frame = pd.DataFrame(small).astype({"scenario": "category", "user_id": "Int64"})
    frame["price"] = pd.array([1, None, 3, 4], dtype="Int64")
    frame["timestamp"] = pd.to_datetime(["2024-01-04", "2024-01-01", "2024-01-02", "2024-01-05"])
    table = InteractionTable.from_frame(frame)
    assert table.frame["price"].to_list() == [1, None, 3, 4]
    assert table.frame["title"].to_list() == ["Boat", "Arch", "Arch", ""]
    assert table.scenarios == ("feed", "shop")
    assert table.dated


def test_other_objects_are_no_frames():
    with pytest.raises(DataError, match=r"a list is not a data frame.*__arrow_c_stream__.*from_arrays"):
        InteractionTable.from_frame([1, 2])


@pytest.mark.parametrize(
    ("dates", "microseconds"),
    [
        ([date(1970, 1, 2)] * 4, 86_400_000_000),
        ([datetime(1970, 1, 1, 0, 0, 1)] * 4, 1_000_000),
        ([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)] * 4, 1_000_000),
        (np.array(["1970-01-01T00:00:01"] * 4, "datetime64[s]"), 1_000_000),
        (np.array(["1970-01-01T00:00:01"] * 4, "datetime64[ns]"), 1_000_000),
    ],
)
def test_dates_become_microseconds(small, dates, microseconds):
    table = InteractionTable.from_arrays({**small, "timestamp": dates})
    assert table.dated
    assert table.clock.dtype == np.int64
    assert set(table.clock.tolist()) == {microseconds}


def test_booleans_and_floats_are_labels(small):
    for labels in ([True, False, True, True], [1.0, 0.0, 1.0, 1.0]):
        assert InteractionTable.from_arrays({**small, "label": labels}).labels.tolist() == [1, 0, 1, 1]


def test_numbers_are_scenarios_too(small):
    assert InteractionTable.from_arrays({**small, "scenario": [10, 9, 9, 10]}).scenarios == ("10", "9")


def test_arrays_cannot_be_written(small):
    table = InteractionTable.from_arrays(small)
    for array in (table.labels, table.clock, table.user_index, table.column("price")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_take(small):
    part = InteractionTable.from_arrays(small).take(np.array([3, 0]))
    assert part.clock.tolist() == [40, 30]
    assert part.scenarios == ("shop",)
    assert part.item_ids == ["b", "c"]


def test_the_fingerprint_is_of_the_content(small):
    expected = InteractionTable.from_arrays(small).fingerprint()
    frame = pl.DataFrame(small)
    chunked = pl.concat([frame[:1], frame[1:]], rechunk=False)
    renamed = InteractionTable.from_frame(frame.rename({"user_id": "uid"}), Columns(user="uid"))
    assert InteractionTable.from_frame(chunked).fingerprint() == expected
    assert renamed.fingerprint() == expected
    assert InteractionTable.from_arrays({**small, "price": [0.0] * 4}).fingerprint() == expected
    # Stores remember it: another value here makes every stored one worthless.
    assert expected == "b0c484f20e64e441545acdc390a131ce669fcf97820f93ddce402110806463be"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("user_id", [2, 1, 2, 2]),
        ("label", [0, 0, 1, 1]),
        ("timestamp", [30, 10, 20, 41]),
        ("title", ["Boat", "Arch", "Arc", "h"]),
        ("title", ["Boat", "Arc", "hArch", ""]),
    ],
)
def test_the_fingerprint_sees_every_role(small, name, values):
    before = InteractionTable.from_arrays(small).fingerprint()
    assert InteractionTable.from_arrays({**small, name: values}).fingerprint() != before
