"""Stores that cannot be merged: nothing is guessed, and the joined store is as it was."""

import pytest
from looking import rows

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIdentityError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.merge import merge
from msr_enhance.store.writer import StoreWriter


def test_an_id_in_two_stores_is_refused(part, tmp_path, provenance):
    parts = [part(0, range(20)), part(1, range(8, 30))]
    with pytest.raises(StoreError, match=r"12 ids of .*part-1 .*: user 8, .*user 17, …\..*no id in common"):
        merge(parts, tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()
    with pytest.raises(StoreError, match="2 ids"):
        merge([part(2, [50, 51]), part(3, [50, 51])], tmp_path / "other")


def test_a_store_that_grew_since_it_was_merged_is_refused(part, tmp_path, provenance, record):
    parts = [part(0, [1]), part(1, [2])]
    before = merge(parts, tmp_path / "out").fingerprint
    StoreWriter.open(parts[1], provenance).append("user", [record(3)])
    with pytest.raises(StoreError, match=r"1 ids of .*part-1.*: user 2\..*into a new folder"):
        merge(parts, tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").fingerprint == before
    assert rows(merge(parts, tmp_path / "new").path).keys() == {1, 2, 3}


def test_other_rows_for_the_same_ids_are_refused(part, tmp_path, provenance, record):
    source = part(1, [])
    writer = StoreWriter.open(source, provenance)
    writer.append("user", [record(1), record(2, "failed")])
    merge([source], tmp_path / "out")
    writer.drop("user", [2])
    writer.append("user", [record(2)])
    with pytest.raises(StoreError, match=r"other rows for 1 ids .*user 2 \(failed there, ok now\)"):
        merge([source], tmp_path / "out")


def test_stores_of_another_identity_or_window_are_refused_by_field(part, tmp_path):
    here = part(0, [1])
    for number, changes, says in (
        (1, {"identity": {"model": {"id": "large"}}}, r"identity\.model\.id: 'tiny' .*'large' now"),
        (2, {"window": {"protocol": "paper"}}, r"window\.protocol"),
    ):
        with pytest.raises(StoreIdentityError, match=says):
            merge([here, part(number, [2], **changes)], tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()
    assert rows(merge([tmp_path / "part-2"], tmp_path / "out").path).keys() == {2}, "it held nothing"


@pytest.mark.parametrize(
    ("dtype", "row", "says"),
    [
        ("float16", {}, r"dtype: float32 in .*float16 in .*part"),
        ("float32", {"dim": 4}, r"shape of user: \(3,\) in .*\(4,\) in"),
        ("float32", {"dim": (1, 3)}, r"shape of user: \(3,\) in .*\(1, 3\) in"),
        ("float32", {"name": "2"}, "id type of user: int in .*str in"),
    ],
)
def test_rows_of_another_kind_are_refused(part, tmp_path, provenance, record, dtype, row, says):
    writer = StoreWriter.open(tmp_path / "part-x", provenance, dtype)
    writer.append("user", [record(**{"name": 2, **row})])
    with pytest.raises(StoreError, match=says):
        merge([part(0, [1]), writer.path], tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()


@pytest.mark.parametrize("kind", ["vec", "txt"])
def test_a_damaged_source_is_refused(part, tmp_path, kind):
    parts = [part(0, [1]), part(1, [2])]
    path = next(parts[1].glob(f"{kind}-*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreCorruptError):
        merge(parts, tmp_path / "out")
    assert KnowledgeStore.load(tmp_path / "out").levels == ()


def test_no_source_and_no_store(part, tmp_path):
    with pytest.raises(StoreError, match="no store was given"):
        merge([], tmp_path / "out")
    with pytest.raises(StoreError, match="is not a folder"):
        merge([part(0, [1]), tmp_path / "gone"], tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        merge([tmp_path / "part-0"], tmp_path / "full")
