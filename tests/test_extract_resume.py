"""A store is continued where a run ended, and never by a run that would answer otherwise."""

from __future__ import annotations

import re

import pytest

from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import StoreIdentityError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.templates import Templates
from msr_enhance.store.knowledge import KnowledgeStore

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


def test_an_interrupted_run_goes_on_and_ends_the_same(table, tmp_path, fake_llm):
    whole = KnowledgeExtractor(fake_llm(), commit_every=4).extract(table, tmp_path / "whole")
    broken = fake_llm(breaks_after=15)
    with pytest.raises(RuntimeError, match="went away"):
        KnowledgeExtractor(broken, commit_every=4).extract(table, tmp_path / "store")
    kept = KnowledgeStore.load(tmp_path / "store")
    assert 0 < len(kept.ids("user")) < len(table.user_ids)
    again = fake_llm()
    store = KnowledgeExtractor(again, commit_every=7).extract(table, tmp_path / "store")
    for level in ("scenario", "user"):
        assert store.ids(level) == whole.ids(level)
        ids = store.ids(level)
        assert store.vectors(level, ids).tobytes() == whole.vectors(level, ids).tobytes()
        assert [store.text(level, name) for name in ids] == [whole.text(level, name) for name in ids]
    assert not set(map(str, again.asked)) & {kept.record("user", name).prompt for name in kept.ids("user")}
    assert len(again.asked) == len(table.user_ids) - len(kept.ids("user"))
    third = fake_llm()
    KnowledgeExtractor(third).extract(table, tmp_path / "store")
    assert third.asked == [], "a finished store asks nothing"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"templates": Templates.named("paper")}, "templates"),
        ({"history": 3}, "history"),
        ({"platform": Platform.model_validate(HARBOUR)}, "platform"),
        ({"llm": "other"}, "llm.model"),
        ({"cutoff": 150}, "cutoffs"),
        ({"kind": "user"}, "split"),
        ({"protocol": "paper"}, "protocol"),
        ({"seed": 1}, "seen_rows"),
    ],
)
def test_a_store_of_another_identity_is_refused(titled_log, tmp_path, fake_llm, change, field):
    table = InteractionTable.from_arrays(titled_log())
    split = split_table(table, "scenario")
    KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "store", split=split)
    before = KnowledgeStore.load(tmp_path / "store").fingerprint
    if "seed" in change:
        table = InteractionTable.from_arrays(titled_log(seed=1))
    kind, protocol = change.get("kind", "scenario"), change.get("protocol", "window")
    split = split_table(table, kind, protocol, cutoff=change.get("cutoff"))
    llm = fake_llm(change.get("llm", "fake"))
    options = {name: change[name] for name in ("templates", "history", "platform") if name in change}
    with pytest.raises(StoreIdentityError, match=rf"(?s){re.escape(field)}.*in the store.*now.*new folder"):
        KnowledgeExtractor(llm, **options).extract(table, tmp_path / "store", split=split)
    assert llm.asked == []
    assert KnowledgeStore.load(tmp_path / "store").fingerprint == before


@pytest.mark.parametrize("column", ["title", "category"])
def test_other_item_texts_are_another_identity(titled_log, tmp_path, fake_llm, column):
    """Titles are in the prompts, so a store half of old and half of new titles must not come about."""
    log = titled_log()
    table = InteractionTable.from_arrays(log)
    KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "store", limit=5)
    renamed = InteractionTable.from_arrays({**log, column: [f"new {name}" for name in log[column]]})
    with pytest.raises(StoreIdentityError):
        KnowledgeExtractor(fake_llm()).extract(renamed, tmp_path / "store")


def test_a_limit_takes_the_first_users_and_can_be_lifted(table, tmp_path, fake_llm):
    store = KnowledgeExtractor(fake_llm()).extract(table, tmp_path / "store", limit=5)
    assert store.ids("user") == table.user_ids[:5]
    assert store.ids("scenario") == list(table.scenarios)
    llm = fake_llm()
    whole = KnowledgeExtractor(llm).extract(table, tmp_path / "store", limit=10_000)
    assert whole.ids("user") == table.user_ids
    assert len(llm.asked) == len(table.user_ids) - 5
