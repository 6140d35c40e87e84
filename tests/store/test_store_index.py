"""The index: where the row of each id lies, like a dictionary says it, and nowhere else."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_enhance.errors import StoreCorruptError
from msr_enhance.store import index as index_module
from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import BLOCK, ROW_BITS, LevelIndex, keys_of, write_index
from msr_enhance.store.record import Layout
from msr_enhance.store.seal import bury
from msr_enhance.store.shard import Heads, write_vectors

INTS = Layout("user", 1, "int8", "int")
TEXTS = Layout("user", 1, "int8", "str")
EDGES = [-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 2, 2**63 - 1]


def shard(folder, layout, ids):
    heads = Heads(list(ids), np.zeros(len(ids), np.uint8), np.zeros((len(ids), 2), np.int32))
    file, crc = write_vectors(folder, layout, heads, [np.zeros((len(ids), 1), np.int8)])
    return Shard(level="user", rows=len(ids), vectors=file, heads=crc, texts=None)


def played(folder, layout, steps):
    """Entries of some steps, ids that are added or dropped, and where a dictionary says they lie."""
    entries, truth = [], {}
    for number, (adds, ids) in enumerate(steps):
        entries.append(shard(folder, layout, ids) if adds else bury(folder, layout, ids))
        for row, name in enumerate(ids):
            if adds:
                truth[name] = (number << ROW_BITS) + row
            else:
                truth.pop(name, None)
    return entries, truth


def assert_holds(folder, layout, index, truth, strangers=()):
    """The index finds all ids of a dictionary, together, in portions, one by one, and no others."""
    reader, ids = LevelIndex(StoreFiles(folder, 1), layout, index), list(truth)
    wanted = list(truth.values())
    assert index.rows == len(truth)
    assert reader.find(keys_of(layout.id_type, ids)).tolist() == wanted
    assert reader.find(keys_of(layout.id_type, ids[::-1] * 2)).tolist() == wanted[::-1] * 2
    others = [name for name in strangers if name not in truth]
    mixed = [name for pair in zip(ids, others, strict=False) for name in pair]
    assert reader.find(keys_of(layout.id_type, mixed)).tolist() == [truth.get(name, -1) for name in mixed]
    for name in [*ids[:20], *others[:20]]:
        assert reader.find(keys_of(layout.id_type, [name])).tolist() == [truth.get(name, -1)]
    everything = reader.everything()
    assert everything[:, -1].astype(np.int64).tolist() == [
        place for _, place in sorted(zip(keys_of(layout.id_type, ids).tolist(), wanted, strict=True))
    ]


def steps_of(ids):
    """Ids that are added and dropped, in a few steps; the same id may be added again after a drop."""
    step = st.tuples(st.booleans(), st.lists(ids, min_size=1, max_size=12, unique=True))
    return st.lists(step, min_size=1, max_size=6).map(_possible)


def _possible(steps):
    held, found = set(), [(True, [steps[0][1][0]])]
    held.update(found[0][1])
    for adds, ids in steps:
        some = [name for name in ids if (name in held) != adds]
        if some:
            found.append((adds, some))
            held = held | set(some) if adds else held - set(some)
    return found


@settings(deadline=None, max_examples=60)
@given(
    steps=steps_of(st.integers(-(2**63), 2**63 - 1) | st.sampled_from(EDGES) | st.integers(-9, 9)),
    block=st.sampled_from([1, 2, 3, 256]),
    cut=st.integers(1, 6),
)
def test_integers_are_found_as_in_a_dictionary(steps, block, cut):
    check(INTS, steps, block, cut, strangers=[*EDGES, *range(-12, 12)])


@settings(deadline=None, max_examples=60)
@given(
    steps=steps_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.sampled_from("abcdef")),
    block_alike=st.sampled_from([(1, 0), (2, 4), (3, 0), (3, 6), (256, 7), (256, 8)]),
    cut=st.integers(1, 6),
)
def test_texts_are_found_as_in_a_dictionary(steps, block_alike, cut):
    """Also where the first 64 bits of their digests are the same, as many as a block holds."""
    block, alike = block_alike
    real = hashlib.blake2b

    class Alike:
        def __init__(self, data, digest_size):
            self.data, self.size = data, digest_size

        def digest(self):
            found = real(self.data, digest_size=self.size).digest()
            return b"\x80" * alike + found[alike:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module.hashlib, "blake2b", Alike)
        check(TEXTS, steps, block, cut, strangers=["", "a", "b", "c", "z", "ß", "😀", "aa", "ab"])


def check(layout, steps, block, cut, strangers):
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "BLOCK", block)
        patch.setattr(os, "fsync", lambda descriptor: None)
        folder = Path(place)
        entries, truth = played(folder, layout, steps)
        files = StoreFiles(folder, 1)
        whole = write_index(files, layout, entries)
        assert_holds(folder, layout, whole, truth, strangers)
        old = write_index(files, layout, entries[:cut])
        assert write_index(files, layout, entries, old) == whole, "the same file, byte for byte"


@pytest.mark.parametrize("layout", [INTS, TEXTS], ids=["int", "str"])
@pytest.mark.parametrize("block", [1, BLOCK])
def test_many_blocks_with_tombstones(tmp_path, layout, block, monkeypatch):
    """More blocks than a lookup reads at once."""
    monkeypatch.setattr(index_module, "BLOCK", block)
    draw = np.random.default_rng(0)
    ids = np.unique(draw.integers(-(2**63), 2**63 - 1, 6000)).tolist()
    draw.shuffle(ids)
    if layout is TEXTS:
        ids = [f"user {name}" for name in ids]
    count = len(ids) // 2
    steps = [(True, ids[:count]), (False, ids[:700]), (True, ids[count:]), (True, ids[100:300])]
    entries, truth = played(tmp_path, layout, steps)
    index = write_index(StoreFiles(tmp_path, 1), layout, entries)
    assert_holds(tmp_path, layout, index, truth, strangers=ids[:700])
    assert len(truth) > 4096


@pytest.mark.parametrize("before", [0, 1, 2, 3, 4])
def test_two_texts_alike_are_told_apart_where_a_block_ends(tmp_path, before, monkeypatch):
    """Their first 64 bits are equal; one may be the last of a block, the other the first of the next."""

    class Chosen:
        def __init__(self, data, digest_size):
            first, _, rest = data.decode().partition(".")
            self.found = int(first).to_bytes(8, "big") + int(rest).to_bytes(8, "big")

        def digest(self):
            return self.found

    monkeypatch.setattr(index_module.hashlib, "blake2b", Chosen)
    monkeypatch.setattr(index_module, "BLOCK", 2)
    ids = [*(f"{name}.0" for name in range(before)), "7.0", "7.1", "8.0", "8.1", "9.0"]
    entries, truth = played(tmp_path, TEXTS, [(True, ids[::-1])])
    index = write_index(StoreFiles(tmp_path, 1), TEXTS, entries)
    assert_holds(tmp_path, TEXTS, index, truth, strangers=["7.2", "6.0", "8.9", "10.0"])


def test_an_index_of_which_every_id_was_dropped(tmp_path):
    files = StoreFiles(tmp_path, 1)
    entries, _ = played(tmp_path, INTS, [(True, [1, 2]), (False, [1, 2]), (True, [2, 3])])
    empty = write_index(files, INTS, entries[:2])
    assert_holds(tmp_path, INTS, empty, {}, strangers=[1, 2])
    assert write_index(files, INTS, entries, empty) == write_index(files, INTS, entries)


def test_a_lookup_reads_the_blocks_it_needs_and_no_others(tmp_path, monkeypatch):
    entries, truth = played(tmp_path, INTS, [(True, range(100 * BLOCK))])
    index = write_index(StoreFiles(tmp_path, 1), INTS, entries)
    reader, sizes, real = LevelIndex(StoreFiles(tmp_path, 1), INTS, index), [], index_module.OpenFile.read

    def noted(opened, start, end):
        sizes.append(end - start)
        return real(opened, start, end)

    monkeypatch.setattr(index_module.OpenFile, "read", noted)
    assert reader.find(keys_of("int", [7 * BLOCK + 5, 50])).tolist() == [truth[7 * BLOCK + 5], truth[50]]
    assert sizes == [16 * BLOCK, 16 * BLOCK]


def test_every_damaged_block_is_found_and_the_others_serve(tmp_path):
    entries, truth = played(tmp_path, INTS, [(True, range(3 * BLOCK))])
    files = StoreFiles(tmp_path, 1)
    index = write_index(files, INTS, entries)
    path = files.path(index.file)
    good = path.read_bytes()
    for block in range(3):
        bad = bytearray(good)
        bad[len(good) - (3 - block) * 16 * BLOCK + 40] ^= 4
        path.write_bytes(bad)
        reader = LevelIndex(files, INTS, index)
        for other in range(3):
            name = other * BLOCK + 99
            if other == block:
                with pytest.raises(StoreCorruptError, match=rf"idx-.* the checksum of block {block} "):
                    reader.find(keys_of("int", [name]))
            else:
                assert reader.find(keys_of("int", [name])).tolist() == [truth[name]]
        with pytest.raises(StoreCorruptError, match="checksum of block"):
            reader.everything()
