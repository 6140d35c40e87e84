"""Bad input: each a declared error that says what was seen, what is allowed and what to write."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from running import FREQUENCY, HARBOUR, QUICK, changed, run, the_object


def bad_log(log, case):
    frame = pl.read_csv(log)
    rows = len(frame)
    late = frame["timestamp"] >= 200
    changes = {
        "missing column": {"label": None},
        "label outside 0 and 1": {"label": [*frame["label"][:7], 5, *frame["label"][8:]]},
        "text label": {"label": ["yes"] * rows},
        "missing user": {"user_id": [*frame["user_id"][:3], None, *frame["user_id"][4:]]},
        "NaN feature": {"price": [1.5] * 9 + [float("nan")] + [2.5] * (rows - 10)},
        "NaN time": {"timestamp": [1.5] * 4 + [float("nan")] + [2.5] * (rows - 5)},
        "no time or order": {"timestamp": None},
        "empty history": {"timestamp": [5] * rows},
        "one-class test part": {"label": np.where(late, 1, frame["label"]).tolist()},
        "a scenario of one row": {"scenario": ["rare", *frame["scenario"][1:]]},
        "broken date": {"timestamp": ["yesterday"] * rows},
    }
    return changed(log, **changes[case])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing column", ["no label column 'label'", "'user_id', 'item_id'", "Write --column label=NAME"]),
        ("label outside 0 and 1", ["row 8", "'label'", "5", "allowed: 0 and 1", "(rating > 3)"]),
        ("text label", ["'label'", "a label is 0, 1", "Turn it into numbers"]),
        ("missing user", ["row 4", "'user_id'", "is missing", "Fill it or drop the row"]),
        ("NaN feature", ["row 10", "'price'", "nan", "is not a number", "Fill it"]),
        ("NaN time", ["row 5", "'timestamp'", "nan"]),
        ("no time or order", ["without time or order", "--column time=NAME", "--column order=NAME"]),
        ("empty history", ["history is empty", "Write --cutoff", "--split user"]),
        ("one-class test part", ["one class", "labels are 1", "AUC needs both", "Write --split"]),
        ("a scenario of one row", ["scenario 'rare'", "every scenario needs all of", "more rows"]),
        ("broken date", ["'timestamp'", "'yesterday'", "numbers or dates", "ISO dates"]),
    ],
)
def test_a_bad_log_is_refused(log, tmp_path, case, words):
    for command in (
        ("extract", *FREQUENCY, "--out", tmp_path / "s"),
        ("extract", "--out", tmp_path / "s", "--json"),
    ):
        result = run(*command, "--data", bad_log(log, case), "--split", "scenario", code=3)
        assert result.stdout == ""
        said = result.stderr
        assert "error: " in said
        assert "Traceback" not in said
        for word in words:
            assert word in said
    assert not (tmp_path / "s").exists(), "nothing is begun"


def test_a_comparison_refuses_a_bad_log_too(log, store):
    other = bad_log(log, "label outside 0 and 1")
    assert "row 8" in run("compare", "--data", other, "--store", store, code=3).stderr


def test_an_unknown_scenario(log, store, tmp_path):
    said = run("show", store, "--scenario", "cinema", code=13).stderr
    assert "'cinema'" in said
    (tmp_path / "p.yaml").write_text(HARBOUR.replace("name: shop", "name: store"), "utf-8")
    said = run(
        "extract",
        "--data",
        log,
        *FREQUENCY,
        "--out",
        tmp_path / "s",
        "--platform",
        tmp_path / "p.yaml",
        code=4,
    ).stderr
    assert "'shop' is not known; allowed: " in said
    assert "'store'" in said
    assert "Add it to the platform file" in said
    places = pl.read_csv(log)["scenario"].to_list()
    other = changed(log, scenario=["cinema" if row % 3 == 0 else name for row, name in enumerate(places)])
    said = run("compare", "--data", other, "--store", store, code=7).stderr
    assert "'cinema'" in said
    assert "'feed', 'shop'" in said
    assert "Extract a store from this log" in said


def test_an_item_twice(log, tmp_path):
    items = tmp_path / "items.csv"
    items.write_text("item_id,brand\n" + "".join(f"{n},b\n" for n in range(40)) + "7,c\n", "utf-8")
    said = run("extract", "--data", log, "--items", items, *FREQUENCY, "--out", tmp_path / "s", code=3).stderr
    assert "row 41 of items.csv, column 'item_id': 7 was there before" in said
    assert "Keep one row an item" in said


def test_a_store_of_another_width(log, store):
    said = run(
        "extract", "--data", log, "--model", "builtin", "--max-new-tokens", 1, "--out", store, code=10
    ).stderr
    assert "was made another way" in said
    assert "category-frequency" in said
    assert "'builtin' now" in said
    assert "write into a new folder" in said


def test_knowledge_that_saw_the_rows(log, tmp_path):
    run("extract", "--data", log, *FREQUENCY, "--out", tmp_path / "s", "--cutoff", 260)
    words = ("--data", log, "--store", tmp_path / "s", "--cutoff", 200, "--arms", "enhanced", *QUICK)
    result = run("compare", *words, "--json", code=7)
    assert result.stdout == ""
    assert "60 train rows" in result.stderr
    assert "--train-rows-the-store-has-seen" in result.stderr
    data = the_object(run("compare", *words, "--train-rows-the-store-has-seen", "--json"))
    assert "60 train rows" in data["warnings"][0]
