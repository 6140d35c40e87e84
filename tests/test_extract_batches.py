"""One batch, one commit: how work is cut into batches, and what a run leaves when it ends early."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, ModelError, Stopped
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.extract.summary import summarize
from msr_enhance.llm.protocol import Answer
from msr_enhance.prompts.platform import Platform
from msr_enhance.store.knowledge import KnowledgeStore

EMPTY = (103, 110, 111)


@pytest.fixture
def table(titled_log):
    log = titled_log(users=24)
    log["label"] = np.where(np.isin(log["user_id"], EMPTY), 0, log["label"])  # users who like nothing
    return InteractionTable.from_arrays(log)


def batches(llm):
    """What was asked together."""
    asked = iter(map(str, llm.asked))
    return [tuple(itertools.islice(asked, size)) for size in llm.batched]


def after_each_answer(llm, look):
    """Call `look` with the batches answered so far, before each answer."""
    answer = llm.answer
    llm.answer = lambda prompts: look(batches(llm)) or answer(prompts)
    return llm


def test_a_reader_that_plans_gets_its_batches_and_each_is_one_commit(table, tmp_path, fake_llm):
    seen = []

    def look(done):
        store = KnowledgeStore.load(tmp_path / "store")
        stored = [store.record(level, name) for level in store.levels for name in store.ids(level)]
        seen.append(Counter(row.prompt for row in stored if row.prompt))
        assert seen[-1] == Counter(itertools.chain(*done)), (
            "what was answered is on disk before more is asked"
        )

    llm = after_each_answer(fake_llm(plans=4), look)
    store = KnowledgeExtractor(llm, commit_every=12).extract(table, tmp_path / "store")
    assert llm.batched == [2, 4, 4, 1, 4, 4, 4]
    for batch in batches(llm)[1:]:
        assert len({len(prompt) for prompt in batch}) <= 4
    assert sorted(store.ids("user")) == table.user_ids
    first = 4 + sum(user in EMPTY for user in table.user_ids[:12])
    assert set(EMPTY[:3]) <= set(store.ids("user")[:first]), (
        "rows that are not asked are in the chunk's first commit"
    )


def test_a_reader_that_does_not_plan_gets_chunks(table, tmp_path, fake_llm):
    llm = fake_llm()
    store = KnowledgeExtractor(llm, commit_every=10).extract(table, tmp_path / "store")
    assert llm.batched == [2, 9, 8, 4]
    assert store.ids("user") == table.user_ids


@pytest.mark.parametrize("plans", [None, 3])
def test_a_resumed_run_has_the_batches_of_one_that_never_stopped(table, tmp_path, fake_llm, contents, plans):
    whole = fake_llm(plans=plans)
    store = KnowledgeExtractor(whole, commit_every=8).extract(table, tmp_path / "whole")
    for breaks in range(0, 23, 4):
        folder, parts = tmp_path / str(breaks), []
        for breaks_after in (breaks, breaks + 1, None):
            llm = fake_llm(breaks_after=breaks_after, plans=plans)
            with contextlib.suppress(RuntimeError):
                KnowledgeExtractor(llm, commit_every=8).extract(table, folder)
            parts += batches(llm)
        assert parts == batches(whole)
        assert contents(KnowledgeStore.load(folder)) == contents(store)


def test_a_batch_that_is_partly_done_asks_only_for_the_rest(table, tmp_path, fake_llm):
    KnowledgeExtractor(fake_llm(plans=5), commit_every=24).extract(table, tmp_path / "store", limit=7)
    done = set(KnowledgeStore.load(tmp_path / "store").ids("user"))
    llm = fake_llm(plans=4)
    store = KnowledgeExtractor(llm, commit_every=9).extract(table, tmp_path / "store")
    assert len(done) == 7
    assert sorted(store.ids("user")) == table.user_ids
    assert len(llm.asked) == len(set(table.user_ids) - done - set(EMPTY))


def test_chunks_that_are_done_are_not_even_counted(table, tmp_path, fake_llm):
    KnowledgeExtractor(fake_llm(limit=10_000), commit_every=4).extract(table, tmp_path / "store", limit=17)
    counted = []
    llm = fake_llm(limit=10_000, count=lambda prompt: counted.append(prompt) or 1)
    KnowledgeExtractor(llm, commit_every=4).extract(table, tmp_path / "store")
    assert len(counted) == 8, "users 16 to 23: two chunks, the first of them partly done"
    assert len(llm.asked) == 7


def test_stop_ends_between_two_batches_and_the_same_call_goes_on(table, tmp_path, fake_llm, contents):
    whole = KnowledgeExtractor(fake_llm(plans=3), commit_every=8).extract(table, tmp_path / "whole")
    asked, stops, said = [], [], []
    for _ in range(30):
        llm = fake_llm(plans=3)
        extractor, enough = KnowledgeExtractor(llm, commit_every=8), lambda llm=llm: len(llm.batched) == 2
        try:
            extractor.extract(table, tmp_path / "store", stop=enough, say=said.append)
        except Stopped as stopped:
            stops.append(str(stopped))
        asked += llm.asked
        if len(llm.batched) < 2:
            break
    assert len(asked) == 2 + len(table.user_ids) - len(EMPTY), "nothing is asked twice"
    assert contents(KnowledgeStore.load(tmp_path / "store")) == contents(whole)
    assert stops[0] == "stopped with 4 of 24 users done; all of them are kept.", "3 answered, and one empty"
    assert said[0] == "resuming: 4 of 24 users are done"


def test_a_resumed_run_says_how_many_are_done(table, tmp_path, fake_llm):
    said = []
    extractor = KnowledgeExtractor(fake_llm())
    extractor.extract(table, tmp_path / "store", limit=7, say=said.append)
    assert said == []
    extractor.extract(table, tmp_path / "store", say=said.append)
    assert said == ["resuming: 7 of 24 users are done"]


def test_parts_read_each_user_once_and_the_scenarios_once(table, tmp_path, fake_llm):
    parts = [
        SimpleNamespace(index=index, holds=lambda user, index=index: user % 3 == index) for index in range(3)
    ]
    stores = [
        KnowledgeExtractor(fake_llm()).extract(table, tmp_path / str(part.index), part=part, limit=20)
        for part in parts
    ]
    users = [user for store in stores for user in store.ids("user")]
    assert sorted(users) == table.user_ids[:20], "the limit counts users of the log, whatever the parts"
    assert [store.levels.count("scenario") for store in stores] == [1, 0, 0]
    assert all(
        user % 3 == part.index
        for store, part in zip(stores, parts, strict=True)
        for user in store.ids("user")
    )


def test_failures_before_the_first_answer_are_kept_once_it_came(table, tmp_path, fake_llm):
    prompts = sorted(
        (p for _, p in KnowledgeExtractor(fake_llm()).preview(table) if p), key=lambda p: (len(p), p)
    )
    llm = fake_llm(fails=prompts[:6], plans=3)
    store = KnowledgeExtractor(llm, commit_every=24).extract(table, tmp_path / "store")
    assert Counter(store.statuses("user")) == {"ok": 15, "failed": 6, "empty": 3}


def test_failed_rows_are_asked_again_when_told_to(table, tmp_path, fake_llm):
    prompts = dict(KnowledgeExtractor(fake_llm()).preview(table))
    bad = [prompts[104], prompts[109]]
    KnowledgeExtractor(fake_llm(fails=bad)).extract(table, tmp_path / "store")
    quiet, said, llm = fake_llm(), [], fake_llm(fails=bad[1:])
    KnowledgeExtractor(quiet).extract(table, tmp_path / "store")
    assert quiet.asked == []
    store = KnowledgeExtractor(llm).extract(table, tmp_path / "store", retry_failed=True, say=said.append)
    assert list(map(str, llm.asked)) == bad
    assert said == ["asking 2 failed users again", "resuming: 22 of 24 users are done"]
    assert (store.record("user", 104).status, store.record("user", 109).status) == ("ok", "failed")
    assert sorted(store.ids("user")) == table.user_ids
    third = fake_llm()
    KnowledgeExtractor(third).extract(table, tmp_path / "store", retry_failed=True, limit=5)
    assert third.asked == [], "failed rows outside the limit stay"


def test_rows_are_counted_by_what_became_of_them(table, tmp_path, fake_llm):
    prompts = [p for _, p in KnowledgeExtractor(fake_llm()).preview(table) if p]
    words = sorted(len(prompt.split()) for prompt in prompts)
    notes = [{"name": name, "expert_knowledge": "word " * 300} for name in table.scenarios]
    platform = Platform.model_validate({"name": "the platform", "scenarios": notes})
    llm = fake_llm(limit=words[-4], fails=prompts[:1])
    store = KnowledgeExtractor(llm, platform=platform).extract(table, tmp_path / "store")
    found = summarize(store)
    assert found["user"].statuses["empty"] == 3
    assert found["user"].statuses["truncated"] == sum(n > words[-4] for n in words)
    assert sum(found["user"].statuses.values()) == 24
    assert found["user"].reasons == {"said nothing": 1}
    assert found["scenario"].statuses == {"failed": 2}
    assert found["scenario"].reasons == {
        "N prompt tokens, and the model takes N; write shorter descriptions": 2
    }
    store.save(tmp_path / "shared", texts=False)
    assert summarize(KnowledgeStore.load(tmp_path / "shared"))["user"].reasons == {}


def test_several_layers_are_kept(table, tmp_path, fake_llm):
    class Layers(fake_llm):
        shape = (2, 3)

        def _read(self, prompt):
            flat = super()._read(prompt)
            return Answer(flat.text, np.arange(6, dtype=np.float32).reshape(2, 3) + len(prompt))

    store = KnowledgeExtractor(Layers()).extract(table, tmp_path / "store")
    assert store.vectors("user", [100, 103]).shape == (2, 2, 3)
    prompt = store.record("user", 100).prompt
    np.testing.assert_array_equal(store.vectors("user", [100])[0], np.arange(6).reshape(2, 3) + len(prompt))
    assert not store.vectors("user", [103]).any()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"answer": lambda prompts: []}, r"gave 0 answers to 2 prompts"),
        (
            {"answer": lambda prompts: [Answer("", np.ones(5, np.float32))] * len(prompts)},
            r"shape \(5,\).*\(6,\)",
        ),
        ({"batches": lambda prompts: [[0], [0]]}, r"each of the 2 prompts once"),
        ({"prompt_limit": 0, "count_tokens": lambda prompts: [1] * len(prompts)}, r"leaves 0 tokens"),
        ({"prompt_limit": 9, "count_tokens": lambda prompts: [1]}, r"counted 1 of 2"),
    ],
)
def test_a_reader_that_breaks_its_protocol_is_named(table, tmp_path, fake_llm, broken, says):
    llm = fake_llm()
    vars(llm).update(broken)
    with pytest.raises(ModelError, match=says):
        KnowledgeExtractor(llm).extract(table, tmp_path / "store")


def test_counts_that_cannot_be(table, tmp_path, fake_llm):
    with pytest.raises(DataError, match=r"commit_every is 0; write 1 or more"):
        KnowledgeExtractor(fake_llm(), commit_every=0)
    with pytest.raises(DataError, match=r"limit is -1; write how many users"):
        KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "store", limit=-1)
    assert not (tmp_path / "store").exists()
