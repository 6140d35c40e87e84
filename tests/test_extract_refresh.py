"""A store that follows its log: only changed prompts are asked again, and no row of another window stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import SplitError, Stopped, StoreError, StoreIdentityError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.templates import Templates
from msr_enhance.store.knowledge import KnowledgeStore

LIMIT = 110  # words; the longest prompts of these logs have about 130


def prompts_of(extractor, table, split):
    """The prompt of every user, `""` where there is no history."""
    return {user: str(prompt or "") for user, prompt in extractor.preview(table, split=split)}


def said_of_rows(store, contents):
    """What a store says, without the facts: those of a row that stays are the ones it was asked with."""
    return {key: row[:3] + row[4:] for key, row in contents(store).items()}


def renamed(log, users):
    return {**log, "title": np.where(np.isin(log["user_id"], users), "renamed", log["title"])}


def without_user(log, user):
    return {name: values[log["user_id"] != user] for name, values in log.items()}


CHANGES = {
    "an earlier window": (lambda log: log, 200),
    "a later window": (lambda log: log, 420),
    "other titles": (lambda log: renamed(log, [104, 111]), 300),
    "a user who is gone": (lambda log: without_user(log, 107), 300),
    "a user who likes nothing any more": (
        lambda log: {**log, "label": np.where(log["user_id"] == 105, 0, log["label"])},
        300,
    ),
    "a new row at the end": (
        lambda log: {name: np.append(of, 999 if name == "timestamp" else of[0]) for name, of in log.items()},
        300,
    ),
}  # fmt: skip


@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_refreshed_store_is_a_fresh_one_and_only_changes_are_asked(
    titled_log, tmp_path, fake_llm, contents, change, limit, way
):
    log, (edit, cutoff) = titled_log(), CHANGES[change]
    before, after = [(log, 300), (edit(log), cutoff)][:: 1 if way == "there" else -1]
    tables = [InteractionTable.from_arrays(one) for one, _ in (before, after)]
    splits = [
        split_table(table, "scenario", cutoff=cut)
        for table, (_, cut) in zip(tables, (before, after), strict=True)
    ]
    fresh = KnowledgeExtractor(fake_llm(limit=limit)).extract(tables[1], tmp_path / "fresh", split=splits[1])
    KnowledgeExtractor(fake_llm(limit=limit)).extract(tables[0], tmp_path / "store", split=splits[0])
    llm, said = fake_llm(limit=limit, plans=4), []
    extractor = KnowledgeExtractor(llm, commit_every=8)
    store = extractor.extract(tables[1], tmp_path / "store", split=splits[1], refresh=True, say=said.append)
    assert said_of_rows(store, contents) == said_of_rows(fresh, contents)
    assert store.provenance.identity == fresh.provenance.identity
    assert store.provenance.window == fresh.provenance.window
    old, new = (prompts_of(extractor, table, split) for table, split in zip(tables, splits, strict=True))
    asked = [prompt for prompt in map(str, llm.asked) if prompt in new.values()]
    assert sorted(asked) == sorted(new[user] for user in new if new[user] and old.get(user) != new[user])
    assert said[0].startswith("refresh: ")
    changed = sum(old[user] != new[user] for user in new if user in old)
    gone = len(set(old) - set(new))
    tail = f", {gone} are no longer in the log" if gone else ""
    assert f"refresh: {changed} of {len(old)} users have another prompt now{tail}" in said
    quiet = fake_llm(limit=limit)
    again = KnowledgeExtractor(quiet).extract(tables[1], tmp_path / "store", split=splits[1], refresh=True)
    assert quiet.asked == []
    assert again.fingerprint == store.fingerprint, "nothing to do is no commit"


@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(2, 7),
    moments=st.integers(4, 60),
    cuts=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    limit=st.sampled_from([None, 60, LIMIT]),
    broken=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_of_another_window_is_ever_under_the_new_one(
    titled_log, tmp_path_factory, fake_llm, seed, users, moments, cuts, limit, broken
):
    """Also when the run ends at its first question, or at any later one."""
    table = InteractionTable.from_arrays(titled_log(seed, users, 20, moments))
    try:
        old, new = (split_table(table, "scenario", cutoff=round(cut * moments)) for cut in cuts)
    except SplitError:
        assume(False)
    folder = tmp_path_factory.mktemp("leak") / "store"
    KnowledgeExtractor(fake_llm(limit=limit)).extract(table, folder, split=old)
    expected = prompts_of(KnowledgeExtractor(fake_llm(limit=limit)), table, new)
    for breaks_after in (0, broken, None):
        llm = fake_llm(limit=limit, breaks_after=breaks_after, plans=2)
        try:
            KnowledgeExtractor(llm).extract(table, folder, split=new, refresh=True)
        except RuntimeError:
            assert breaks_after is not None
        store = KnowledgeStore.load(folder)
        assert store.provenance.window == new.window.model_dump(mode="json")
        if "user" in store.levels:
            for user in store.ids("user"):
                assert store.record("user", user).prompt == expected[user]
    assert set(store.ids("user")) == set(table.user_ids)


def refresh(llm, table, folder, **options):
    return KnowledgeExtractor(llm, **options).extract(table, folder, refresh=True)


@pytest.fixture
def changed(titled_log, tmp_path, fake_llm):
    """A finished store, and its log with two users changed."""
    log = titled_log()
    KnowledgeExtractor(fake_llm()).extract(InteractionTable.from_arrays(log), tmp_path / "store")
    return InteractionTable.from_arrays(renamed(log, [104, 111])), tmp_path / "store"


def test_a_changed_log_is_refused_and_refresh_is_named(changed, fake_llm):
    table, folder = changed
    before = KnowledgeStore.load(folder).fingerprint
    with pytest.raises(StoreIdentityError, match=r"(?s)seen_texts.*in the store.*now.*--refresh"):
        KnowledgeExtractor(fake_llm()).extract(table, folder)
    assert KnowledgeStore.load(folder).fingerprint == before


@pytest.mark.parametrize("other", [{"llm": "other"}, {"templates": Templates.named("paper")}, {"limit": 70}])
def test_what_changes_an_answer_is_refused_even_then(changed, fake_llm, other):
    table, folder = changed
    before = KnowledgeStore.load(folder).fingerprint
    llm = fake_llm(other.get("llm", "fake"), limit=other.get("limit"))
    extractor = KnowledgeExtractor(llm, other.get("templates"))
    for refresh in (False, True):
        with pytest.raises(StoreIdentityError) as caught:
            extractor.extract(table, folder, refresh=refresh)
        assert "--refresh" not in str(caught.value)
    assert llm.asked == []
    assert KnowledgeStore.load(folder).fingerprint == before


def test_a_platform_file_and_a_history_length_can_be_followed_too(changed, fake_llm, contents, tmp_path):
    table, folder = changed
    notes = Platform.for_scenarios(table.scenarios).model_copy(update={"name": "Harbour"})
    options = {"platform": notes, "history": 4}
    store = refresh(fake_llm(), table, folder, **options)
    fresh = KnowledgeExtractor(fake_llm(), **options).extract(table, tmp_path / "fresh")
    assert said_of_rows(store, contents) == said_of_rows(fresh, contents)
    assert store.provenance.identity["history"] == 4


def test_a_prompt_that_is_no_longer_cut_is_asked_again_although_it_is_the_same(tmp_path, fake_llm):
    """Else its row would go on saying that interactions are missing."""
    rows = 120  # each user likes ten items in each scenario, and then come rows to train and score on
    log = {
        "user_id": np.arange(rows) % 3,
        "item_id": np.arange(rows),
        "scenario": np.array(["feed", "shop"], object)[np.arange(rows) % 2],
        "label": ((np.arange(rows) < 60) | (np.arange(rows) // 2 % 2 == 0)).astype(int),
        "timestamp": np.arange(rows),
        "title": np.array([f"title {row}" for row in range(rows)], object),
    }
    table = InteractionTable.from_arrays(log)
    length = len(
        next(prompt for _, prompt in KnowledgeExtractor(fake_llm(), history=3).preview(table)).split()
    )
    first = KnowledgeExtractor(fake_llm(limit=length), history=5).extract(table, tmp_path / "store")
    assert set(first.statuses("user")) == {"truncated"}
    second = refresh(fake_llm(limit=length), table, tmp_path / "store", history=3)
    assert [second.record("user", user).prompt for user in range(3)] == [
        first.record("user", user).prompt for user in range(3)
    ]
    assert set(second.statuses("user")) == {"ok"}


def test_rows_outside_a_limit_or_part_are_compared_too(changed, fake_llm):
    table, folder = changed
    store = KnowledgeExtractor(fake_llm()).extract(table, folder, refresh=True, limit=5)
    assert set(store.ids("user")) == set(table.user_ids) - {111}, "stale, and not within the limit"
    llm = fake_llm()
    assert set(KnowledgeExtractor(llm).extract(table, folder).ids("user")) == set(table.user_ids)
    assert len(llm.asked) == 1


def test_failed_rows_stay_failed_unless_their_prompt_changed(titled_log, tmp_path, fake_llm):
    log = titled_log()
    table = InteractionTable.from_arrays(log)
    prompts = prompts_of(KnowledgeExtractor(fake_llm()), table, None)
    llm = fake_llm(fails=[prompts[104], prompts[120]])
    KnowledgeExtractor(llm).extract(table, tmp_path / "store")
    llm = fake_llm()
    store = refresh(llm, InteractionTable.from_arrays(renamed(log, [104])), tmp_path / "store")
    assert [store.record("user", user).status for user in (104, 120)] == ["ok", "failed"]
    store = KnowledgeExtractor(llm).extract(
        InteractionTable.from_arrays(log), tmp_path / "store", refresh=True, retry_failed=True
    )
    assert store.record("user", 120).status == "ok"


def test_the_log_of_another_platform_is_refused_before_anything_is_dropped(changed, titled_log, fake_llm):
    _, folder = changed
    before = KnowledgeStore.load(folder).fingerprint
    log = titled_log()
    for users in (log["user_id"] + 1000, np.array([str(user) for user in log["user_id"]], object)):
        with pytest.raises(StoreError, match=r"none of the 30 users.*nothing was changed"):
            refresh(fake_llm(), InteractionTable.from_arrays({**log, "user_id": users}), folder)
    assert KnowledgeStore.load(folder).fingerprint == before


def test_a_stop_while_prompts_are_compared_changes_nothing(changed, fake_llm):
    table, folder = changed
    before = KnowledgeStore.load(folder).fingerprint
    llm = fake_llm()
    with pytest.raises(Stopped, match="before a row was changed"):
        KnowledgeExtractor(llm).extract(table, folder, refresh=True, stop=lambda: True)
    assert llm.asked == []
    assert KnowledgeStore.load(folder).fingerprint == before


def test_refresh_without_a_store_extracts(titled_log, tmp_path, fake_llm, contents):
    table = InteractionTable.from_arrays(titled_log())
    store = refresh(fake_llm(), table, tmp_path / "new")
    assert contents(store) == contents(KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "plain"))
