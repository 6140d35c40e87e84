"""Indexes that somebody else made: whatever they say, no row is given out under another id."""

import numpy as np
import pytest
from forge import crc_beside, framed, newest, placed, rewritten, tensors_of

from msr_enhance.errors import StoreCorruptError, UnknownIdError
from msr_enhance.store import index as index_module
from msr_enhance.store.checks import pack
from msr_enhance.store.entry import Index
from msr_enhance.store.index import ROW_BITS
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def indexed(tmp_path, provenance, record, monkeypatch):
    """A store of 40 users of which an index says where they lie, and three that came later."""
    monkeypatch.setattr("msr_enhance.store.seal.FULL", 24)
    monkeypatch.setattr(index_module, "BLOCK", 8)
    with StoreWriter.open(tmp_path / "store", provenance) as writer:
        writer.append("user", [record(number) for number in range(20)])
        writer.append("user", [record(number) for number in range(20, 40)])
        writer.append("user", [record(number) for number in range(40, 43)])
    assert latest_manifest(writer.path)[0].index["user"].rows == 40
    return writer.path


def forged(folder, edit):
    """Change the tensors of the store's index; all checksums fit afterwards."""
    manifest = latest_manifest(folder)[0]
    old = manifest.index["user"]
    tensors, _ = tensors_of((folder / old.file.name).read_bytes())
    edit(tensors)
    blocks = [tensors["rows"][start : start + 8].tobytes() for start in range(0, len(tensors["rows"]), 8)]
    crcs = pack([index_module.crc32(block) for block in blocks])
    tensors["crcs"] = np.frombuffer(crcs, np.uint8).reshape(-1, 4)
    data = framed(tensors)
    index = Index(
        entries=old.entries,
        covers=old.covers,
        rows=len(tensors["rows"]),
        heads=crc_beside(data, "rows"),
        file=placed(folder, "idx", data),
    )
    rewritten(folder, lambda content: content["index"].update(user=index.model_dump(mode="json")))
    return KnowledgeStore.load(folder, verify=True)


def test_an_index_that_nobody_changed_is_the_same_after_forging(indexed):
    before = newest(indexed).read_bytes()
    assert forged(indexed, lambda tensors: None).count("user") == 43
    assert newest(indexed).read_bytes() == before


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (99 << ROW_BITS, "the index of user names shard 99"),
        (((1 << 31) - 1) << ROW_BITS, "the index of user names shard 2,147,483,647"),
        (20, "the index names row 20 of 20"),
        ((1 << ROW_BITS) - 1, "the index names row 4,294,967,295 of 20"),
        (1, r"the checksum of 1 rows does not fit"),
        ((1 << ROW_BITS) + 0, r"the checksum of 1 rows does not fit"),
        (1 << 63, r"idx-.*it names place 9,223,372,036,854,775,808"),
        ((1 << 64) - 1, r"idx-.*it names place 18,446,744,073,709,551,615"),
    ],
)
def test_a_place_that_is_not_of_the_row_is_refused(indexed, place, says):
    def edit(tensors):
        tensors["rows"][0, 1] = place

    store = forged(indexed, edit)
    for read in (store.record, store.text, lambda level, name: store.vectors(level, [5, name, 41])):
        with pytest.raises(StoreCorruptError, match=says):
            read("user", 0)
    assert store.vectors("user", [5, 41]).any()


def test_a_place_of_a_tombstone_is_refused(indexed, provenance):
    with StoreWriter.open(indexed, provenance) as writer:
        writer.drop("user", [41])

    def edit(tensors):
        tensors["rows"][0, 1] = 3 << ROW_BITS

    with pytest.raises(StoreCorruptError, match="the index of user names shard 3"):
        forged(indexed, edit).vectors("user", [0])


def test_blocks_that_are_not_in_order_are_refused(indexed):
    def turned(tensors):
        tensors["fences"][:] = tensors["fences"][::-1].copy()

    with pytest.raises(StoreCorruptError, match=r"idx-.*its blocks are not in order"):
        forged(indexed, turned)


@pytest.mark.parametrize("seed", range(20))
def test_keys_in_any_order_give_the_right_row_or_none(indexed, record, seed):
    draw = np.random.default_rng(seed)

    def edit(tensors):
        draw.shuffle(tensors["rows"])
        if seed % 2:
            tensors["rows"][:, 0] = draw.permutation(tensors["rows"][:, 0])
        tensors["fences"][:] = np.sort(tensors["rows"][::8, 0])

    store = forged(indexed, edit)
    for name in range(43):
        try:
            assert (store.vectors("user", [name])[0] == record(name).vector).all()
        except (UnknownIdError, StoreCorruptError):
            assert name < 40
    for ids in (range(40), range(39, -1, -1)):
        try:
            assert (store.vectors("user", ids) == [record(name).vector for name in ids]).all()
        except (UnknownIdError, StoreCorruptError):
            continue
