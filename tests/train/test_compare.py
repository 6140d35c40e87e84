"""`compare()`: no leak goes by unsaid, and the result says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from small_run import QUICK, RATES, quick

from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import LeakageError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.train.arms import ARMS, BACKBONES
from msr_enhance.train.compare import split_as
from msr_enhance.train.metrics import auc
from msr_enhance.train.run import Run

# What the store has seen


def late_store(table, tmp_path, fake_llm, cutoff):
    split = split_table(table, "scenario", cutoff=cutoff)
    return KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "late", split=split)


def test_rows_that_a_store_has_seen_are_refused(table, tmp_path, fake_llm):
    late = late_store(table, tmp_path, fake_llm, cutoff=500)
    split = split_table(table, "scenario")
    train = int((table.time[split.train] < 500).sum())
    later = int((table.time[split.validation] < 500).sum()), int((table.time[split.test] < 500).sum())
    assert train > 0
    with pytest.raises(LeakageError) as error:
        quick(table, late, split=split)
    said = str(error.value)
    assert f"{train:,} train" in said
    for count, part in zip(later, ("validation", "test"), strict=True):
        assert (f"{count:,} {part}" in said) == (count > 0)
    assert "cut-off" in said
    assert "--train-rows-the-store-has-seen" in said


def test_the_flag_lets_them_through_with_a_warning(table, tmp_path, fake_llm):
    late = late_store(table, tmp_path, fake_llm, cutoff=500)
    split = split_table(table, "scenario")
    result = quick(table, late, split=split, arms=["enhanced"], train_rows_the_store_has_seen=True)
    (warning,) = result.warnings
    assert "have seen" in warning
    assert "labels included" in warning


def test_a_single_row_seen_is_enough(table, tmp_path, fake_llm):
    """One tick of the clock past T0: the row at T0 is trained, and its label was shown."""
    split = split_table(table, "scenario")
    start = split.window.cutoffs["feed"]
    late = late_store(table, tmp_path, fake_llm, cutoff=start + 1)
    with pytest.raises(LeakageError, match="have seen 1 train rows"):
        quick(table, late, split=split)


def test_an_earlier_store_is_no_leak(table, tmp_path, fake_llm):
    early = late_store(table, tmp_path, fake_llm, cutoff=200)
    assert quick(table, early, arms=["enhanced"]).warnings == []
    assert quick(table, early, arms=["enhanced"], split=split_table(table, "scenario")).warnings == []


def test_the_default_split_is_the_stores(table, tmp_path, fake_llm):
    early = late_store(table, tmp_path, fake_llm, cutoff=200)
    assert quick(table, early, arms=["plain"]).rows["history"] == 200


@pytest.mark.parametrize("kind", ["scenario", "user"])
def test_the_papers_protocol_warns(table, tmp_path, fake_llm, kind):
    split = split_table(table, kind, "paper")
    store = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "paper", split=split)
    result = quick(table, store, arms=["enhanced"])
    (warning,) = result.warnings
    assert "protocol=paper" in warning
    assert f"{len(split.train):,}" in warning
    assert "its own label" in warning
    assert result.settings["protocol"] == "paper"


def test_a_papers_store_does_not_serve_the_window_protocol(table, tmp_path, fake_llm):
    paper = split_table(table, "scenario", "paper")
    store = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "paper", split=paper)
    with pytest.raises(LeakageError, match="do not describe the same rows"):
        quick(table, store, split=split_table(table, "scenario"))


def test_scored_rows_are_refused_under_the_papers_protocol_too(table, tmp_path, fake_llm):
    """Training rows may have been seen there, validation and test rows never."""
    late = late_store(table, tmp_path, fake_llm, cutoff=550)
    split = split_table(table, "scenario", "paper")
    counts = [int((table.time[part] < 550).sum()) for part in (split.validation, split.test)]
    assert min(counts) > 0
    with pytest.raises(LeakageError, match=f"have seen {counts[0]:,} validation, {counts[1]:,} test rows"):
        quick(table, late, split=split)


def test_a_window_store_under_the_papers_protocol_says_how_much_it_saw(table, store):
    result = quick(table, store, arms=["plain"], split=split_table(table, "scenario", "paper"))
    assert any("protocol=paper" in warning for warning in result.warnings)


@pytest.mark.parametrize("change", ["another log", "a row less"])
def test_a_store_of_another_log_is_refused(titled_log, table, tmp_path, fake_llm, change):
    split = split_table(table, "user")
    store = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "user", split=split)
    other = (
        InteractionTable.from_arrays(titled_log(seed=4, users=25, each=24))
        if change == "another log"
        else table.take(
            split.seen[1:].tolist() + split.train.tolist() + split.validation.tolist() + split.test.tolist()
        )
    )
    with pytest.raises(LeakageError, match=r"do not describe the same rows.*extract a new store"):
        quick(other, store)


def test_a_scenario_the_store_has_never_met_is_refused(titled_log, store):
    log = titled_log(users=25, each=24)
    log["scenario"] = np.where(np.arange(len(log["label"])) % 3 == 0, "cinema", log["scenario"])
    with pytest.raises(LeakageError, match=r"no cut-off for scenario 'cinema'.*'feed', 'shop'.*Extract"):
        quick(InteractionTable.from_arrays(log), store)


def test_another_history_before_the_same_cutoff_is_refused(titled_log, store):
    other = InteractionTable.from_arrays(titled_log(seed=9, users=25, each=24))
    with pytest.raises(LeakageError, match=r"not the same.*--train-rows-the-store-has-seen"):
        quick(other, store)
    result = quick(other, store, arms=["plain"], train_rows_the_store_has_seen=True)
    assert any("not the same" in warning for warning in result.warnings)


def test_later_rows_may_be_added_to_the_log(titled_log, store):
    log = titled_log(users=25, each=24)
    late = {name: values[log["timestamp"] > 400] for name, values in log.items()}
    late["timestamp"] = late["timestamp"] + 1_000
    longer = {name: np.concatenate([values, late[name]]) for name, values in log.items()}
    result = quick(InteractionTable.from_arrays(longer), store, arms=["enhanced"])
    assert result.warnings == []
    assert result.rows["history"] == 300


# What the result holds


def test_the_result_says_what_was_measured(table, store):
    split = split_table(table, "scenario")
    result = quick(table, store, seeds=2, learning_rates=RATES)
    places = {*table.scenarios, "mean"}
    assert list(result.scores) == list(ARMS)
    assert set(result.gaps) == set(ARMS) - {"plain"}
    assert result.scenarios == list(table.scenarios)
    for arm, scores in result.scores.items():
        assert set(scores) == places
        for name in table.scenarios:
            assert 0 <= scores[name].auc <= 1
            assert scores[name].spread >= 0
            assert scores[name].log_loss > 0
        assert scores["mean"].auc == pytest.approx(np.mean([scores[name].auc for name in table.scenarios]))
        assert result.learning_rates[arm] in RATES
        assert result.seconds[arm] >= 0
    for arm, gaps in result.gaps.items():
        assert set(gaps) == places
        for name, gap in gaps.items():
            paired = result.scores[arm][name].auc - result.scores["plain"][name].auc
            assert gap.mean == pytest.approx(paired)
            assert gap.error_seeds >= 0
            assert gap.error_users >= 0
    for arm, aucs in result.by_seed.items():
        assert len(aucs) == 2
        assert np.mean(aucs) == pytest.approx(result.scores[arm]["mean"].auc)
        assert np.std(aucs, ddof=1) == pytest.approx(result.scores[arm]["mean"].spread)
    assert set(result.against) == set(ARMS) - {"enhanced"}
    for arm, test in result.against.items():
        wanted = stats.ttest_rel(result.by_seed["enhanced"], result.by_seed[arm])
        assert (test.t, test.p) == (pytest.approx(wanted.statistic), pytest.approx(wanted.pvalue))
        assert test.mean == pytest.approx(np.mean(result.by_seed["enhanced"]) - np.mean(result.by_seed[arm]))
        assert test.error_seeds == pytest.approx(abs(test.mean / test.t))
    assert result.against["plain"].error_users == result.gaps["enhanced"]["mean"].error_users
    assert result.auc() == {
        arm: {name: result.scores[arm][name].auc for name in table.scenarios} for arm in ARMS
    }
    assert result.seeds == 2
    assert result.rows == {
        part: len(getattr(split, part)) for part in ("history", "train", "validation", "test")
    }
    for number, name in enumerate(table.scenarios):
        here = split.test[table.scenario_index[split.test] == number]
        assert result.test_rows[name] == len(here)
        assert result.test_positives[name] == table.labels[here].sum()
    assert set(result.leak_probe) == set(result.category_probe) == set(table.scenarios)
    assert 0 < result.coverage <= 1
    assert set(result.alphas) == {"scenario"}
    assert result.settings["learning_rates"] == list(RATES)
    assert (result.settings["backbone"], result.settings["epochs"]) == ("shared_bottom", 2)
    assert result.provenance["store"] == store.fingerprint
    assert result.provenance["log"] == table.fingerprint()
    assert result.provenance["versions"]["torch"] == torch.__version__
    again = json.loads(result.model_dump_json())
    assert type(result).model_validate(again) == result


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "shared_bottom"])
def test_every_backbone_is_compared_by_its_name(table, store, backbone):
    settings = replace(QUICK, epochs=1)
    result = quick(table, store, backbone=backbone, arms=["enhanced"], settings=settings)
    assert result.settings["backbone"] == backbone
    assert set(result.scores) == {"plain", "enhanced"}
    assert all(0 < by[name].auc < 1 for by in result.scores.values() for name in table.scenarios)


def test_the_probes_are_those_of_the_prompts(table, store):
    """Against a slow count over the prompts' own text."""
    result = quick(table, store, arms=["plain"])
    split = split_table(table, "scenario")
    frame, positives, shares = table.frame, {"feed": [], "shop": []}, {"feed": [], "shop": []}
    for row in split.test.tolist():
        user, place, kind = (frame[name][row] for name in ("user_id", "scenario", "category"))
        shown = store.record("user", user).prompt
        (line,) = [line for line in shown.splitlines() if line.startswith(f"In {place}:")]
        positives[place].append(line.count(" | "))
        shares[place].append(shown.count(f"| {kind}") / max(1, shown.count(" | ")))
    for number, name in enumerate(table.scenarios):
        labels = table.labels[split.test[table.scenario_index[split.test] == number]]
        assert result.leak_probe[name] == pytest.approx(auc(labels, positives[name]))
        assert result.category_probe[name] == pytest.approx(auc(labels, shares[name]))


def test_one_seed_has_no_spread(table, store):
    result = quick(table, store, arms=["enhanced"])
    assert result.scores["enhanced"]["feed"].spread is None
    assert result.gaps["enhanced"]["mean"].error_seeds is None
    test = result.against["plain"]
    assert (test.error_seeds, test.t, test.p) == (None, None, None)
    assert test.error_users > 0
    assert len(result.by_seed["plain"]) == 1
    json.dumps(result.model_dump(mode="json"), allow_nan=False)


def test_one_class_in_a_scenario_is_null_and_spoils_nothing(titled_log, tmp_path, fake_llm):
    log = titled_log(users=25, each=24)
    split = split_table(InteractionTable.from_arrays(log), "scenario")
    shop = split.test[log["scenario"][split.test] == "shop"]
    log["label"][shop] = 1
    table = InteractionTable.from_arrays(log)
    store = KnowledgeExtractor(fake_llm()).extract(
        table, tmp_path / "store", split=split_table(table, "scenario")
    )
    result = quick(table, store, arms=["enhanced"], seeds=2)
    data = json.loads(result.model_dump_json())
    for arm in ("plain", "enhanced"):
        assert data["scores"][arm]["shop"]["auc"] is None
        assert result.scores[arm]["mean"].auc == pytest.approx(result.scores[arm]["feed"].auc)
    assert "shop" not in result.gaps["enhanced"]
    assert result.gaps["enhanced"]["mean"].mean == pytest.approx(result.gaps["enhanced"]["feed"].mean)
    assert data["leak_probe"]["shop"] is None
    assert result.auc()["plain"]["shop"] is None
    json.dumps(data, allow_nan=False)


def test_a_scenario_without_test_rows_is_null_and_spoils_nothing(table, store, tmp_path):
    split = split_table(table, "scenario")
    feed = split.test[table.scenario_index[split.test] == 0]
    split = replace(split, test=feed)
    result = quick(table, store, arms=["enhanced"], split=split, out=tmp_path / "run")
    for scores in result.scores.values():
        assert (scores["shop"].auc, scores["shop"].log_loss) == (None, None)
        assert scores["mean"].log_loss == pytest.approx(scores["feed"].log_loss)
    json.dumps(result.model_dump(mode="json"), allow_nan=False)
    assert Run.load(tmp_path / "run").comparison == result


def test_the_same_call_gives_the_same_result(table, store):
    one, two = (quick(table, store, seeds=2) for _ in range(2))
    assert one.model_copy(update={"seconds": {}}) == two.model_copy(update={"seconds": {}})


def test_a_window_divides_a_log_the_way_it_was_made(table):
    for kind in ("scenario", "global", "user"):
        for protocol in ("window", "paper"):
            split = split_table(table, kind, protocol)
            again = split_as(table, split.window)
            assert again.window == split.window
            np.testing.assert_array_equal(again.test, split.test)
    split = split_table(table, "scenario", cutoff=123)
    assert split_as(table, split.window).window == split.window
