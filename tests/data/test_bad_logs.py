import math
from datetime import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("user_id", [2, None, 2, 1], "row 2, column 'user_id': None is missing"),
        ("item_id", ["a", "b", None, None], r"row 3, column 'item_id': None is missing \(2 such rows\)"),
        ("label", [1, 0, 1, None], "row 4, column 'label': None is missing"),
        ("timestamp", [1, 2, 3, None], "row 4, column 'timestamp': None is missing"),
        ("label", [1, 0, 2, 1], "row 3, column 'label': 2 is not a label; allowed: 0 and 1"),
        ("label", [1.0, 0.5, 0.0, 1.0], "row 2, column 'label': 0.5 is not a label"),
        ("label", ["yes", "no", "no", "no"], "'label' holds String.*0, 1, false or true"),
        ("label", [1.0, math.nan, 0.0, 1.0], "row 2, column 'label': nan"),
        ("price", [1.0, 2.0, math.nan, 1.0], "row 3, column 'price': nan is not a number"),
        ("timestamp", [1.0, math.nan, 0.0, 1.0], "row 2, column 'timestamp': nan"),
        ("timestamp", [1.0, 2.0, 0.0, math.inf], "row 4, column 'timestamp': inf"),
        ("timestamp", ["yesterday"] * 4, "'timestamp' holds String.*'yesterday'.*to_datetime"),
        ("timestamp", [True] * 4, "'timestamp' holds Boolean"),
        ("timestamp", [datetime(2024, 1, 1), None, None, None], "row 2, column 'timestamp'"),
        ("user_id", [1.0, 2.0, 1.0, 2.0], "'user_id' holds Float64.*Cast"),
        ("item_id", [True, False, True, True], "'item_id' holds Boolean"),
        ("user_id", [1, 2, 2**63, 1], "row 3, column 'user_id': 9223372036854775808 does not fit"),
        ("user_id", ["a", "b\n", "c", "d"], r"row 2, column 'user_id': 'b\\n' has control"),
        ("item_id", ["a", "b", "c\u200d", "d"], r"row 3, column 'item_id': 'c\\u200d' has control"),
        ("item_id", ["a", " ", "c", "d"], "row 2, column 'item_id': ' ' is an empty id"),
        ("scenario", ["a", "b", "", "d"], "row 3, column 'scenario': '' is an empty scenario"),
        ("scenario", ["a", "b\x1b[1m", "c", "d"], "row 2, column 'scenario'.*control"),
        ("scenario", [1.0, 2.0, 1.0, 2.0], "'scenario' holds Float64"),
        ("price", [[1], [2], [3], [4]], "'price' holds List.*one string"),
        ("title", ["a", "b", "\ud800", "d"], "'title' cannot be read"),
        ("user_id", [1, "a", 2, 3], "'user_id' cannot be read as one kind"),
        ("price", np.zeros((4, 2)), r"'price' has shape \[4, 2\]"),
        ("price", [1.0], "different lengths.*'price': 1"),
    ],
)
def test_a_bad_value_is_refused_by_row_and_column(small, name, values, message):
    with pytest.raises(DataError, match=message):
        InteractionTable.from_arrays({**small, name: values})


def test_an_empty_log_is_refused(small):
    with pytest.raises(DataError, match=r"no rows.*at least one"):
        InteractionTable.from_frame(pl.DataFrame(small).clear())


def test_pandas_nan_is_refused(small):
    with pytest.raises(DataError, match="row 3, column 'price': nan"):
        InteractionTable.from_frame(pd.DataFrame(small))


def test_columns_of_one_name_are_refused(small):
    frame = pd.DataFrame(small)
    frame.columns = [*frame.columns[:-1], "title"]
    with pytest.raises(DataError, match="same name: title"):
        InteractionTable.from_frame(frame)


def test_an_unknown_column_is_named(small):
    with pytest.raises(DataError, match=r"column 'prise' is not known.*Did you mean 'price'"):
        InteractionTable.from_arrays(small).column("prise")


def test_missing_features_and_texts_are_allowed(small):
    table = InteractionTable.from_arrays({**small, "category": [None] * 4})
    assert table.column("category").tolist() == [""] * 4
    assert table.frame["price"].null_count() == 1
