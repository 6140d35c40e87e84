"""`KnowledgeExtractor` end to end with a reader that shows every leak: prompts and what is kept of them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from msr_enhance.data.split import Window, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, PromptError, SplitError, StoreError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.templates import Templates
from msr_enhance.prompts.user import UserPrompt

HARBOUR = {
    "name": "Harbour",
    "description": "an app by the sea",
    "scenarios": [
        {"name": "shop", "description": "things that are bought"},
        {"name": "feed", "description": "posts", "expert_knowledge": "read at night"},
    ],
}


@pytest.fixture
def table(titled_log):
    return InteractionTable.from_arrays(titled_log())


def titles(prompt):
    return re.findall(r"t\d{4}x", prompt)


def shown_slowly(table, seen, user, scenario, history):
    """Titles of a user's last positives in a scenario, oldest first: the definition, row by row."""
    frame = table.frame
    rows = [
        row
        for row in sorted(seen)
        if frame["user_id"][row] == user and frame["scenario"][row] == scenario and frame["label"][row] == 1
    ]
    rows.sort(key=lambda row: frame["timestamp"][row])
    return [frame["title"][row] for row in rows[-history:]]


def test_the_fake_reader_is_a_frozen_llm(fake_llm):
    assert isinstance(fake_llm(), FrozenLLM)


def test_every_user_gets_a_row_in_the_order_of_the_log(titled_log, tmp_path, fake_llm):
    log = titled_log(users=12)
    log["label"] = np.where(log["user_id"] == 103, 0, log["label"])  # a user who likes nothing
    table = InteractionTable.from_arrays(log)
    llm = fake_llm()
    store = KnowledgeExtractor(llm).extract(table, tmp_path / "store")
    assert set(store.levels) == {"scenario", "user"}
    assert store.ids("user") == list(range(100, 112)) == table.user_ids
    assert store.ids("scenario") == ["feed", "shop"]
    assert Counter(store.statuses("user")) == {"ok": 11, "empty": 1}
    assert not store.vectors("user", [103]).any()
    record = store.record("user", 103)
    assert (record.status, record.prompt, record.text) == ("empty", "", "")
    assert "no positive" in record.facts["reason"]
    assert len(llm.asked) == 11 + 2, "an empty history is not asked about"
    assert store.known("user") == [user for user in table.user_ids if user != 103]
    for user in store.known("user"):
        kept = store.record("user", user)
        np.testing.assert_array_equal(kept.vector, llm._read(kept.prompt).vector)
        assert kept.text == llm._read(kept.prompt).text


@pytest.mark.parametrize("protocol", ["window", "paper"])
@pytest.mark.parametrize("kind", ["scenario", "global", "user"])
@pytest.mark.parametrize("history", [2, 50])
def test_prompts_show_exactly_the_last_positives_that_may_be_seen(
    table, tmp_path, fake_llm, kind, protocol, history
):
    split = split_table(table, kind, protocol)
    llm = fake_llm()
    store = KnowledgeExtractor(llm, history=history).extract(table, tmp_path / "store", split=split)
    seen = split.seen.tolist()
    for user in table.user_ids:
        record = store.record("user", user)
        expected = [shown_slowly(table, seen, user, name, history) for name in table.scenarios]
        assert titles(record.prompt) == [title for each in expected for title in each]
        if record.status == "ok":
            assert list(record.facts["shown"].values()) == [len(each) for each in expected]
    assert Window.model_validate(store.provenance.window) == split.window


@pytest.mark.parametrize("protocol", ["window", "paper"])
@pytest.mark.parametrize("kind", ["scenario", "global", "user"])
def test_scenario_prompts_count_seen_rows_only(table, tmp_path, fake_llm, kind, protocol):
    split = split_table(table, kind, protocol)
    store = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "store", split=split)
    seen = table.frame[split.seen]
    for name in table.scenarios:
        record = store.record("scenario", name)
        assert titles(record.prompt) == []
        for other in table.scenarios:
            here, rest = seen.filter(scenario=other), seen.remove(scenario=other)
            assert record.facts["scenarios"][other] == {
                "interactions": len(here),
                "users": here["user_id"].n_unique(),
                "items": here["item_id"].n_unique(),
                "shared_users": len(set(here["user_id"]) & set(rest["user_id"])),
                "shared_items": len(set(here["item_id"]) & set(rest["item_id"])),
            }
            assert f"{len(here):,} interactions of {here['user_id'].n_unique():,} users" in record.prompt


def test_what_comes_after_the_cutoff_changes_no_prompt(titled_log, tmp_path, fake_llm):
    """Everything at and after T0 is rewritten; the prompts stay byte for byte."""
    log = titled_log()
    late = log["timestamp"] >= 300
    draw = np.random.default_rng(5)
    other = {
        **log,
        "label": np.where(late, draw.integers(0, 2, late.size), log["label"]),
        "title": np.where(late, "LATER", log["title"]),
        "category": np.where(late, "later", log["category"]),
        "item_id": np.where(late, log["item_id"] + 500, log["item_id"]),
    }
    asked = []
    for number, one in enumerate((log, other)):
        llm = fake_llm()
        table = InteractionTable.from_arrays(one)
        split = split_table(table, "scenario", cutoff=300)
        KnowledgeExtractor(llm).extract(table, tmp_path / str(number), split=split)
        asked.append([str(prompt) for prompt in llm.asked])
    assert asked[0] == asked[1]
    assert not any("LATER" in prompt for prompt in asked[1])


@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 8),
    each=st.integers(6, 30),
    moments=st.integers(3, 60),
    kind=st.sampled_from(["scenario", "global", "user", None]),
    protocol=st.sampled_from(["window", "paper"]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_prompt_shows_a_row_that_is_scored(
    titled_log, fake_llm, seed, users, each, moments, kind, protocol
):
    """On random logs full of ties, written without reading `Split.seen`."""
    table = InteractionTable.from_arrays(titled_log(seed, users, each, moments))
    try:
        split = split_table(table, kind, protocol)
    except SplitError:
        assume(False)
    served = [split.validation, split.test] + ([split.train] if protocol == "window" else [])
    scored = {int(row) for part in served for row in part}
    time, place, who = (table.column(name) for name in ("timestamp", "scenario", "user_id"))
    earliest: dict[object, int] = {}
    for row in scored:
        group = {"scenario": place[row], "global": 0, "user": (who[row], place[row])}[split.kind]
        if protocol == "window" and split.kind == "scenario":
            group = 0  # one T0 for all scenarios
        earliest[group] = min(time[row], earliest.get(group, time[row]))
    for user, prompt in KnowledgeExtractor(fake_llm()).preview(table, split=split):
        for title in titles(prompt or ""):
            row = int(title[1:-1])
            group = {"scenario": place[row], "global": 0, "user": (who[row], place[row])}[split.kind]
            if protocol == "window" and split.kind == "scenario":
                group = 0
            assert row not in scored
            assert who[row] == user
            assert table.labels[row] == 1
            assert time[row] <= earliest.get(group, time[row])
            if protocol == "window" and split.kind != "user":
                assert time[row] < earliest[0]


def test_failed_answers_are_counted_and_not_used(table, tmp_path, fake_llm):
    bad = [title for user, prompt in KnowledgeExtractor(fake_llm()).preview(table) if user in (104, 110)
           for title in titles(prompt)[:1]]  # fmt: skip
    store = KnowledgeExtractor(fake_llm(fails=bad)).extract(table, tmp_path / "store")
    assert Counter(store.statuses("user")) == {"ok": len(table.user_ids) - 2, "failed": 2}
    assert not set(store.known("user")) & {104, 110}
    assert not store.vectors("user", [104, 110]).any(), "a failed answer's vector is never kept"
    assert store.record("user", 104).facts["reason"] == "said nothing"


def test_a_platform_file_speaks_in_the_prompts(table, tmp_path, fake_llm):
    path = tmp_path / "platform.yaml"
    Platform.model_validate(HARBOUR).to_yaml(path)
    llm = fake_llm()
    store = KnowledgeExtractor(llm, platform=Platform.from_yaml(path)).extract(table, tmp_path / "store")
    assert all("Harbour" in prompt for prompt in llm.asked)
    feed = store.record("scenario", "feed").prompt
    assert "an app by the sea" in feed
    assert "things that are bought" in feed
    assert "read at night" in feed
    assert "read at night" not in store.record("scenario", "shop").prompt


def test_a_platform_without_a_scenario_of_the_log_is_refused(table, tmp_path, fake_llm):
    llm, half = fake_llm(), {**HARBOUR, "scenarios": HARBOUR["scenarios"][:1]}
    with pytest.raises(PromptError, match=r"'feed' is not known; allowed: 'shop'.*platform file"):
        KnowledgeExtractor(llm, platform=Platform.model_validate(half)).extract(table, tmp_path / "store")
    assert llm.asked == []
    assert not (tmp_path / "store").exists()


def test_the_default_prompt_holds_no_user_id_and_the_papers_does(titled_log, tmp_path, fake_llm):
    log = titled_log()
    log["user_id"] = np.array([f"secret{user}" for user in log["user_id"]], object)
    table = InteractionTable.from_arrays(log)
    default = dict(KnowledgeExtractor(fake_llm()).preview(table))
    paper = dict(KnowledgeExtractor(fake_llm(), Templates.named("paper")).preview(table))
    assert not any("secret" in prompt for prompt in default.values())
    assert all(f"user_{user} " in prompt for user, prompt in paper.items())


def test_a_preview_is_what_would_be_asked(table, tmp_path, fake_llm):
    llm = fake_llm()
    extractor = KnowledgeExtractor(llm, history=4)
    preview = dict(extractor.preview(table))
    assert llm.asked == []
    assert not list(tmp_path.iterdir())
    store = extractor.extract(table, tmp_path / "store")
    assert list(preview) == store.ids("user")
    assert [str(prompt) for prompt in preview.values()] == [store.record("user", u).prompt for u in preview]


def test_an_own_template_is_used(table, tmp_path, fake_llm):
    own = Templates(user=UserPrompt(name="own", text="Likes:\n{histories}"))
    llm = fake_llm()
    KnowledgeExtractor(llm, own).extract(table, tmp_path / "store")
    users = [prompt for prompt in llm.asked if "shown" in prompt.facts]
    assert len(users) == len(table.user_ids)
    assert all(prompt.startswith("Likes:\nIn feed: ") for prompt in users)


def test_bad_requests_are_refused_before_the_model_is_asked(table, tmp_path, fake_llm):
    with pytest.raises(DataError, match=r"history is 0; write 1 or more"):
        KnowledgeExtractor(fake_llm(), history=0)
    llm = fake_llm()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    with pytest.raises(StoreError, match=r"holiday.jpg.*no store.*new or empty"):
        KnowledgeExtractor(llm).extract(table, tmp_path / "full")
    assert llm.asked == []


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_vectors_are_kept_as_asked(table, tmp_path, fake_llm, dtype):
    """And stay so when nothing is asked for; another type is refused."""
    store = KnowledgeExtractor(fake_llm(), store_dtype=dtype).extract(table, tmp_path / "s", limit=2)
    assert store.dtype == (dtype or "float32")
    again = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "s")
    assert again.dtype == store.dtype
    exact = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "exact")
    users = exact.known("user")
    wide, kept = exact.vectors("user", users), again.vectors("user", users)
    steps = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8}
    assert (
        np.abs(wide - kept) <= steps[store.dtype] * np.abs(wide) + 1e-7 * (store.dtype != "float32")
    ).all()
    other = "float16" if store.dtype != "float16" else "bfloat16"
    with pytest.raises(StoreError, match="dtype"):
        KnowledgeExtractor(fake_llm(), store_dtype=other).extract(table, tmp_path / "s")


def test_a_vector_too_large_for_float16_is_a_failed_row(table, tmp_path, fake_llm):
    previewed = KnowledgeExtractor(fake_llm(), history=100).preview(table)
    target = titles(str(next(prompt for _, prompt in previewed if prompt)))[0]

    class Large(fake_llm):
        def answer(self, prompts):
            answers = super().answer(prompts)
            return [
                dataclasses.replace(one, vector=one.vector * 0 + 70_000) if target in str(prompt) else one
                for one, prompt in zip(answers, prompts, strict=True)
            ]

    extractor = KnowledgeExtractor(Large(), history=100, store_dtype="float16")
    store = extractor.extract(table, tmp_path / "s")
    failed = [
        name
        for name, status in zip(store.ids("user"), store.statuses("user"), strict=True)
        if status == "failed"
    ]
    assert all(target in store.record("user", name).prompt for name in failed)
    assert failed
    assert all("too large for float16" in store.record("user", name).facts["reason"] for name in failed)
    assert len(failed) == sum(target in store.record("user", name).prompt for name in store.ids("user"))
