"""The run folder: what is kept, that it is read back as written, and what is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import RATES, quick

from msr_enhance.errors import DataError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train import run as run_file
from msr_enhance.train.explained import chosen_rows, item_text
from msr_enhance.train.run import NAME, Run, new_run, written_path


@pytest.fixture
def kept(table, store, tmp_path):
    """A run of two seeds and three arms, and the result it came with."""
    out = tmp_path / "run"
    options = {"arms": ["enhanced", "shuffled"], "seeds": 2, "learning_rates": RATES}
    return out, quick(table, store, out=out, **options)


def test_a_run_holds_what_was_measured_and_watched(kept, table, store):
    out, result = kept
    held = Run.load(out)
    assert held.comparison == result
    assert (held.store, held.store_path(out)) == ("../store", store.path.resolve())
    assert held.store_fingerprint == store.fingerprint
    assert set(held.curves.validation_auc) == {"plain", "enhanced", "shuffled"}
    assert set(held.curves.alpha) == {"scenario"}
    for curves in (*held.curves.validation_auc.values(), *held.curves.alpha.values()):
        assert len(curves) == 2, "one a seed"
        assert all(len(curve) == 1 + 2 for curve in curves), "the start, then two epochs"
        assert curves[0] != curves[1], "each seed's own"
    for one in held.curves.alpha["scenario"]:
        assert one[0] == 0.5
        assert len(set(one)) == 3, "alpha was trained"
    best = max(held.curves.validation_auc["enhanced"][0])
    at = held.curves.validation_auc["enhanced"][0].index(best)
    assert result.alphas["scenario"] == held.curves.alpha["scenario"][0][at], "the best epoch's is kept"
    data = json.loads((out / NAME).read_bytes())
    assert (data["format"], data["version"]) == ("msr-enhance-run", 1)
    assert list(data) == [
        "format", "version", "store", "store_fingerprint", "comparison", "curves", "explanations",
    ]  # fmt: skip
    assert set(data["explanations"][0]) == {
        "user", "scenario", "item", "label", "logit", "probability", "parts",
    }  # fmt: skip
    assert set(data["explanations"][0]["parts"][0]) == {"name", "logit", "key", "known", "text", "alpha"}


def test_explained_rows_are_rows_of_the_test_part(kept, table, store):
    out, _ = kept
    held = Run.load(out)
    assert len(held.explanations) == 12
    log = table.frame.to_dicts()
    assert [row.scenario for row in held.explanations] == ["feed"] * 6 + ["shop"] * 6
    for row in held.explanations:
        assert any(
            (one["user_id"], one["scenario"], one["label"], f"{one['title']} | {one['category']}")
            == (row.user, row.scenario, row.label, row.item)
            for one in log
        )
        assert sum(part.logit for part in row.parts) == pytest.approx(row.logit, abs=1e-5)
        assert row.probability == pytest.approx(1 / (1 + np.exp(-row.logit)))
        by_name = {part.name: part for part in row.parts}
        assert list(by_name) == ["backbone", "user", "scenario"]
        assert by_name["user"].key == row.user
        assert by_name["user"].text == store.text("user", row.user)
        assert (by_name["scenario"].key, by_name["scenario"].text) == (
            row.scenario,
            store.text("scenario", row.scenario),
        )
        assert by_name["scenario"].alpha == held.comparison.alphas["scenario"]


def test_without_the_enhanced_arm_nothing_is_explained(table, store, tmp_path):
    quick(table, store, arms=["shuffled"], out=tmp_path / "run")
    held = Run.load(tmp_path / "run")
    assert held.explanations == []
    assert held.comparison.against == {}
    assert set(held.curves.validation_auc) == {"plain", "shuffled"}
    assert "enhanced" not in held.curves.alpha


def test_rows_are_drawn_by_a_rule_that_sees_nothing_but_scenarios():
    draw = np.random.default_rng(1)
    scenario = draw.integers(3, size=500)
    rows = chosen_rows(scenario)
    assert rows == chosen_rows(scenario.copy())
    assert scenario[rows].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert rows == sorted(rows, key=lambda row: (scenario[row], row))
    assert len(set(rows)) == 12
    # Every row may be drawn: over many seeds the places are spread evenly over the log.
    places = np.concatenate([chosen_rows(scenario, seed=seed) for seed in range(200)])
    assert abs(places.mean() - 249.5) < 4 * 144.5 / len(places) ** 0.5
    assert chosen_rows(np.array([1, 0, 1])) == [1, 0, 2], "fewer rows than asked for: all of them"
    rare = np.array([0] * 50 + [1])
    assert len(chosen_rows(rare)) == 12
    assert 50 in chosen_rows(rare)
    many = np.arange(40)
    assert len(chosen_rows(many)) == 12
    assert chosen_rows(many) != list(range(12)), "not the first scenarios"


def test_an_item_is_shown_by_text_then_category_then_id(titled_log):
    from msr_enhance.data.table import InteractionTable

    log = titled_log(users=3, each=4)
    whole = InteractionTable.from_arrays(log)
    assert item_text(whole, 3) == f"{log['title'][3]} | {log['category'][3]}"
    bare = InteractionTable.from_arrays({k: v for k, v in log.items() if k not in ("title", "category")})
    assert item_text(bare, 3) == f"item {log['item_id'][3]}"


def test_loading_needs_neither_torch_nor_numpy(kept):
    out, _ = kept
    probe = (
        "import sys; from msr_enhance.train.run import Run; Run.load(sys.argv[1]);"
        "print({'torch', 'numpy', 'polars', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Where the store is


def test_a_store_inside_or_beside_is_relative_else_absolute(tmp_path):
    folder = tmp_path / "runs" / "one"
    assert written_path(folder / "store", folder) == "store"
    assert written_path(folder.parent / "store", folder) == "../store"
    assert written_path(tmp_path / "store", folder) == str(tmp_path.resolve() / "store")


def test_a_run_names_its_store_alike_in_every_locale(kept, tmp_path):
    there = (tmp_path / "käse").resolve()
    assert written_path(there, tmp_path / "elsewhere" / "run") == str(there)
    changed(kept[0], lambda data: data.update(store="../käse"))
    probe = (
        "import os, sys\nfrom pathlib import Path\nfrom msr_enhance.train.run import Run, written_path\n"
        "folder = Path(sys.argv[1])\nplace = Run.load(folder).store_path(folder)\n"
        "sys.stdout.buffer.write(os.fsencode(place) + b' ' + written_path(place, folder).encode())"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", probe, str(kept[0])], capture_output=True, check=True, env=os.environ | plain
    )
    assert done.stdout.decode() == f"{there} ../käse"


def test_a_run_may_be_moved_with_its_store(kept, tmp_path):
    out, _ = kept
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").rename(tmp_path / "elsewhere" / "store")
    moved = out.rename(tmp_path / "elsewhere" / "run")
    assert Run.load(moved).store_path(moved) == (tmp_path / "elsewhere" / "store").resolve()


# What is refused


def changed(out: Path, change) -> Path:
    data = json.loads((out / NAME).read_bytes())
    change(data)
    (out / NAME).write_text(json.dumps(data))
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(extra=1), r"extra: Extra inputs"),
        (lambda d: d.update(store=7), r"store: Input should be a valid string"),
        (lambda d: d.pop("curves"), r"curves: Field required"),
        (lambda d: d.update(version=2), r"version 2; this library reads version 1"),
        (lambda d: d.update(format="zip"), r"format 'zip'; allowed: 'msr-enhance-run'"),
        (lambda d: d["explanations"][0].update(label=2), r"explanations.0.label"),
        (lambda d: d["explanations"][0].update(label=True), r"explanations.0.label"),
        (lambda d: d["explanations"][0].update(user=1.5), r"explanations.0.user"),
        (lambda d: d["explanations"][0].update(probability=1.5), r"explanations.0.probability"),
        (lambda d: d["explanations"][0].update(logit=9.0), r"explanations.0: .*the parts sum to"),
        (lambda d: d["explanations"][0].update(probability=0.999), r"explanations.0: .*the logit's sigmoid"),
        (lambda d: d["comparison"].update(coverage=float("nan")), r"comparison: NaN or an infinity"),
        (lambda d: d["comparison"]["window"].update(rows=float("-inf")), r"comparison: NaN or an infinity"),
        (lambda d: d["comparison"]["seconds"].update(plain=float("inf")), r"comparison: NaN or an infinity"),
        (lambda d: d["explanations"][0]["parts"][1].update(name="item"), r"explanations.0.parts.1.name"),
        (lambda d: d["explanations"][0]["parts"][1].update(known=1), r"parts.1.known"),
        (lambda d: d["curves"]["alpha"].update(user="high"), r"curves.alpha.user"),
        (lambda d: d["comparison"].update(seeds="2"), r"comparison.seeds"),
    ],
)
def test_a_changed_run_is_refused_by_name(kept, change, message):
    with pytest.raises(DataError, match=message):
        Run.load(changed(kept[0], change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "damaged, it holds no JSON"),
        (b"[" * 100_000, "damaged, it holds no JSON"),
        (b"\xff\xfe", "damaged, it holds no JSON"),
        (b"[]", "format 'None'"),
        (b'{"format": "msr-enhance-run", "version": 1}', "store: Field required"),
    ],
)
def test_a_damaged_run_is_refused(tmp_path, text, message):
    (tmp_path / NAME).write_bytes(text)
    with pytest.raises(DataError, match=message):
        Run.load(tmp_path)


def test_a_number_that_is_none_is_refused(kept):
    text = (kept[0] / NAME).read_text().replace('"validation_auc": {', '"validation_auc": {"x": [[NaN]],')
    (kept[0] / NAME).write_text(text)
    with pytest.raises(DataError, match="finite number"):
        Run.load(kept[0])


def test_a_run_larger_than_any_is_not_read(kept, monkeypatch):
    monkeypatch.setattr(run_file, "LIMIT", 100)
    with pytest.raises(DataError, match="more than 100 bytes"):
        Run.load(kept[0])


def test_no_run_names_what_makes_one(tmp_path):
    for folder in (tmp_path, tmp_path / "gone", tmp_path / "pipe" / NAME):
        with pytest.raises(DataError, match=r"is no run folder.*msr-enhance compare --out RUN"):
            Run.load(folder)


def test_a_place_for_a_run(tmp_path):
    assert new_run(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "result.json", tmp_path / "RESULT.JSON", tmp_path / "file"):
        with pytest.raises(
            DataError, match=r"a file; it names a folder now, and the result is in its run.json"
        ):
            new_run(wrong)
    with pytest.raises(DataError, match="cannot be made"):
        new_run(tmp_path / "file" / "below")
    with pytest.raises(DataError, match="cannot be made or written to"):
        new_run(Path("/proc/self"))
    with pytest.raises(DataError, match="cannot be made or written to"):
        new_run(tmp_path / ("a" * 300))
    (tmp_path / "a" / NAME).touch()
    with pytest.raises(DataError, match="holds a run already"):
        new_run(tmp_path / "a")
    assert (tmp_path / "a" / NAME).read_bytes() == b""


def test_a_wrong_place_is_known_before_the_training(table, store, tmp_path, monkeypatch):
    monkeypatch.setattr("msr_enhance.train.study.fit", None)
    with pytest.raises(DataError, match="names a folder now"):
        quick(table, store, out=tmp_path / "result.json")
    odd = store.path.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"caf.*no UTF-8. Rename the folder"):
        quick(table, KnowledgeStore.load(odd), out=tmp_path / "run")


def test_a_write_that_fails_leaves_the_older_run(kept, monkeypatch):
    out, _ = kept
    before = (out / NAME).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        Run.load(out).save(out)
    assert [path.name for path in out.iterdir()] == [NAME]
    assert (out / NAME).read_bytes() == before
