import numpy as np
from sklearn.metrics import roc_auc_score

from msr_enhance.data.facts import user_histories
from msr_enhance.data.probe import ShownHistory, category_score, positives_score
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable

SHOWN = ShownHistory(
    counts={1: {"feed": 3}, 2: {"shop": 5, "feed": 1}},
    categories={1: {"art": 1, "sea": 3}, 2: {"art": 2, "war": 2}},
)


def test_scores_are_looked_up_by_user_and_scenario(small):
    table = InteractionTable.from_arrays(small)
    assert positives_score(table, np.arange(4), SHOWN).tolist() == [5, 3, 1, 0]
    assert positives_score(table, np.array([2, 0]), SHOWN).tolist() == [1, 5]


def test_scores_are_shares_of_the_items_category(small):
    table = InteractionTable.from_arrays(small)
    assert category_score(table, np.arange(4), SHOWN).tolist() == [0, 0.25, 0.5, 0.75]


def test_what_is_unknown_scores_zero(small):
    nobody = ShownHistory({}, {1: {}})
    table = InteractionTable.from_arrays(small)
    assert positives_score(table, np.arange(4), nobody).tolist() == [0] * 4
    assert category_score(table, np.arange(4), nobody).tolist() == [0] * 4
    small.pop("category")
    assert category_score(InteractionTable.from_arrays(small), np.arange(4), SHOWN).tolist() == [0] * 4
    blank = InteractionTable.from_arrays({**small, "category": [None] * 4})
    assert category_score(blank, np.arange(4), ShownHistory({}, {1: {"": 5}})).tolist() == [0] * 4


def test_the_probe_finds_a_prompt_that_saw_the_test_rows(random_log):
    table = InteractionTable.from_arrays(random_log(rows=3000, users=700))
    split = split_table(table, "scenario")

    def auc(seen):
        counts = {facts.user: facts.totals for facts in user_histories(table, seen, 50)}
        scores = positives_score(table, split.test, ShownHistory(counts, {}))
        return roc_auc_score(table.labels[split.test], scores)

    assert abs(auc(split.seen) - 0.5) < 0.08
    assert auc(np.arange(len(table))) > 0.7
