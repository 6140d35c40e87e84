"""Ids that stand in a store as keyed hashes: found with the key, and with nothing else."""

import pickle

import pytest
from forge import rewritten

from msr_enhance.errors import StoreError, UnknownIdError
from msr_enhance.store.keyed import key_beside, key_check, keyed_id, read_key
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter

KEY, OTHER = bytes(range(32)), bytes(32)


def test_equal_ids_have_equal_hashes_and_no_others_do():
    ids = [7, "7", -7, 8, "8", "", "s7", "user_7", 2**63 - 1, -(2**63), "é", "e\u0301"]
    found = {keyed_id(key, name) for key in (KEY, OTHER) for name in ids}
    assert len(found | {key_check(KEY), key_check(OTHER)}) == 2 * len(ids) + 2
    assert {len(each) for each in found} == {32}
    assert keyed_id(KEY, 7) == keyed_id(bytes(range(32)), 7)


@pytest.fixture(params=["int", "str"])
def shared(request, tmp_path, provenance, record):
    """A store of three users whose ids are hashed, and what they were."""
    ids = [7, -1, 2**63 - 1] if request.param == "int" else ["7", "ü", "Toys"]
    with StoreWriter.open(tmp_path / "shared", provenance) as writer:
        writer.append("user", [record(keyed_id(KEY, name), text=str(name)) for name in ids])
        writer.append("scenario", [record("feed")])
    keyed = {"user": {"id_type": request.param, "check": key_check(KEY)}}
    return rewritten(writer.path, lambda content: content.update(keyed=keyed)), ids


def test_the_right_key_finds_the_rows(shared, record):
    folder, ids = shared
    store = KnowledgeStore.load(folder, key=KEY)
    assert (store.vectors("user", ids) == [record(keyed_id(KEY, name)).vector for name in ids]).all()
    assert [store.text("user", name) for name in ids] == list(map(str, ids))
    assert store.ids("user") == [keyed_id(KEY, name) for name in ids], "what is not there cannot be told"
    assert store.vectors("scenario", ["feed"]).any(), "of a level whose ids stand as they are"
    stranger = 12 if isinstance(ids[0], int) else "12"
    with pytest.raises(UnknownIdError, match=rf"1 user ids .*: {stranger!r}\."):
        store.vectors("user", [stranger, ids[0]])
    for again in (store.newest(), pickle.loads(pickle.dumps(store))):
        assert (again.vectors("user", ids) == store.vectors("user", ids)).all()


def test_ids_of_another_type_are_refused_with_the_type_that_was_hashed(shared):
    folder, ids = shared
    kind, other = ("int", "7") if isinstance(ids[0], int) else ("str", 7)
    store = KnowledgeStore.load(folder, key=KEY)
    for wrong in (other, 7.0, True, None):
        with pytest.raises(UnknownIdError, match=rf"are {kind}\. Write {kind}\(id\)"):
            store.vectors("user", [ids[0], wrong], unknown="zero")
    if kind == "int":
        with pytest.raises(UnknownIdError, match="outside 64 bits"):
            store.vectors("user", [2**63])


@pytest.mark.parametrize("key", [OTHER, b"", b"short", bytes(65), bytes(10_000)], ids=range(5))
def test_a_wrong_key_is_refused_at_opening(shared, key):
    says = "is of another key; write the key that it was pushed with" if len(key) == 32 else "is 32 bytes"
    with pytest.raises(StoreError, match=says):
        KnowledgeStore.load(shared[0], key=key)


def test_without_a_key_only_the_hashes_are_known(shared):
    folder, ids = shared
    store = KnowledgeStore.load(folder)
    assert store.vectors("user", [keyed_id(KEY, name) for name in ids]).any()
    with pytest.raises(UnknownIdError, match=r"'7'.*Its ids are keyed hashes: give the key .*key="):
        store.vectors("user", ["7"])
    with pytest.raises(UnknownIdError, match=r"are str\. Write str\(id\)"):
        store.vectors("user", [7])


def test_a_key_for_a_store_without_keyed_ids_is_refused(folder):
    with pytest.raises(StoreError, match="has no keyed ids"):
        KnowledgeStore.load(folder, key=KEY)


def test_rows_cannot_be_added_to_a_store_with_keyed_ids(shared, provenance, record):
    with (
        StoreWriter.open(shared[0], provenance) as writer,
        pytest.raises(StoreError, match=r"keyed ids.* takes no rows"),
    ):
        writer.append("user", [record("a")])


def test_a_key_is_made_once_and_read_by_its_owner_alone(tmp_path):
    path = tmp_path / "deep" / "key"
    key = key_beside(path)
    assert len(key) == 32
    assert key_beside(path) == read_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_beside(tmp_path / "another") != key


@pytest.mark.parametrize("content", [b"", b"ab", b"zz" * 32, b"ab" * 31, b"ab" * 33, b"\xff" * 32, None])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    path = tmp_path / "key"
    path.mkdir() if content is None else path.write_bytes(content)
    for read in (read_key, key_beside):
        with pytest.raises(StoreError, match=r"key holds .*64 hex digits"):
            read(path)
