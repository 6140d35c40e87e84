"""The command line on tiny logs: extract, show, compare, demo; what is printed where."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from running import ARMS, COMMAND, FREQUENCY, KEYS, QUICK, run, the_object

from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.run import Run

# extract → show → compare


def test_extract_show_compare(log, tmp_path):
    out = tmp_path / "store"
    words = ("--data", log, "--model", "builtin", "--max-new-tokens", 2, "--history", 3, "--out", out)
    extracted = the_object(run("extract", *words, "--json"))
    assert Path(extracted["store"]).is_absolute()
    assert extracted["rows"] == {"user": {"ok": 20}, "scenario": {"ok": 2}}
    assert extracted["dim"] == {"user": 128, "scenario": 128}
    store = KnowledgeStore.load(extracted["store"])
    assert store.fingerprint == extracted["fingerprint"]

    shown = run("show", out, "--user", 107).stdout
    record = store.record("user", 107)
    assert record.prompt in shown
    assert "status: ok" in shown
    assert f"shown: {record.facts['shown']}" in shown
    data = the_object(run("show", out, "--user", 107, "--json"))
    assert (data["id"], data["prompt"], data["text"]) == (107, record.prompt, record.text)
    np.testing.assert_array_equal(np.float32(data["vector"]), record.vector)
    assert "feed" in run("show", out, "--scenario", "feed").stdout
    overview = the_object(run("show", out, "--json"))
    assert overview["identity"]["llm"]["model"] == "builtin"
    assert overview["identity"]["history"] == 3
    assert overview["window"]["protocol"] == "window"
    assert "20 rows (20 ok)" in run("show", out).stdout

    compared = the_object(
        run("compare", "--data", log, "--store", out, "--backbone", "ple", *QUICK, "--json")
    )
    assert set(compared) >= KEYS
    assert compared["scenarios"] == ["feed", "shop"]
    assert set(compared["auc"]) == ARMS
    assert all(set(by) == {"feed", "shop"} for by in compared["auc"].values())
    assert all(0 <= value <= 1 for by in compared["auc"].values() for value in by.values())
    assert compared["seeds"] == 1
    assert set(compared["leak_probe"]) == {"feed", "shop"}
    assert compared["store"] == str(out.resolve())
    assert compared["settings"]["backbone"] == "ple"


def test_stdout_of_a_process_is_one_object(log, store):
    """With real streams: libraries that write past Python would be seen."""
    words = [COMMAND, "compare", "--data", log, "--store", store, "--arms", "enhanced", *QUICK, "--json"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert set(json.loads(done.stdout)) >= KEYS
    assert "split:" in done.stderr


def test_a_comparison_as_a_table(log, store, tmp_path):
    out = tmp_path / "a run"
    words = (
        "--data",
        log,
        "--store",
        store,
        "--arms",
        "enhanced,shuffled",
        *QUICK,
        "--seeds",
        2,
        "--out",
        out,
    )
    result = run("compare", *words)
    lines = result.stdout.splitlines()
    assert lines[0].split()[-1] == "lr"
    assert "feed" in lines[0]
    assert "shop" in lines[0]
    rows = {line.split("  ")[0]: line for line in result.stdout.partition("\n\n")[0].splitlines()}
    saved = Run.load(out).comparison
    for arm in ("plain", "enhanced", "shuffled"):
        assert f"{saved.scores[arm]['feed'].auc:.4f}" in rows[arm]
    assert f"{saved.gaps['enhanced']['mean'].mean:+.4f}" in rows["enhanced"]
    assert f"{saved.leak_probe['shop']:.4f}" in rows["leak probe"]
    assert "2 seeds, backbone shared_bottom" in result.stdout
    (header,) = [line for line in lines if "enhanced minus" in line]
    assert header.endswith("p  ± users")
    assert "seed 0" in header
    assert "seed 1" in header
    assert lines[-3:] == [
        "Next:",
        f"  msr-enhance report '{out}' --out report.html",
        f"  msr-enhance explain '{out}'",
    ]
    assert "split" not in result.stdout.partition("\n\n")[0], "words are on stderr"
    assert "Rows:" in result.stderr


def test_what_an_extraction_says(log, tmp_path):
    result = run("extract", "--data", log, "--out", tmp_path / "s", "--max-new-tokens", 1, "--history", 2)
    assert "untrained" in result.stderr, "the built-in model is said plainly to be untrained"
    assert "400 rows, 20 users" in result.stderr
    assert re.search(r"split: .+ Rows: \d+ history", result.stderr)
    assert "scenario: 2 ok" in result.stdout
    assert "user: 20 ok" in result.stdout


def test_an_extraction_again_asks_nothing_and_ends_the_same(log, store):
    before = KnowledgeStore.load(store).fingerprint
    again = the_object(run("extract", "--data", log, *FREQUENCY, "--out", store, "--json"))
    assert again["fingerprint"] == before


# demo


def test_a_demo_does_not_write_into_a_full_folder(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    assert "not an empty folder; write --out" in run("demo", "--out", tmp_path, "--json", code=6).stderr


def test_a_demo_does_not_write_into_a_file(log):
    assert "write --out" in run("demo", "--out", log, "--json", code=6).stderr


@pytest.mark.slow
def test_the_demo(tmp_path):
    """From an empty folder, without a network; the times are printed for people, not asserted."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    words = [COMMAND, "demo", "--json", "--seeds", "3", "--out", "run"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    data = json.loads(done.stdout)
    assert set(data) >= KEYS
    assert data["scenarios"] == ["news", "shop", "video"]
    assert set(data["auc"]) == ARMS
    assert all(set(by) == set(data["scenarios"]) for by in data["auc"].values())
    assert data["seeds"] == 3
    assert set(data["leak_probe"]) == set(data["scenarios"])
    assert all(abs(value - 0.5) < 0.06 for value in data["leak_probe"].values())
    for stage in ("world", "extract", "compare"):
        assert re.search(rf"^{stage}: \d+\.\d s$", done.stderr, re.M)
        assert data["stages"][stage] >= 0
    assert "untrained" in done.stderr
    assert Path(data["store"]).is_absolute()
    assert data["run"] == str(tmp_path / "run")
    assert data["store"] == str(tmp_path / "run" / "store")
    held = Run.load(tmp_path / "run")
    assert held.store == "store"
    assert held.comparison.auc() == data["auc"]
    assert [row.scenario for row in held.explanations] == ["news"] * 4 + ["shop"] * 4 + ["video"] * 4
    assert all(part.known for row in held.explanations for part in row.parts)
    for control in ("plain", "random", "shuffled"):
        pairs = zip(data["by_seed"]["enhanced"], data["by_seed"][control], strict=True)
        assert all(ours > theirs for ours, theirs in pairs), control
        assert data["against"][control]["p"] < 0.05
    store = KnowledgeStore.load(data["store"])
    assert len(store.ids("user")) == 4_500
    assert store.ids("scenario") == data["scenarios"]
    assert store.dim("user") == store.dim("scenario") == 128
    assert store.provenance.identity["llm"]["model"] == "builtin"
    assert data["warnings"] == []
    gaps = {arm: by["mean"] for arm, by in data["gaps"].items()}
    assert gaps["enhanced"]["mean"] > 0.05
    assert gaps["enhanced"]["mean"] > 3 * gaps["enhanced"]["error_users"]
    for control in ("random", "shuffled", "learned"):
        assert gaps["enhanced"]["mean"] - gaps[control]["mean"] > 0.05
    assert max(max(by.values()) for by in data["auc"].values()) < data["oracle"]
