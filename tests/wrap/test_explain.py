"""What `explain()` promises of any model: parts that sum to the score, and a model that is as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from in_house import PLACEMENTS, SCENARIOS, USERS, InHouse, batch, knowledge, shake, wrap
from saving import USER_IDS, make_store
from torch import nn
from zoo import BOTTOM, CASES, NAMED, PARALLEL, shaken
from zoo_case import Case

from msr_enhance import explain
from msr_enhance.errors import EnhanceError, StoreError, UnknownIdError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.output import Output

ROWS = batch()


def parts_of(model: nn.Module, *args: Any, **more: Any) -> dict[str, Any]:
    return {part.name: part for part in explain(model, *args, **more).parts}


def ready(case: Case) -> nn.Module:
    backbone = case.backbone().eval()
    args, kwargs = case.batch()
    backbone(*args, **kwargs)
    return backbone


def logit_of(model: nn.Module, case_output: Any, result: Any, row: int, task: int) -> float:
    """One score of a result as a logit, in double precision."""
    output = Output.parse(case_output)
    scores = output.scores(result, 12)
    kinds = [kind for (kind, _), score in zip(output.parts, scores, strict=True) for _ in score[0]]
    value = torch.cat(scores, 1)[row, task].detach().double()
    return float(torch.logit(value) if kinds[task] == "probability" else value)


@pytest.mark.parametrize("placement", [None, PARALLEL, BOTTOM], ids=["default", "parallel", "bottom"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parts_sum_to_the_score(case: Case, placement: Any) -> None:
    """Over the zoo: any batch format, container, number of tasks, kind of tap."""
    model = shaken(case.enhanced(ready(case), placement=placement).eval())
    args, kwargs = case.batch()
    with torch.no_grad():
        result = model(*args, **kwargs)
        with model.disabled():
            plain = model(*args, **kwargs)
    for task in range(model.recipe.tasks):
        for row in (0, 7):
            found = explain(model, *args, row=row, task=task, **kwargs)
            total = logit_of(model, case.output, result, row, task)
            assert found.logit == pytest.approx(total, abs=1e-5)
            assert sum(part.logit for part in found.parts) == pytest.approx(total, abs=1e-5)
            assert found.probability == pytest.approx(float(torch.sigmoid(torch.tensor(total))), abs=1e-6)
            alone = logit_of(model, case.output, plain, row, task)
            assert found.parts[0].logit == pytest.approx(alone, abs=1e-5)
            assert {part.name for part in found.parts} == {"backbone", "user", "scenario"}


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
@pytest.mark.parametrize("probability", [False, True])
def test_a_fresh_model_says_nothing_of_its_own(placement: dict[str, Any], probability: bool) -> None:
    output = "probability" if probability else "logit"
    model = wrap(InHouse(probability=probability), placement=placement, output=output)
    for row in range(12):
        found = explain(model, ROWS, row=row)
        assert all(part.logit == 0 for part in found.parts[1:])
        assert found.logit == found.parts[0].logit


@pytest.mark.parametrize("fidelity", ["safe", "paper"])
@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_a_row_alone_is_explained_like_the_row_in_its_batch(placement: dict[str, Any], fidelity: Any) -> None:
    model = shake(wrap(InHouse().eval(), placement=placement, fidelity=fidelity))
    for row in (0, 5):
        whole = explain(model, ROWS, row=row)
        alone = explain(model, {name: values[row : row + 1] for name, values in ROWS.items()}, row=0)
        for one, other in zip(whole.parts, alone.parts, strict=True):
            assert one.logit == pytest.approx(other.logit, abs=1e-5)
            assert (one.name, one.key, one.known, one.alpha) == (
                other.name,
                other.key,
                other.known,
                other.alpha,
            )


def test_several_tasks_have_parts_of_their_own() -> None:
    case = NAMED["a dict of tasks"]
    model = shaken(case.enhanced(ready(case), placement=PARALLEL).eval())
    args, kwargs = case.batch()
    click, time = (explain(model, *args, row=3, task=task, **kwargs) for task in (0, 1))
    assert click == explain(model, *args, row=3, task="click", **kwargs)
    assert time == explain(model, *args, row=3, task="logit[time]", **kwargs)
    assert (click.task, time.task) == ("probability[click]", "logit[time]")
    assert click.logit != time.logit
    for task, found in enumerate((click, time)):
        for part in found.parts[1:]:
            assert part.alpha == model.alphas()[part.name][task]
    for wrong, message in (
        (None, r"2 scores a row \(probability\[click\], logit\[time\]\); write task=0"),
        ("clck", r"task 'clck' is not known; allowed: .*'probability\[click\]'"),
        (2, r"task '2' is not known; allowed: .*'0', '1'"),
        (True, r"task 'True' is not known"),
    ):
        with pytest.raises(EnhanceError, match=message):
            explain(model, *args, row=3, task=wrong, **kwargs)


def test_columns_of_one_output_are_tasks() -> None:
    case = NAMED["several tasks"]
    model = shaken(case.enhanced(ready(case)).eval())
    args, kwargs = case.batch()
    assert explain(model, *args, row=0, task=2, **kwargs).task == "logit[:,2]"
    with pytest.raises(EnhanceError, match=r"3 scores a row \(logit\[:,0\]"):
        explain(model, *args, row=0, **kwargs)


# Keys, knowledge and answers


@pytest.fixture
def store(tmp_path: Path) -> KnowledgeStore:
    return make_store(tmp_path / "store")


def named(store: KnowledgeStore, **options: Any) -> nn.Module:
    options = {"vocabulary": {"user": USER_IDS, "scenario": SCENARIOS}} | options
    return shake(wrap(InHouse().eval(), knowledge=store, **options))


def test_positions_are_read_in_the_store_by_their_id(store: KnowledgeStore) -> None:
    """The vocabulary is turned round, so that a position is not the place of its id in the store."""
    turned = {"user": USER_IDS[::-1], "scenario": SCENARIOS[::-1]}
    found = parts_of(named(store, vocabulary=turned), ROWS, row=4, store=store)
    user = USER_IDS[::-1][int(ROWS["user"][4])]
    place = SCENARIOS[::-1][int(ROWS["scenario"][4])]
    assert (found["user"].key, found["user"].text) == (user, store.text("user", user))
    assert (found["scenario"].key, found["scenario"].text) == (place, store.text("scenario", place))
    assert found["backbone"].key is None
    assert found["backbone"].text is None
    assert store.text("user", user)
    assert parts_of(named(store), ROWS, row=4)["user"].text is None, "no store, no text"


def test_ids_of_the_batch_are_the_keys(store: KnowledgeStore) -> None:
    names = [USER_IDS[int(at)] for at in ROWS["user"][:11]] + ["stranger"]
    keys = {"user": lambda batch: names, "scenario": "scenario"}
    model = named(store, vocabulary={"scenario": SCENARIOS}, keys=keys)
    for row, known in ((3, True), (11, False)):
        part = parts_of(model, ROWS, row=row, store=store)["user"]
        assert (part.key, part.known) == (names[row], known)
        assert part.text == (store.text("user", names[row]) if known else None)


def test_who_is_unknown_is_said_so(store: KnowledgeStore) -> None:
    strangers = [*USER_IDS[:-1], "stranger"]
    keys = {"user": "who", "scenario": "scenario"}
    model = named(store, vocabulary={"user": strangers, "scenario": SCENARIOS}, keys=keys)
    nobody = parts_of(model, ROWS | {"who": torch.full((12,), -1)}, row=2, store=store)["user"]
    assert (nobody.key, nobody.known, nobody.text) == (None, False, None)
    last = ROWS | {"who": torch.full((12,), USERS - 1)}
    found = parts_of(model, last, row=0, store=store)["user"]
    assert (found.key, found.known, found.text) == ("stranger", False, None)
    assert "stranger (unknown)" in str(explain(model, last, row=0))
    assert parts_of(model, last, row=0)["backbone"].known


def test_vectors_that_come_with_the_batch_have_no_key(store: KnowledgeStore) -> None:
    state = torch.from_numpy(knowledge()["user"][1])[ROWS["user"]].clone()
    state[3] = 0
    model = shake(
        wrap(InHouse().eval(), keys={"scenario": "scenario"}, vectors={"user": lambda batch: batch["state"]})
    )
    rows = ROWS | {"state": state}
    for row in (2, 3):
        part = parts_of(model, rows, row=row, store=store)["user"]
        assert (part.key, part.known, part.text) == (None, row == 2, None)


def test_an_unknown_scenario_is_an_error_by_name(store: KnowledgeStore) -> None:
    names = ["feed"] * 11 + ["cinema"]
    keys = {"user": "user", "scenario": lambda batch: names}
    model = named(store, vocabulary={"user": USER_IDS}, keys=keys)
    with pytest.raises(UnknownIdError, match="'cinema'"):
        explain(model, ROWS, row=0)


def test_another_stores_answers_are_refused(store: KnowledgeStore, tmp_path: Path) -> None:
    model = named(store)
    newer = make_store(tmp_path / "store", scenarios=4)
    assert parts_of(model, ROWS, row=0, store=newer)["scenario"].text
    other = make_store(tmp_path / "other", llm={"model": "another"})
    with pytest.raises(EnhanceError, match=r"is not the one that this model's knowledge is from.*another"):
        explain(model, ROWS, row=0, store=other)
    with pytest.raises(EnhanceError, match=r"store is str; allowed: a KnowledgeStore"):
        explain(model, ROWS, row=0, store="store")
    store.save(tmp_path / "bare", texts=False)
    with pytest.raises(StoreError, match="without texts"):
        explain(model, ROWS, row=0, store=KnowledgeStore.load(tmp_path / "bare"))


# What is printed


def test_a_printed_explanation(store: KnowledgeStore) -> None:
    found = explain(named(store), ROWS, row=4, store=store)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["backbone", "user", "scenario", "score"]
    assert lines[0].split() == ["part", "key", "alpha", "logit"]
    assert len({line.index("|") for line in lines[1:5]}) == 1, "bars stand under each other"
    sizes = {}
    for line, part in zip(lines[1:4], found.parts, strict=True):
        assert f"{part.logit:+.4f}" in line
        bar = line.rpartition("  ")[2]
        sizes[abs(part.logit)] = bar.count("+") + bar.count("-")
        assert ("+" in bar, "-" in bar) in ((part.logit > 0, part.logit < 0), (False, False))
    assert [sizes[size] for size in sorted(sizes)] == sorted(sizes.values()), "longer is larger"
    assert lines[4].endswith(f"probability {found.probability:.4f}")
    assert lines[5] == f"user: {found.parts[1].text}"


def test_a_text_with_terminal_codes_is_shown_in_one_harmless_line(tmp_path: Path) -> None:
    model = shake(wrap(InHouse().eval(), meta=MetaConfig(rank=2)))
    found = explain(model, ROWS, row=0)
    part = copy.replace if hasattr(copy, "replace") else __import__("dataclasses").replace
    evil = part(found.parts[1], text="\x1b[31mred\nscore  +9.0\u202e", key="a\x1b\nb")
    shown = str(part(found, parts=(found.parts[0], evil, found.parts[2])))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(shown.splitlines()) == 6
