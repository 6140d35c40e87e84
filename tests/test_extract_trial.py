"""A reader that fails from the start: a broken one fills no store, one bad user stops no run."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import ModelError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.extract.trial import ENOUGH
from msr_enhance.store.knowledge import KnowledgeStore

EMPTY = (103, 110, 111)
ANY_USER, ANY_SCENARIO = "In feed", "State what the scenarios share"


@pytest.fixture
def table(titled_log):
    log = titled_log(users=24)
    log["label"] = np.where(np.isin(log["user_id"], EMPTY), 0, log["label"])  # users who like nothing
    return InteractionTable.from_arrays(log)


@pytest.fixture
def prompts(table, fake_llm):
    """The prompts of the users who are asked about, in the order of the log."""
    return [prompt for _, prompt in KnowledgeExtractor(fake_llm()).preview(table) if prompt]


def users_of(folder):
    store = KnowledgeStore.load(folder)
    return Counter(store.statuses("user") if "user" in store.levels else [])


def test_the_same_command_goes_on_once_the_reader_is_mended(table, tmp_path, fake_llm):
    broken = fake_llm(fails=[ANY_USER, ANY_SCENARIO], plans=3)
    with pytest.raises(
        ModelError, match=r"All of the first 13 user prompts failed: said nothing\. None of them was stored"
    ):
        KnowledgeExtractor(broken, commit_every=8).extract(table, tmp_path / "store")
    assert len(broken.asked) == 2 + 7 + 6, "two chunks are enough to know, one with 7 users is not"
    assert "failed" not in users_of(tmp_path / "store")
    mended = fake_llm(plans=3)
    store = KnowledgeExtractor(mended, commit_every=8).extract(table, tmp_path / "store")
    assert Counter(store.statuses("user")) == {"ok": 21, "empty": 3}
    assert set(store.statuses("scenario")) == {"ok"}
    assert len(mended.asked) == 2 + 21


def test_answered_scenarios_do_not_speak_for_the_users(table, tmp_path, fake_llm):
    with pytest.raises(ModelError, match="All of the first 21 user prompts failed"):
        KnowledgeExtractor(fake_llm(fails=[ANY_USER])).extract(table, tmp_path / "store")
    store = KnowledgeStore.load(tmp_path / "store")
    assert (store.levels, set(store.statuses("scenario"))) == (("scenario",), {"ok"})


@pytest.mark.parametrize("commit_every", [1, 2, 5, 512])
@pytest.mark.parametrize("bad", [1, ENOUGH - 1])
def test_bad_first_users_do_not_stop_a_run(table, tmp_path, fake_llm, prompts, bad, commit_every):
    llm = fake_llm(fails=[*prompts[:bad], ANY_SCENARIO])
    store = KnowledgeExtractor(llm, commit_every=commit_every).extract(table, tmp_path / "store")
    assert Counter(store.statuses("user")) == {"ok": 21 - bad, "failed": bad, "empty": 3}
    assert set(store.statuses("scenario")) == {"failed"}
    assert len(llm.asked) == 2 + 21, "nothing is asked twice"


def test_so_many_bad_users_stop_small_batches(table, tmp_path, fake_llm, prompts):
    llm = fake_llm(fails=prompts[:ENOUGH])
    with pytest.raises(ModelError, match=f"All of the first {ENOUGH} user prompts failed"):
        KnowledgeExtractor(llm, commit_every=1).extract(table, tmp_path / "small")
    assert len(llm.asked) == 2 + ENOUGH
    store = KnowledgeExtractor(llm, commit_every=512).extract(table, tmp_path / "large")
    assert Counter(store.statuses("user"))["failed"] == ENOUGH, "a whole chunk has more to go by"


def test_a_small_run_with_a_bad_user_ends_and_the_next_one_goes_on(table, tmp_path, fake_llm, prompts):
    first = fake_llm(fails=prompts[:1])
    store = KnowledgeExtractor(first).extract(table, tmp_path / "store", limit=1)
    assert store.statuses("user") == ["failed"], "the scenarios were answered"
    second = fake_llm(fails=prompts[:1])
    store = KnowledgeExtractor(second).extract(table, tmp_path / "store")
    assert Counter(store.statuses("user")) == {"ok": 20, "failed": 1, "empty": 3}
    assert len(second.asked) == 20


def test_a_small_run_in_which_everything_fails_is_an_error_that_blocks_nothing(
    table, tmp_path, fake_llm, prompts
):
    options = {"fails": [prompts[0], ANY_SCENARIO]}
    for _ in range(2):
        with pytest.raises(ModelError, match=r"All of the 3 prompts failed: said nothing\. None of them"):
            KnowledgeExtractor(fake_llm(**options)).extract(table, tmp_path / "store", limit=1)
        assert KnowledgeStore.load(tmp_path / "store").levels == ()
    store = KnowledgeExtractor(fake_llm(**options)).extract(table, tmp_path / "store")
    assert Counter(store.statuses("user")) == {"ok": 20, "failed": 1, "empty": 3}


def test_a_small_part_in_which_everything_fails_is_done(table, tmp_path, fake_llm, prompts):
    """Else one bad user alone in a part would keep all parts from being joined."""
    llm = fake_llm(fails=[*prompts[:1], ANY_SCENARIO])
    part = SimpleNamespace(index=0, holds=lambda user: user == 100)
    store = KnowledgeExtractor(llm).extract(table, tmp_path / "store", part=part)
    assert store.statuses("user") == ["failed"]
    assert store.statuses("scenario") == ["failed", "failed"]
    everyone = SimpleNamespace(index=1, holds=lambda user: True)
    with pytest.raises(ModelError, match="All of the first 21 user prompts"):
        KnowledgeExtractor(fake_llm(fails=[ANY_USER])).extract(table, tmp_path / "big", part=everyone)


def test_stored_failures_are_no_sign_that_the_reader_answers(table, tmp_path, fake_llm, prompts):
    part = SimpleNamespace(index=1, holds=lambda user: user == 100)
    broken = fake_llm(fails=[ANY_USER, ANY_SCENARIO])
    KnowledgeExtractor(broken).extract(table, tmp_path / "store", part=part)
    with pytest.raises(ModelError, match="All of the first 20 user prompts"):
        KnowledgeExtractor(broken).extract(table, tmp_path / "store")
    assert users_of(tmp_path / "store") == {"failed": 1}
