"""The demonstration world: its statistics, and the gaps that show each part doing what it says."""

from __future__ import annotations

import numpy as np
import pytest

from msr_enhance.data.probe import ShownHistory, category_score, positives_score
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.demo.world import CATEGORIES, CUTOFF, PLATFORM, SCENARIOS, generate
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.category_frequency import CategoryFrequency
from msr_enhance.prompts.platform import Platform
from msr_enhance.train.compare import compare
from msr_enhance.train.loop import Settings
from msr_enhance.train.metrics import auc


def extracted(world, folder, **split):
    """Table, split and a store of what a perfect counter reads in each prompt."""
    table = InteractionTable.from_arrays(world.columns)
    parts = split_table(table, "scenario", **split)
    reader = CategoryFrequency(table.categories, table.scenarios)
    return table, parts, KnowledgeExtractor(reader).extract(table, folder, split=parts)


def shown_in(store):
    facts = {user: store.record("user", user).facts for user in store.known("user")}
    return ShownHistory(
        {user: one["shown"] for user, one in facts.items()},
        {user: one["categories"] for user, one in facts.items()},
    )


def probes(table, store, rows):
    """AUC over some rows of the positives and of the category share in the prompt, mean over scenarios."""
    shown, found = shown_in(store), []
    for score in (positives_score, category_score):
        values = score(table, rows, shown)
        places = [table.scenario_index[rows] == place for place in range(len(table.scenarios))]
        found.append(np.mean([auc(table.labels[rows][here], values[here]) for here in places]))
    return found


def test_a_world_is_its_seed():
    one, two, other = generate(3, users=50), generate(3, users=50), generate(4, users=50)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name])
    np.testing.assert_array_equal(one.oracle, two.oracle)
    assert not np.array_equal(one.columns["label"], other.columns["label"])


def test_no_generator_is_touched():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    generate(users=20)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_count_gives_a_label_away(seed):
    world = generate(seed)
    log = world.columns
    users, per_user = np.unique(log["user_id"], return_counts=True)
    assert len(users) == 4_500
    assert len(set(per_user.tolist())) == 1, "no user has more rows than another"
    for place in SCENARIOS:
        here = log["scenario"] == place
        for late in (log["timestamp"] < CUTOFF, log["timestamp"] >= CUTOFF):
            assert len(set(np.bincount(log["user_id"][here & late]).tolist())) == 1
        assert abs(log["label"][here].mean() - 0.5) < 0.03
    assert auc(log["label"], world.oracle) > 0.85
    np.testing.assert_allclose(world.taste.sum(axis=2), 0, atol=1e-9)


def test_a_world_reads_like_a_log():
    world = generate(users=60)
    log = world.columns
    assert (np.diff(log["timestamp"]) >= 0).all(), "ordered by time"
    assert set(log["scenario"]) == set(SCENARIOS)
    assert set(log["category"]) <= set(CATEGORIES)
    assert {note["name"] for note in PLATFORM["scenarios"]} == set(SCENARIOS)
    assert Platform.model_validate(PLATFORM).covering(SCENARIOS)
    item_of = {}
    for item, *what in zip(
        *(log[name] for name in ("item_id", "scenario", "category", "title")), strict=True
    ):
        assert item_of.setdefault(item, what) == what, "an item is one thing in one scenario"
    assert not any(kind in title for kind in CATEGORIES for title in log["title"])


def test_labels_follow_the_planted_taste():
    """The oracle is the logit: among rows of one logit, the share of positives is its sigmoid."""
    world = generate()
    for low, high in ((-3, -2), (-1, 0), (0, 1), (2, 3)):
        here = (world.oracle >= low) & (world.oracle < high)
        wanted = (1 / (1 + np.exp(-world.oracle[here]))).mean()
        assert abs(world.columns["label"][here].mean() - wanted) < 4 * 0.5 / here.sum() ** 0.5


def test_the_window_hides_labels_and_the_papers_protocol_shows_them(tmp_path):
    """The counter-example: prompts over the training rows know the training labels, measurably."""
    world = generate(users=800)
    table, window, store = extracted(world, tmp_path / "window", cutoff=world.cutoff)
    honest_train, honest_test = probes(table, store, window.train), probes(table, store, window.test)
    table, paper, store = extracted(world, tmp_path / "paper", protocol="paper")
    leaked_train, leaked_test = probes(table, store, paper.train), probes(table, store, paper.test)
    # Positives in the prompt say nothing of a label, unless the label is one of them.
    assert abs(honest_train[0] - 0.5) < 0.03
    assert leaked_train[0] > 0.62
    assert leaked_train[0] - leaked_test[0] > 0.1
    # The category share is honest knowledge, equally good on training and test rows; not so when it leaks.
    assert abs(honest_train[1] - honest_test[1]) < 0.05
    assert leaked_train[1] - leaked_test[1] > 0.05
    result = compare(
        table,
        store,
        arms=["plain"],
        seeds=1,
        learning_rates=(0.01,),
        settings=Settings(epochs=1),
        split=paper,
    )
    (warning,) = result.warnings
    assert "protocol=paper" in warning
    assert "its own label" in warning


@pytest.mark.slow
def test_knowledge_of_the_history_helps_and_controls_do_not(tmp_path):
    world = generate()
    table, parts, store = extracted(world, tmp_path / "store", cutoff=world.cutoff)
    result = compare(
        table,
        store,
        arms=["enhanced", "random", "shuffled"],
        seeds=2,
        learning_rates=(0.01,),
        settings=Settings(batch_size=2048, epochs=15),
        split=parts,
    )
    assert result.warnings == []
    gap = result.gaps["enhanced"]["mean"]
    assert gap.mean > 0.08
    assert gap.mean > 4 * gap.error_users
    for control in ("random", "shuffled"):
        other = result.gaps[control]["mean"]
        assert abs(other.mean) < 3 * max(other.error_seeds, other.error_users, 0.005), control
        assert gap.mean - other.mean > 0.08, control
    oracle = auc(table.labels[parts.test], world.oracle[parts.test])
    assert oracle > 0.85
    for name in result.scenarios:
        assert result.gaps["enhanced"][name].mean > 0.04
        assert result.scores["enhanced"][name].auc < oracle
        # 900 test rows a scenario: the standard error of an AUC without information is 0.019.
        assert abs(result.leak_probe[name] - 0.5) < 0.06
        assert result.category_probe[name] > 0.65
    assert 0.47 < np.mean(list(result.leak_probe.values())) < 0.53
    assert result.scores["plain"]["mean"].auc < 0.56
