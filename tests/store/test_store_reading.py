"""Looking up rows: like in a dictionary, from anywhere, with an index and without."""

import multiprocessing
import os
import pickle
import random
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from forge import rewritten
from looking import digest, rows

from msr_enhance.errors import StoreCorruptError, StoreError, UnknownIdError
from msr_enhance.store import index, level
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def played(path, provenance, record, name, seed):
    """Random appends and drops, the writer closed now and then; yields what should be there."""
    draw, truth = random.Random(seed), {}
    writer, made = StoreWriter.open(path, provenance), 0
    for step in range(40):
        if truth and draw.random() < 0.35:
            gone = draw.sample(list(truth), draw.randint(1, min(len(truth), draw.choice([1, 5, 40]))))
            writer.drop("user", gone)
            for each in gone:
                del truth[each]
        else:
            back = [each for each in map(name, range(made)) if each not in truth and draw.random() < 0.3]
            count = draw.choice([1, 3, 10, 26])
            new = [*back[:count], *(name(number) for number in range(made, made + count))]
            made += count
            made_rows = [record(each, dim=2, text=str(step)) for each in new]
            writer.append("user", made_rows)
            truth.update(zip(new, made_rows, strict=True))
        if draw.random() < 0.3:
            writer.close()
            writer = StoreWriter.open(path, provenance)
        yield truth, [name(number) for number in range(made + 3)]
    writer.close()
    yield truth, [name(number) for number in range(made + 3)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "name",
    [lambda number: (number * 7919) % 4001 - 2000, lambda number: f"user é {number}"],
    ids=["int", "str"],
)
def test_any_appends_and_drops_are_looked_up_like_in_a_dictionary(
    tmp_path, provenance, record, small, no_grace, monkeypatch, name, seed
):
    monkeypatch.setattr(index, "BLOCK", 4)
    draw, indexed = random.Random(seed), 0
    for truth, names in played(tmp_path / "store", provenance, record, name, seed):
        if not truth:
            continue
        store = KnowledgeStore.load(tmp_path / "store", unknown="zero")
        asked = draw.choices(names, k=50)
        zeros = np.zeros(2, np.float32)
        expected = [truth[each].vector if each in truth else zeros for each in asked]
        np.testing.assert_array_equal(store.vectors("user", asked), expected)
        unknown = sum(each not in truth for each in asked)
        assert store.lookups == (50, unknown)
        assert (store.count("user"), store.ids("user")) == (len(truth), list(truth))
        one = draw.choice(list(truth))
        assert store.record("user", one).text == truth[one].text
        indexed += bool(latest_manifest(store.path)[0].index)
    assert indexed > 20
    with_index = rows(store.path)
    assert list(with_index) == list(truth)
    assert latest_manifest(store.path)[0].index
    bare = KnowledgeStore.load(rewritten(store.path, lambda content: content.update(index={})))
    np.testing.assert_array_equal(bare.vectors("user", names, unknown="zero"), store.vectors("user", names))
    assert rows(store.path) == with_index


def test_only_shards_without_an_index_are_read_at_opening(tmp_path, provenance, record, small, monkeypatch):
    with StoreWriter.open(tmp_path, provenance) as writer:
        writer.append("user", [record(number) for number in range(30)])
        writer.append("user", [record(30)])
    read, real = [], level.read_heads
    monkeypatch.setattr(
        level, "read_heads", lambda opened, *more: (read.append(more[1]), real(opened, *more))[1]
    )
    store = KnowledgeStore.load(tmp_path)
    assert store.count("user") == 31
    assert store.vectors("user", [3, 30]).any()
    assert read == [1]
    assert len(store.ids("user")) == 31
    assert read == [1, 30, 1]


def test_the_same_id_many_times_is_the_same_row(folder, record):
    store = KnowledgeStore.load(folder)
    asked = [7, 1, 7, 7, -3, 1, 0, 7]
    np.testing.assert_array_equal(
        store.vectors("user", asked), [store.vectors("user", [n])[0] for n in asked]
    )
    assert store.lookups == (16, 0)


def test_lookups_are_counted_also_when_they_are_refused(folder):
    store = KnowledgeStore.load(folder)
    with pytest.raises(UnknownIdError):
        store.vectors("user", [7, 100, 100])
    assert store.lookups == (3, 2)
    store.vectors("user", [100, 7], unknown="zero")
    store.vectors("scenario", ["Toys"])
    assert (store.lookups.asked, store.lookups.unknown) == (6, 3)
    with pytest.raises(UnknownIdError):
        store.vectors("user", ["7"])
    store.record("user", 7)
    assert store.lookups == (6, 3), "texts are for people, and another type is another question"
    assert KnowledgeStore.load(folder).lookups == (0, 0)


def test_the_policy_of_a_store_holds_until_a_call_says_otherwise(folder):
    store = KnowledgeStore.load(folder, unknown="zero")
    assert not store.vectors("user", [100]).any()
    with pytest.raises(UnknownIdError, match="1 user ids"):
        store.vectors("user", [100], unknown="error")
    with pytest.raises(UnknownIdError, match="1 user ids"):
        store.record("user", 100)
    with pytest.raises(StoreError, match=r"unknown 'zeros' .*allowed: 'zero', 'error'"):
        KnowledgeStore.load(folder, unknown="zeros")


@pytest.mark.parametrize("ids", [[2**63], [-(2**63) - 1, 7], [10**30]])
@pytest.mark.parametrize("unknown", ["error", "zero"])
def test_ids_that_no_store_can_hold_are_refused(folder, ids, unknown):
    with pytest.raises(UnknownIdError, match="outside 64 bits"):
        KnowledgeStore.load(folder).vectors("user", ids, unknown=unknown)


def test_the_newest_version_is_this_one_until_there_is_a_newer(folder, provenance, record):
    store = KnowledgeStore.load(folder, unknown="zero")
    assert store.newest() is store
    with StoreWriter.open(folder, provenance) as writer:
        writer.append("user", [record(5)])
    newer = store.newest()
    assert newer.version == store.version + 1
    assert newer.vectors("user", [5, 100]).any(), "and the policy stays"
    assert not store.vectors("user", [5]).any(), "requests that are under way end on the old one"
    assert newer.newest() is newer
    (folder / f"manifest-{newer.version}.json").write_bytes(b"{}")
    for one in (newer, store):
        with pytest.raises(StoreCorruptError):
            one.newest()


@pytest.fixture
def many(tmp_path, provenance, record, small):
    with StoreWriter.open(tmp_path / "many", provenance) as writer:
        for start in range(0, 100, 10):
            writer.append("user", [record(number) for number in range(start, start + 10)])
    return KnowledgeStore.load(writer.path)


IDS = [*range(99, -1, -3), *range(50), 7, 7]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_read_the_same_bytes(many, method):
    expected = digest(many, "user", IDS)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        found = [pool.submit(digest, many, "user", IDS) for _ in range(4)]
        assert {each.result(60) for each in found} == {expected}
    assert digest(many, "user", IDS) == expected


def test_a_child_that_was_forked_reads_beside_its_parent(many):
    expected = digest(many, "user", IDS)
    children = []
    for _ in range(3):
        if not (child := os.fork()):
            os._exit(0 if all(digest(many, "user", IDS) == expected for _ in range(30)) else 1)
        children.append(child)
    assert all(digest(many, "user", IDS) == expected for _ in range(30))
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]


def test_eight_threads_read_the_same_bytes(many):
    expected, together = digest(many, "user", IDS), threading.Barrier(8)
    fresh = KnowledgeStore.load(many.path)

    def read(_):
        together.wait()
        return {digest(fresh, "user", IDS) for _ in range(20)} | {str(fresh.ids("user"))}

    with ThreadPoolExecutor(8) as pool:
        assert {each for found in pool.map(read, range(8)) for each in found} == {
            expected,
            str(list(range(100))),
        }
    assert fresh.lookups == (8 * 20 * len(IDS), 0)


def test_a_store_travels_as_a_few_bytes_and_with_its_policy(many):
    store = KnowledgeStore.load(many.path, unknown="zero")
    sent = pickle.dumps(store)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert (again.fingerprint, again.path, again.lookups) == (store.fingerprint, store.path, (0, 0))
    assert not again.vectors("user", [1000]).any()


def test_who_comes_late_is_told_to_open_again(many, provenance, record, no_grace):
    sent = pickle.dumps(many)
    with StoreWriter.open(many.path, provenance) as writer:
        writer.append("user", [record(500)])
        assert pickle.loads(sent).ids("user") == list(range(100)), "the version before is still there"
        for number in range(501, 540):
            writer.append("user", [record(number)])
    with pytest.raises(StoreError, match="has changed since it was opened elsewhere; open it again") as told:
        pickle.loads(sent)
    assert not isinstance(told.value, StoreCorruptError)
    with pytest.raises(
        StoreError, match=r"version \d+ of the store was read, and newer ones .*Load the store"
    ):
        many.vectors("user", range(100))
    assert many.newest().vectors("user", range(100)).any()
