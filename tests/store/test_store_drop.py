"""Rows that are dropped: gone for readers at once, and free to be written again."""

import hashlib
import json

import numpy as np
import pytest

from msr_enhance.errors import StoreError, StoreIdentityError, UnknownIdError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def writer(folder, provenance):
    return StoreWriter.open(folder, provenance)


def reopened(writer, provenance):
    writer.close()
    return StoreWriter.open(writer.path, provenance)


def everything(path, level="user"):
    """What a reader sees of a level, row by row."""
    store = KnowledgeStore.load(path)
    if level not in store.levels:
        return []
    rows = [store.record(level, name) for name in store.ids(level)]
    np.testing.assert_array_equal(store.vectors(level, store.ids(level)), [row.vector for row in rows])
    assert [row.status for row in rows] == store.statuses(level)
    return [(row.id, row.status, row.prompt, row.text, row.vector.tolist()) for row in rows]


def test_readers_do_not_see_dropped_rows(writer, folder):
    before = everything(folder)
    writer.drop("user", [2**63 - 1, 7])
    assert everything(folder) == [row for row in before if row[0] not in (7, 2**63 - 1)]
    store = KnowledgeStore.load(folder)
    assert store.known("user") == [1]
    assert "user=[3, 3]" in repr(store)
    for ask in (store.record, store.text, lambda level, name: store.vectors(level, [name])):
        with pytest.raises(UnknownIdError, match=r"1 user ids .*: 7\."):
            ask("user", 7)
    assert not store.vectors("user", [7], unknown="zero").any()
    assert store.ids("scenario") == ["Toys", "Schön 😀"]


def test_a_reader_of_the_version_before_sees_them_still(writer, folder, record):
    old = KnowledgeStore.load(folder)
    writer.drop("user", [7])
    assert old.text("user", 7) == record(7).text


@pytest.mark.parametrize("reopen", [False, True])
def test_a_dropped_row_may_come_again(writer, folder, provenance, record, reopen):
    for text in ("second", "third"):
        writer.drop("user", [7])
        assert 7 not in writer.done("user")
        writer = reopened(writer, provenance) if reopen else writer
        writer.append("user", [record(7, text=text)])
        writer = reopened(writer, provenance) if reopen else writer
        assert writer.done("user") == {7, -3, 2**63 - 1, 0, 1}
        store = KnowledgeStore.load(folder)
        assert store.ids("user") == [-3, 2**63 - 1, 0, 1, 7]
        assert store.text("user", 7) == text
        assert len(everything(folder)) == 5


def test_a_level_without_rows_is_not_there(writer, folder, record):
    writer.drop("scenario", ["Toys", "Schön 😀"])
    store = KnowledgeStore.load(folder)
    assert store.levels == ("user",)
    with pytest.raises(StoreError, match=r"level 'scenario' .*allowed: 'user'"):
        store.ids("scenario")
    assert writer.statuses().keys() == {"user"}
    writer.append("scenario", [record("Toys", dim=5)])
    assert KnowledgeStore.load(folder).ids("scenario") == ["Toys"]


def test_dropped_rows_stay_away_in_copies(writer, folder, tmp_path):
    writer.drop("user", [7])
    for texts in (True, False):
        KnowledgeStore.load(folder).save(tmp_path / str(texts), texts=texts)
        assert KnowledgeStore.load(tmp_path / str(texts)).ids("user") == [-3, 2**63 - 1, 0, 1]
    KnowledgeStore.load(tmp_path / "True").save(tmp_path / "again")
    assert everything(tmp_path / "again") == everything(folder)


@pytest.mark.parametrize(
    ("level", "ids", "says"),
    [
        ("user", [7, 8, 9], r"2 user ids are not in .*: 8, 9\."),
        ("user", ["7"], r"are int\. Write int\(id\)"),
        ("scenario", [7], r"are str\. Write str\(id\)"),
        ("item", [7], "level 'item'"),
        ("user", [7.0], "cannot be an id"),
        ("user", range(100, 120), r"20 user ids .*: 100, .*109, …"),
    ],
)
def test_what_is_not_there_cannot_be_dropped(writer, folder, level, ids, says):
    before = KnowledgeStore.load(folder).fingerprint
    with pytest.raises(StoreError, match=says):
        writer.drop(level, ids)
    assert KnowledgeStore.load(folder).fingerprint == before


def test_a_second_drop_is_refused(writer):
    writer.drop("user", [7, 7])
    with pytest.raises(UnknownIdError, match="1 user ids"):
        writer.drop("user", [7])


def test_nothing_to_drop_is_no_commit(writer, folder):
    before = KnowledgeStore.load(folder).version
    writer.drop("user", [])
    assert KnowledgeStore.load(folder).version == before


def test_an_id_twice_without_a_drop_between_is_damage(writer, folder, provenance, record):
    other = StoreWriter.open(folder.parent / "other", provenance)
    other.append("user", [record(7, text="another row")])
    KnowledgeStore.load(other.path)
    for path in other.path.glob("*.safetensors"):
        (folder / path.name).write_bytes(path.read_bytes())
    (given,) = other._manifest.shards
    writer._commit(writer._manifest, {"user": [*writer._manifest.entries("user"), given]})
    writer.release()
    for look in (KnowledgeStore.load, lambda path: StoreWriter.open(path, provenance)):
        with pytest.raises(StoreError, match="hold a user id twice"):
            look(folder)


# Refreshing

OLD = {
    "llm": {"model": "tiny"},
    "templates": {"user": "x"},
    "history": 35,
    "platform": {"name": "A"},
    "scenarios": ["Toys"],
    "seen_rows": "aa",
    "seen_texts": "bb",
}
NEW = {**OLD, "history": 50, "platform": {"name": "B"}, "scenarios": [], "seen_rows": "cc", "seen_texts": "d"}


@pytest.fixture
def stale(tmp_path, record):
    writer = StoreWriter.open(tmp_path / "s", Provenance(identity=OLD, window={"cutoffs": {"Toys": 1}}))
    writer.append("user", [record(1), record(2, "empty", prompt=""), record(3), record(4, "truncated")])
    return writer.path


def test_a_refresh_may_change_what_shows_in_the_prompts(stale, record):
    newer = Provenance(identity=NEW, window={"cutoffs": {"Toys": 2}}, facts={"made": "today"})
    with pytest.raises(StoreIdentityError, match=r"(?s)identity\.history.*seen_rows.*window\.cutoffs"):
        StoreWriter.open(stale, newer)
    writer = StoreWriter.open(stale, newer, refresh=True)
    assert KnowledgeStore.load(stale).provenance.identity == OLD, "written with the next commit"
    writer.append("user", [record(5)])
    assert KnowledgeStore.load(stale).provenance == newer
    writer.release()
    assert StoreWriter.open(stale, newer).done("user") == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("ids", [[], [1, 4]])
def test_a_refresh_is_durable_before_its_first_row(stale, ids):
    newer = Provenance(identity=NEW, window={})
    StoreWriter.open(stale, newer, refresh=True).drop("user", ids)
    writer = StoreWriter.open(stale, newer)
    assert writer.done("user") == {1, 2, 3, 4}.difference(ids)
    before = KnowledgeStore.load(stale).version
    writer.drop("user", [])
    assert KnowledgeStore.load(stale).version == before, "nothing is left to write"


@pytest.mark.parametrize(
    ("identity", "dtype", "says"),
    [
        ({**NEW, "llm": {"model": "large"}}, "float32", r"identity\.llm\.model: 'tiny' .*'large' now"),
        ({**NEW, "templates": {"user": "y"}}, "float32", r"identity\.templates\.user"),
        ({**NEW, "state": "last"}, "float32", r"identity\.state: \(absent\)"),
        (NEW, "float16", "dtype: 'float32'"),
    ],
)
def test_a_refresh_never_changes_the_reader(stale, identity, dtype, says):
    with pytest.raises(StoreIdentityError, match=says) as caught:
        StoreWriter.open(stale, Provenance(identity=identity, window={}), dtype, refresh=True)
    assert "history" not in str(caught.value)


def test_prompts_are_known_by_their_digest(stale, record):
    writer = StoreWriter.open(stale, Provenance(identity=NEW, window={}), refresh=True)
    writer.drop("user", [3])
    writer.append("user", [record(3, prompt="prompt é of today")])
    prompts = {1: "prompt of 1", 2: "", 4: "prompt of 4", 3: "prompt é of today"}
    assert list(writer.prompt_digests("user")) == [
        (name, status, hashlib.blake2b(prompts[name].encode(), digest_size=16).digest())
        for name, status in ((1, "ok"), (2, "empty"), (4, "truncated"), (3, "ok"))
    ]
    assert list(writer.prompt_digests("scenario")) == []


def test_a_store_without_texts_has_no_prompts_to_compare(stale, tmp_path):
    KnowledgeStore.load(stale).save(tmp_path / "bare", texts=False)
    writer = StoreWriter.open(tmp_path / "bare", Provenance(identity=NEW, window={}), refresh=True)
    with pytest.raises(StoreError, match="saved without texts"):
        list(writer.prompt_digests("user"))


def test_the_order_of_what_is_dropped_makes_no_difference(folder, tmp_path, provenance):
    files = []
    for place, ids in (("a", ["Toys", "Schön 😀"]), ("b", ["Schön 😀", "Toys"])):
        KnowledgeStore.load(folder).save(tmp_path / place)
        StoreWriter.open(tmp_path / place, provenance).drop("scenario", ids)
        files.append([path.name for path in (tmp_path / place).glob("del-*")])
    assert files[0] == files[1]


def test_a_tombstone_holds_ids_and_nothing_else(writer, folder):
    writer.drop("user", [7])
    (path,) = folder.glob("del-*.safetensors")
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert json.loads(data[8 : 8 + size]).keys() == {"__metadata__", "ids"}
    assert data[8 + size :] == np.int64(7).tobytes()
