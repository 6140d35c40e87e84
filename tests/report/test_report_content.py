"""What a page says: of any store, however little is in it, and what it leaves out."""

from __future__ import annotations

import json
import secrets

import pytest
from stores import PLANTED, comparison, explanation, user, write_run, write_store

from msr_enhance.errors import DataError, StoreCorruptError, StoreError
from msr_enhance.report.overview import ARMS, plain
from msr_enhance.report.write import write_report
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.arms import ARMS as REAL_ARMS


def column(data, name):
    (found,) = [each for each in data["users"]["columns"] if each["name"] == name]
    if found["kind"] == "numbers":
        return found["values"]
    return [found["labels"][code] if code >= 0 else None for code in found["codes"]]


def kind(data, key):
    (found,) = [each for each in data["outliers"] if each["key"] == key]
    return found


def test_columns_are_what_the_store_says(store, shown):
    data, _ = shown(store)
    read = KnowledgeStore.load(store)
    assert data["users"]["ids"] == [str(name) for name in read.ids("user")]
    assert column(data, "Status") == read.statuses("user")
    for at, name in enumerate(read.ids("user")):
        row = read.record("user", name)
        assert column(data, "Top category")[at] == PLANTED[name % 4]
        assert column(data, "Events shown")[at] == 4 + name % 3
        assert column(data, "Dominant scenario")[at] == "feed"
        norm = column(data, "Vector norm")[at]
        if row.status in ("ok", "truncated"):
            assert norm == pytest.approx(float((row.vector.astype(float) ** 2).sum() ** 0.5), rel=1e-4)
            assert data["users"]["x"][at] is not None
        else:
            assert norm is data["users"]["x"][at] is data["users"]["y"][at] is None
        text = data["users"]["texts"][str(at)]
        assert (text["prompt"], text["answer"]) == (row.prompt, row.text)
    assert data["users"]["texts"]["1"]["history"] == [
        ["feed", 5, 7, [["food", 4], ["sea", 1]]],
        ["shop", 0, 0, []],
    ]


def test_outliers_are_found_and_counted(store, shown):
    data, _ = shown(store)
    assert {each["key"]: each["count"] for each in data["outliers"]} == {
        "norm": 1,
        "repeated": 3,
        "refusal": 1,
        "empty": 2,
        "failed": 2,
        "truncated": 1,
    }
    assert kind(data, "norm")["examples"] == [8]
    assert kind(data, "repeated")["groups"] == [["They like the sea.", 3, 10]]
    assert kind(data, "refusal")["examples"] == [13]
    assert kind(data, "failed")["groups"] == [["no answer within N seconds", 2, 5]], (
        "numbers do not part reasons"
    )


def test_a_page_of_few_texts_has_those_of_outliers(store, shown):
    data, text = shown(store, users=12)
    assert data["embedded"] == len(data["users"]["texts"]) == 12
    assert {"8", "10", "13", "3", "5"} <= data["users"]["texts"].keys()
    assert len(data["users"]["ids"]) == 40, "every user is on the map and in the list"
    assert text.count("Prompt of user number") == 10, "two of the 12 were never asked"


def test_a_page_of_no_texts_has_no_answer_anywhere(store, shown):
    data, text = shown(store, users=0)
    assert data["embedded"] == data["explained"] == 0
    assert kind(data, "repeated")["groups"] == [["", 3, 10]]
    assert "They like the sea" not in text
    assert "Answer about user" not in text


def test_answers_that_are_in_explanations_alone_are_counted(store, tmp_path, shown):
    told = [explanation(1), explanation(1), explanation(20), explanation(2, text=None)]
    run = write_run(tmp_path / "run", store, "", explanations=told)
    assert shown(run, users=0)[0]["explained"] == 2, "each user once, and none without an answer"
    assert shown(run)[0]["explained"] == 0, "they are on the page anyway"
    assert shown(run, texts=False)[0]["explained"] == 0


def test_a_page_of_few_points_spreads_them(store, shown):
    data, _ = shown(store, points=10)
    assert data["users"]["ids"] == [str(at) for at in range(0, 40, 4)]
    assert (data["users"]["total"], data["users"]["count"]) == (40, 10)
    (level,) = [each for each in data["store"]["levels"] if each["level"] == "user"]
    assert level["rows"] == 40, "counts are those of the whole store"


def test_no_texts_leaves_texts_and_ids_out(tmp_path, shown):
    rows = [user(at, name=f"secret{at}", title="private title", answer="private answer") for at in range(6)]
    rows.append(user(6, name="secret6", status="failed"))
    folder = write_store(tmp_path / "store", rows)
    told = explanation("secret1", "private item", "private text")
    run = write_run(tmp_path / "run", folder, KnowledgeStore.load(folder).fingerprint, explanations=[told])
    data, text = shown(run, texts=False)
    assert "secret" not in text
    assert "private" not in text
    assert "within" not in text, "nor why one failed, which may name it"
    assert data["embedded"] == 0
    assert data["users"]["ids"] is None
    assert len(data["users"]["x"]) == 7
    assert "secret" in shown(run)[1]


def test_long_texts_are_cut_and_say_so(tmp_path, shown):
    folder = write_store(tmp_path / "store", [user(0, title="x" * 30_000)])
    prompt = shown(folder)[0]["users"]["texts"]["0"]["prompt"]
    assert 20_000 < len(prompt) < 20_100
    assert "characters more" in prompt


@pytest.mark.parametrize(
    ("users", "scenarios"),
    [
        ([user(0)], ("feed",)),
        ([user(0), user(1)], ("feed", "shop")),
        ([user(0, status="empty"), user(1, status="failed")], ("feed",)),
        ([], ("feed", "shop", "sea")),
        ([user(at) for at in range(5)], ()),
        ([user(at, layers=3) for at in range(5)], ("feed",)),
        ([user(at, dim=1) for at in range(5)], ("feed",)),
    ],
    ids=["one user", "two users", "no knowledge", "scenarios alone", "users alone", "layers", "one number"],
)
def test_a_page_of_little(tmp_path, shown, users, scenarios):
    data, _ = shown(write_store(tmp_path / "store", users, scenarios))
    assert (data["users"] is None) == (not users)
    assert (data["scenarios"] is None) == (not scenarios)
    assert data["comparison"] is None
    if users:
        assert len(data["users"]["x"]) == len(users)
    if scenarios:
        assert (data["scenarios"]["centred"] is None) == (len(scenarios) < 3)


def test_of_layers_the_last_is_shown(tmp_path, shown):
    one = shown(write_store(tmp_path / "one", [user(at) for at in range(9)]))[0]
    three = shown(write_store(tmp_path / "three", [user(at, layers=3) for at in range(9)]))[0]
    assert three["users"]["layers"] == 3
    assert three["users"]["x"] == pytest.approx([3 * x for x in one["users"]["x"]], rel=1e-3)


def test_a_store_without_texts(store, tmp_path, shown):
    KnowledgeStore.load(store).save(tmp_path / "bare", texts=False)
    data, _ = shown(tmp_path / "bare")
    assert data["users"]["texts"] == {}
    assert data["users"]["stored"] is False
    assert kind(data, "failed")["count"] == 2
    assert data["scenarios"]["rows"][0]["prompt"] is None
    assert [each["name"] for each in data["users"]["columns"]][:1] == ["Status"]


def test_a_keyed_store(store, tmp_path, shown):
    KnowledgeStore.load(store).save_pretrained(tmp_path / "keyed", key=secrets.token_bytes(32))
    data, _ = shown(tmp_path / "keyed")
    levels = {each["level"]: each["keyed"] for each in data["store"]["levels"]}
    assert levels == {"user": True, "scenario": False}
    assert all(len(name) == 32 for name in data["users"]["ids"])


def test_a_run_brings_its_figures(run_folder, shown):
    data, _ = shown(run_folder)
    assert data["comparison"]["scores"]["enhanced"]["feed"]["auc"] == pytest.approx(0.6)
    assert data["curves"]["alpha"]["user"] == [[0.5, 0.6, 0.7], [0.5, 0.6]]
    assert data["explanations"]["rows"][0]["parts"][1]["text"] == "likes the sea"
    assert data["missing"] == []
    assert ["Commit", "c0ffee" * 6] in data["store"]["lines"]
    assert ["Cut-off", "10 (all 2)"] in data["store"]["lines"]


def test_a_run_whose_store_changed_or_is_gone_says_so(store, tmp_path, shown):
    changed = write_run(tmp_path / "changed", store, "0" * 64)
    assert "has changed since the run" in shown(changed)[0]["missing"][0]
    gone = write_run(tmp_path / "gone", tmp_path / "away", "0" * 64)
    (tmp_path / "empty").mkdir()
    empty = write_run(tmp_path / "emptied", tmp_path / "empty", "0" * 64)
    assert "not where the run says" in shown(empty)[0]["missing"][0]
    data, _ = shown(gone)
    assert "not where the run says" in data["missing"][0]
    assert data["store"] is data["users"] is data["scenarios"] is None
    assert data["comparison"]["seeds"] == 2


def test_what_cannot_be_used_is_refused(store, tmp_path):
    for out in (tmp_path, tmp_path / "page.txt", tmp_path / "no" / "page.html"):
        with pytest.raises(DataError, match=r"report\.html"):
            write_report(store, out)
    for wrong in ({"users": -1}, {"points": 0}, {"points": 10**6}):
        with pytest.raises(DataError, match="--points"):
            write_report(store, tmp_path / "page.html", **wrong)
    with pytest.raises(StoreError):
        write_report(tmp_path / "nothing", tmp_path / "page.html")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(DataError, match="format"):
        write_report(tmp_path / "run", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_text_is_an_error_and_no_page(store, tmp_path):
    for path in store.glob("txt-*"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"Prompt of user", b"Prompt of nser"))
    with pytest.raises(StoreCorruptError, match="repair"):
        write_report(store, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_arms_are_described_as_compare_does():
    assert ARMS == REAL_ARMS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ({"a": 5, "b": 5}, "5 (all 2)"),
        ({"a": 5, "b": 6.5, "c": None}, "a 5, b 6.5"),
        (["x", "x"], "x"),
        (3.0, "3"),
        (False, "False"),
    ],
)
def test_values_in_words(value, text):
    assert plain(value) == text


def test_a_scenario_without_an_auc_is_no_number(store, tmp_path, shown):
    scores = comparison().model_dump()["scores"]
    scores["enhanced"]["shop"]["auc"] = None
    run = write_run(tmp_path / "run", store, "", comparison=comparison(scores=scores))
    assert shown(run)[0]["comparison"]["scores"]["enhanced"]["shop"]["auc"] is None
