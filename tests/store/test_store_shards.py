"""Files whose digests are right and whose content is wrong: made by somebody else, not damaged."""

import itertools
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
from forge import crc_beside, framed, placed
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_enhance.errors import StoreCorruptError
from msr_enhance.store.checks import vector_crcs
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.frame import STORED_AS
from msr_enhance.store.numbers import KIND
from msr_enhance.store.record import Layout, Record
from msr_enhance.store.shard import (
    Heads,
    checked_frame,
    read_heads,
    read_ids,
    read_vectors,
    write_ids,
    write_vectors,
)
from msr_enhance.store.texts import (
    as_block,
    read_blocks,
    read_lengths,
    read_row,
    split,
    text_pieces,
    write_texts,
)

WORDS = Layout("user", 3, "float32", "str")
REFUSED = r"vec-\w+\.safetensors is not as it was written: .*msr-enhance store repair"


def vectors():
    """The tensors of a vector file, in the order in which they lie."""
    rows = np.array([[1, 2, 3], [0, 0, 0]], np.float32)
    return {
        "id_offsets": np.array([0, 1, 4]),
        "tokens": np.array([[1, 2], [3, 0]], np.int32),
        "vectors": rows,
        "crcs": vector_crcs(["a", "éb"], rows).view(np.uint8).reshape(2, 4),
        "status": np.array([3, 1], np.uint8),
        "id_bytes": np.frombuffer("aéb".encode(), np.uint8),
    }


def read(folder, tensors, blob=4):
    """Heads and vectors of a file of these tensors that a manifest names with checksums that fit."""
    data = framed(tensors, {"level": "user"})
    file = placed(folder, "vec", data, blob)
    with StoreFiles(folder, 1).open(file) as opened:
        crc = crc_beside(data, "vectors")
        heads = read_heads(opened, file, 2, WORDS, crc)
        frame = checked_frame(opened, file, 2, WORDS)
        return heads, read_vectors(opened, frame, heads.ids, np.arange(2))


def test_a_good_file_reads(tmp_path):
    heads, rows = read(tmp_path, vectors())
    assert heads.ids == ["a", "éb"]
    assert (heads.status.tolist(), heads.tokens.tolist()) == ([3, 1], [[1, 2], [3, 0]])
    assert (rows == vectors()["vectors"]).all()


WRONG = {
    "missing": {"status": None},
    "unexpected": {"pickle": np.zeros(1, np.float32)},
    "bits": {"vectors": np.zeros((2, 3), np.int32)},
    "half": {"vectors": np.zeros((2, 3), np.float16)},
    "width": {"vectors": np.zeros((2, 4), np.float32)},
    "rows": {"status": np.zeros(3, np.uint8)},
    "flat": {"vectors": np.zeros(6, np.float32)},
    "turned": {"vectors": np.zeros((3, 2), np.float32)},
    "tokens": {"tokens": np.zeros((2, 3), np.int32)},
    "negative tokens": {"tokens": np.full((2, 2), -1, np.int32)},
    "status": {"status": np.array([0, 4], np.uint8)},
    "start": {"id_offsets": np.array([1, 1, 4])},
    "before": {"id_offsets": np.array([0, -1, 4])},
    "end": {"id_offsets": np.array([0, 1, 3])},
    "past": {"id_offsets": np.array([0, 1, 2**62])},
    "falling": {"id_offsets": np.array([0, 5, 4])},
    "few offsets": {"id_offsets": np.array([0, 4])},
    "offset type": {"id_offsets": np.array([0, 1, 4], np.int32)},
    "utf-8": {"id_offsets": np.array([0, 2, 4])},
    "int ids": {"id_bytes": None, "id_offsets": None, "ids": np.array([1, 2])},
    "checksum of a row": {"crcs": np.zeros((2, 4), np.uint8)},
    "another id": {"id_bytes": np.frombuffer("béb".encode(), np.uint8)},
    "another vector": {"vectors": np.array([[1, 2, 4], [0, 0, 0]], np.float32)},
    "rows that changed places": {"vectors": vectors()["vectors"][::-1]},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_vector_file_is_refused(tmp_path, case):
    tensors = {name: array for name, array in (vectors() | WRONG[case]).items() if array is not None}
    with pytest.raises(StoreCorruptError, match=REFUSED):
        read(tmp_path, tensors)


@pytest.mark.parametrize("blob", [0, 3, 5, 2**62])
def test_another_number_of_letters_is_refused(tmp_path, blob):
    with pytest.raises(StoreCorruptError, match=REFUSED):
        read(tmp_path, vectors(), blob)


def test_another_level_layout_and_checksum_are_refused(tmp_path):
    data = framed(vectors(), {"level": "user"})
    file, crc = placed(tmp_path, "vec", data, 4), crc_beside(data, "vectors")
    with StoreFiles(tmp_path, 1).open(file) as opened:
        for layout, rows, sum_ in (
            (WORDS._replace(level="scenario"), 2, crc),
            (WORDS._replace(width=2**62), 2, crc),
            (WORDS._replace(dtype="int8"), 2, crc),
            (WORDS._replace(id_type="int"), 2, crc),
            (WORDS, 1, crc),
            (WORDS, 2**31, crc),
            (WORDS, 2, crc ^ 1),
        ):
            with pytest.raises(StoreCorruptError, match=REFUSED):
                read_heads(opened, file, rows, layout, sum_)


def header(content, size=None):
    text = json.dumps(content).encode()
    return struct.pack("<Q", size or len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0" * 7,
        b"\0" * 64,
        header({}, 2**63),
        header({}, 99_000_000) + b" " * 100,
        header({"vectors": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}) + b"\0\0",
        header({"vectors": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}) + b"\0" * 4,
        b"\x80\x04K\x01.",  # a pickle
        b"\0" * 4096,
    ],
    ids=range(9),
)
def test_other_bytes_are_refused(tmp_path, data):
    file = placed(tmp_path, "vec", data)
    with StoreFiles(tmp_path, 1).open(file) as opened:
        for call in (
            lambda: read_heads(opened, file, 2, WORDS, 0),
            lambda: checked_frame(opened, file, 2, WORDS),
            lambda: read_lengths(opened, file, 2),
            lambda: list(read_blocks(opened, file, 2)),
            lambda: read_row(opened, file, 2, 0),
            lambda: read_ids(data, file, 2, WORDS),
            lambda: read_ids(data, file, 2, WORDS._replace(id_type="int")),
        ):
            with pytest.raises(StoreCorruptError, match=file.name):
                call()


def texts(folder, facts=b"{}", **changes):
    """A text file of one row with two bytes of prompt and one of answer."""
    with tempfile.TemporaryDirectory() as there:
        lengths = np.array([[2, 1, len(facts)]])
        made = write_texts(Path(there), lengths, [(lengths, b"pqa" + facts)])
        data = (Path(there) / made.name).read_bytes()
    tensors = {
        "text_offsets": np.array([0, 2, 3, 3 + len(facts)]),
        "text_bytes": np.frombuffer(b"pqa" + facts, np.uint8),
        "crcs": np.frombuffer(data[-4:], np.uint8).reshape(1, 4),
    }
    assert framed(tensors) == data, "as our writer makes it"
    return placed(folder, "txt", framed(tensors | changes), 3 + len(facts))


@pytest.mark.parametrize(
    "facts", [b"[]", b"null", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a": 1}', b"\xff", b"[", b"", b"[" * 5000]
)
def test_wrong_facts_are_refused_by_row(tmp_path, facts):
    file = texts(tmp_path, facts)
    with (
        StoreFiles(tmp_path, 1).open(file) as opened,
        pytest.raises(StoreCorruptError, match=r"txt-.* row 0: .*store repair"),
    ):
        read_row(opened, file, 1, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_offsets": np.array([-1, 2, 3, 5])},
        {"text_offsets": np.array([0, 3, 2, 5])},
        {"text_offsets": np.array([0, 2, 3, 6])},
        {"text_offsets": np.array([0, 2, 3, 2**62])},
        {"text_offsets": np.array([0, 1, 3, 5])},
        {"text_offsets": np.array([0, 2, 3, 4])},
        {"text_offsets": np.array([0, 2, 5])},
        {"text_bytes": np.frombuffer(b"pqb{}", np.uint8)},
        {"text_bytes": np.frombuffer(b"pqa{}{", np.uint8)},
        {"crcs": np.zeros((1, 4), np.uint8)},
        {"crcs": np.zeros((2, 4), np.uint8)},
    ],
    ids=range(11),
)
def test_a_wrong_text_file_is_refused(tmp_path, changes):
    good, file = texts(tmp_path), texts(tmp_path, **changes)
    with StoreFiles(tmp_path, 1).open(good) as opened:
        assert read_row(opened, good, 1, 0) == ("pq", "a", {})
    with StoreFiles(tmp_path, 1).open(file) as opened:
        for call in (lambda: read_row(opened, file, 1, 0), lambda: list(read_blocks(opened, file, 1))):
            with pytest.raises(StoreCorruptError, match=r"txt-.* is not as it was written.*store repair"):
                call()


def test_texts_that_are_not_utf8_are_refused(tmp_path):
    lengths = np.array([[1, 0, 2]])
    file = write_texts(tmp_path, lengths, [(lengths, b"\xff{}")])
    with (
        StoreFiles(tmp_path, 1).open(file) as opened,
        pytest.raises(StoreCorruptError, match=r"row 0: .*utf-8"),
    ):
        read_row(opened, file, 1, 0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FACTS = st.dictionaries(
    TEXT, st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.none()
)


def as_others_read(path):
    """Tensors of a file by the library itself."""
    found = {}
    for name, tensor in safetensors.deserialize(path.read_bytes()):
        found[name] = (tensor["dtype"], tensor["shape"], bytes(tensor["data"]))
    return found


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
    | st.lists(TEXT, min_size=1, max_size=5),
    rows=st.lists(st.tuples(TEXT, TEXT, FACTS), min_size=5, max_size=5),
    dtype=st.sampled_from(list(KIND)),
    draw=st.randoms(use_true_random=False),
)
def test_any_rows_survive_and_any_reader_sees_them(ids, rows, dtype, draw):
    count = len(ids)
    records = [
        Record(name, "ok", prompt, text, facts, 3, 4, np.zeros(2, np.float32))
        for name, (prompt, text, facts) in zip(ids, rows, strict=False)
    ]
    kept = np.frombuffer(draw.randbytes(8 * count), STORED_AS[KIND[dtype]]).reshape(count, -1)
    heads = Heads(ids, np.zeros(count, np.uint8), np.full((count, 2), [3, 4], np.int32))
    layout = Layout("user", kept.shape[1], dtype, "int" if isinstance(ids[0], int) else "str")
    some = np.array(sorted(draw.sample(range(count), draw.randint(1, count))))
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        folder = Path(place)
        file, crc = write_vectors(folder, layout, heads, [kept])
        assert write_vectors(folder, layout, heads, np.array_split(kept, count)) == (file, crc)
        with StoreFiles(folder, 1).open(file) as opened:
            again = read_heads(opened, file, count, layout, crc)
            frame = checked_frame(opened, file, count, layout)
            found = read_vectors(opened, frame, [ids[row] for row in some.tolist()], some)
        assert (again.ids, again.tokens.tolist()) == (ids, [[3, 4]] * count)
        assert found.tobytes() == kept[some].tobytes()
        seen = as_others_read(folder / file.name)
        assert seen["vectors"] == (KIND[dtype], list(kept.shape), kept.tobytes())
        if layout.id_type == "int":
            assert seen["ids"] == ("I64", [count], np.array(ids).tobytes())
        else:
            ends = np.frombuffer(seen["id_offsets"][2], "<i8").tolist()
            letters = seen["id_bytes"][2]
            assert [letters[start:end].decode() for start, end in itertools.pairwise(ends)] == ids

        block = as_block(map(text_pieces, records))
        file = write_texts(folder, block[0], [block])
        pieces = [as_block([text_pieces(record)]) for record in records]
        assert write_texts(folder, block[0], pieces) == file
        with StoreFiles(folder, 1).open(file) as opened:
            for row, record in enumerate(records):
                assert read_row(opened, file, count, row) == (record.prompt, record.text, record.facts)
            blocks = list(read_blocks(opened, file, count))
            assert (read_lengths(opened, file, count) == block[0]).all()
        assert [row for each in blocks for row in split(each)] == list(map(text_pieces, records))
        assert as_others_read(folder / file.name)["text_bytes"][2] == block[1]

        file = write_ids(folder, layout, ids)
        assert read_ids((folder / file.name).read_bytes(), file, count, layout) == ids
