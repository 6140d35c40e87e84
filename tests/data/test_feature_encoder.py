import math

import numpy as np
import pytest

from msr_enhance.data.columns import Columns
from msr_enhance.data.encode import FeatureEncoder
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError


def fields(encoder, table, name):
    return encoder.encode(table)[:, encoder.names.index(name)]


def test_vocabularies_come_from_the_fitted_rows_alone(random_log):
    log = random_log(users=200)
    table = InteractionTable.from_arrays(log)
    rows = np.arange(150)
    encoder = FeatureEncoder.fit(table, rows)
    assert encoder.names == ("user_id", "item_id", "scenario", "category")
    assert encoder.encode(table).dtype == np.int64
    for name, size in zip(encoder.names, encoder.sizes, strict=True):
        known = set(log["scenario"] if name == "scenario" else log[name][rows])
        codes = dict(zip(log[name], fields(encoder, table, name).tolist(), strict=True))
        assert size == len(known) + 1
        assert sorted(codes[value] for value in known) == list(range(1, size))
        assert all(codes[value] == 0 for value in codes.keys() - known)


def test_every_scenario_is_known(random_log):
    table = InteractionTable.from_arrays(random_log())
    encoder = FeatureEncoder.fit(table, np.flatnonzero(table.scenario_index == 1))
    assert fields(encoder, table, "scenario").tolist() == (table.scenario_index + 1).tolist()


def test_rows_pick_rows(random_log):
    table = InteractionTable.from_arrays(random_log())
    encoder = FeatureEncoder.fit(table, np.arange(300))
    rows = np.array([7, 3, 3, 500])
    assert encoder.encode(table, rows).tolist() == encoder.encode(table)[rows].tolist()


def test_missing_values_are_code_zero(small):
    small |= {
        "category": ["art", None, "", "sea"],
        "price": [1.5, None, 2.5, 1.5],
        "new": [True, None, False, True],
    }
    table = InteractionTable.from_arrays(small)
    encoder = FeatureEncoder.fit(table, np.arange(4))
    assert fields(encoder, table, "category").tolist() == [1, 0, 0, 2]
    assert fields(encoder, table, "price").tolist() == [1, 0, 2, 1]
    assert fields(encoder, table, "new").tolist() == [2, 0, 1, 2]


def test_floats_of_many_values_become_sixteen_even_bins(random_log):
    rng = np.random.default_rng(0)
    prices = rng.lognormal(size=1600)
    log = {**random_log(rows=1600), "price": prices.tolist()}
    log["price"][0] = None
    log["price"][1], log["price"][2] = math.inf, -math.inf
    table = InteractionTable.from_arrays(log)
    encoder = FeatureEncoder.fit(table, np.arange(1600))
    codes = fields(encoder, table, "price")
    assert encoder.sizes[encoder.names.index("price")] == 17
    assert codes[0] == 0
    assert (codes[1], codes[2]) == (16, 1)
    assert all(abs(count - 100) <= 2 for count in np.bincount(codes)[1:])
    assert (np.diff(codes[3:][np.argsort(prices[3:])]) >= 0).all()


def test_an_edge_opens_the_next_bin(random_log):
    prices = np.arange(161.0)
    table = InteractionTable.from_arrays({**random_log(rows=161), "price": prices})
    codes = fields(FeatureEncoder.fit(table, np.arange(161)), table, "price")
    assert (codes - 1).tolist() == np.minimum(prices // 10, 15).astype(int).tolist()


def test_values_beyond_the_fitted_ones_fall_in_the_outer_bins(random_log):
    table = InteractionTable.from_arrays({**random_log(), "price": np.arange(600.0)})
    encoder = FeatureEncoder.fit(table, np.arange(200, 400))
    codes = fields(encoder, table, "price")
    assert (codes[0], codes[599]) == (1, 16)


@pytest.mark.parametrize(("distinct", "size"), [(32, 33), (33, 17)])
def test_floats_of_few_values_are_categories(random_log, distinct, size):
    table = InteractionTable.from_arrays({**random_log(), "price": np.arange(600.0) % distinct})
    assert FeatureEncoder.fit(table, np.arange(600)).sizes[-1] == size


def test_the_same_value_of_another_type_has_the_same_code(small):
    table = InteractionTable.from_arrays(small)
    encoder = FeatureEncoder.fit(table, np.arange(4))
    words = InteractionTable.from_arrays({**small, "user_id": ["2", "1", "x", "1"]})
    assert fields(encoder, words, "user_id").tolist() == [2, 1, 0, 1]


def test_a_feature_of_nothing_has_one_code(small):
    table = InteractionTable.from_arrays({**small, "blank": [None] * 4})
    encoder = FeatureEncoder.fit(table, np.arange(4))
    assert encoder.sizes[-1] == 1
    assert fields(encoder, table, "blank").tolist() == [0] * 4


def test_a_log_without_a_fitted_column_is_refused(small):
    encoder = FeatureEncoder.fit(InteractionTable.from_arrays(small), np.arange(4))
    small.pop("price")
    with pytest.raises(DataError, match="column 'price' is not known"):
        encoder.encode(InteractionTable.from_arrays(small))


def test_features_may_be_chosen(small):
    table = InteractionTable.from_arrays(small, Columns(features=("price",)))
    assert FeatureEncoder.fit(table, np.arange(4)).names == ("user_id", "item_id", "scenario", "price")
