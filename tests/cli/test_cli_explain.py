"""What `compare` and `demo` keep and tell, and the `explain` command that shows it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from running import QUICK, run, the_object

from msr_enhance.cli import demo
from msr_enhance.cli.compare import print_seeds
from msr_enhance.demo.world import generate
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.loop import Settings
from msr_enhance.train.run import Run


@pytest.fixture
def kept(log, store, tmp_path):
    """A run folder beside its store."""
    words = ("--data", log, "--store", store, "--arms", "enhanced,random", *QUICK)
    data = the_object(run("compare", *words, "--out", tmp_path / "run", "--json"))
    assert data["run"] == str(tmp_path / "run")
    return tmp_path / "run"


def test_explanations_are_shown_with_their_parts(kept):
    held, shown = Run.load(kept), run("explain", kept).stdout
    assert "12 of the 12 test rows that were drawn at random" in shown
    tables = shown.split("\n\n")[1:-1]
    assert len(tables) == len(held.explanations)
    for text, row in zip(tables, held.explanations, strict=True):
        lines = text.splitlines()
        happened = "liked" if row.label else "not liked"
        assert lines[0] == f"user {row.user} in {row.scenario}: {row.item}   ({happened})"
        for line, part in zip(lines[2:5], row.parts, strict=True):
            assert line.startswith(part.name)
            assert f"{part.logit:+.4f}" in line
        assert f"{row.logit:+.4f}" in lines[5]
        assert f"probability {row.probability:.4f}" in lines[5]
    assert shown.endswith(f"store: {kept.parent / 'store'}\n")


def test_a_name_stays_in_its_line(kept):
    held = Run.load(kept)
    row = held.explanations[0].model_copy(update={"user": "x\n\nuser 1 in feed: a lie", "item": "a\nb"})
    held.model_copy(update={"explanations": [row]}).save(kept)
    assert f"\nuser x user 1 in feed: a lie in {row.scenario}: a b   (" in run("explain", kept).stdout


def test_explanations_as_json(kept):
    data = the_object(run("explain", kept, "--json"))
    assert data["run"] == str(kept)
    assert KnowledgeStore.load(data["store"]).fingerprint == Run.load(kept).store_fingerprint
    assert data["explanations"] == json.loads((kept / "run.json").read_bytes())["explanations"]


def test_one_users_rows(kept):
    rows = Run.load(kept).explanations
    user = rows[0].user
    data = the_object(run("explain", kept, "--user", user, "--json"))
    assert data["explanations"] == [row.model_dump(mode="json") for row in rows if row.user == user]
    said = run("explain", kept, "--user", "nobody", code=13)
    assert said.stdout == ""
    assert "user 'nobody' is not known; allowed: " in said.stderr
    assert all(f"'{row.user}'" in said.stderr for row in rows)


def test_what_is_no_run(kept, log, store, tmp_path):
    for folder in (store, tmp_path / "gone", kept / "run.json"):
        assert "is no run folder" in run("explain", folder, code=3).stderr
    words = ("--data", log, "--store", store, "--arms", "random", *QUICK, "--out", tmp_path / "bare")
    run("compare", *words)
    assert "explains no row: the enhanced arm was not run" in run("explain", tmp_path / "bare", code=3).stderr
    (kept / "run.json").write_text("{")
    assert "damaged" in run("explain", kept, code=3).stderr


def test_a_run_inside_the_stores_folder_and_one_made_twice(log, store):
    words = ("compare", "--data", log, "--store", store, "--arms", "enhanced", *QUICK, "--out")
    run(*words, store.parent / "both" / "run")
    assert Run.load(store.parent / "both" / "run").store == str(store)
    assert "holds a run already" in run(*words, store.parent / "both" / "run", code=3).stderr


# Seed by seed


def test_a_seed_that_fails_is_named(kept, capsys):
    result = Run.load(kept).comparison
    result.seeds = 2
    result.by_seed = {"enhanced": [0.7, 0.6], "plain": [0.5, 0.55], "random": [0.5, 0.6125]}
    print_seeds(result)
    said = capsys.readouterr().out
    assert "FAILED: enhanced does not beat random with seed 1 (-0.0125)." in said
    assert "FAILED: enhanced does not beat plain" not in said
    assert "enhanced beats" not in said
    result.by_seed["random"][1] = 0.5
    print_seeds(result)
    assert "enhanced beats plain, random with each of 2 seeds." in capsys.readouterr().out


def test_one_seed_is_no_test(log, store):
    shown = run("compare", "--data", log, "--store", store, "--arms", "enhanced", *QUICK).stdout
    assert "(it needs two seeds: --seeds 2)" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("plain") and line.count(" -  ") >= 2]
    assert line


# demo


@pytest.fixture
def small(monkeypatch):
    """The demo on a world of few users and epochs: the same way, in seconds."""
    monkeypatch.setattr(demo, "generate", lambda: generate(users=60))
    monkeypatch.setattr(demo, "Settings", lambda **_: Settings(epochs=1, batch_size=64))
    monkeypatch.setattr(demo, "LEARNING_RATES", (0.01,))


def test_the_demo_tells_its_story_in_order(small, tmp_path):
    out = tmp_path / "my run"
    shown = run("demo", "--out", out, "--seeds", 2).stdout
    store = KnowledgeStore.load(out / "store")
    record = store.record("user", store.known("user")[0])
    norm = np.linalg.norm(record.vector)
    steps = [
        "1. The world:",
        "2. What the model read",
        record.prompt,
        "3. What it answered",
        record.text,
        f"4. What is kept of it: a vector {list(record.vector.shape)} of norm {norm:.3f}",
        "5. The comparison",
        "test AUC, mean of seeds",
        "6. Is it the knowledge?",
        "mean AUC, enhanced minus",
        "store: ",
    ]
    places = [shown.index(step) for step in steps]
    assert places == sorted(places)
    assert shown.splitlines()[-3:] == [
        "Next:",
        f"  msr-enhance report '{out}' --out report.html",
        f"  msr-enhance explain '{out}'",
    ]
    held = Run.load(out)
    assert held.store == "store"
    assert held.store_fingerprint == store.fingerprint
    result = held.comparison
    for arm in ("plain", "random", "shuffled"):
        for seed in range(2):
            failed = f"enhanced does not beat {arm} with seed {seed} "
            assert (failed in shown) == (result.by_seed["enhanced"][seed] <= result.by_seed[arm][seed])
    assert "12 of the 12" in run("explain", out).stdout


def test_a_demo_without_a_folder_makes_one(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        data = the_object(run("demo", "--seeds", 1, "--json"))
        assert data["run"] == str(tmp_path / "runs" / f"demo-{number}")
        assert data["store"] == str(tmp_path / "runs" / f"demo-{number}" / "store")
        assert {path.name for path in (tmp_path / "runs" / f"demo-{number}").iterdir()} == {
            "run.json",
            "store",
        }


def test_a_demo_does_not_write_to_the_name_of_a_file(tmp_path):
    said = run("demo", "--out", tmp_path / "result.json", code=3).stderr
    assert "names a folder now" in said
    assert not list(tmp_path.iterdir())
