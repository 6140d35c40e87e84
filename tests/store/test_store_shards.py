"""Files whose digests are right and whose content is wrong: made by somebody else, not damaged."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from msr_enhance.errors import StoreCorruptError
from msr_enhance.store.record import Record
from msr_enhance.store.shard import decode_texts, decode_vectors, encode_texts, encode_vectors


def vectors():
    return {
        "id_bytes": np.frombuffer("aéb".encode(), np.uint8),
        "id_offsets": np.array([0, 1, 4]),
        "status": np.array([0, 1], np.uint8),
        "tokens": np.array([[1, 2], [3, 0]], np.int32),
        "vectors": np.array([[1, 2, 3], [0, 0, 0]], np.float32),
    }


def decode(tensors):
    return decode_vectors(safetensors.numpy.save(tensors), "vec-x", 2, 3, "float32", "str")


def test_a_good_file_reads():
    assert decode(vectors()).ids == ["a", "éb"]


WRONG = {
    "missing": {"status": None},
    "unexpected": {"pickle": np.zeros(1)},
    "dtype": {"vectors": np.zeros((2, 3))},
    "half": {"vectors": np.zeros((2, 3), np.float16)},
    "width": {"vectors": np.zeros((2, 4), np.float32)},
    "rows": {"status": np.zeros(3, np.uint8)},
    "flat": {"vectors": np.zeros(6, np.float32)},
    "tokens": {"tokens": np.zeros((2, 3), np.int32)},
    "negative tokens": {"tokens": np.full((2, 2), -1, np.int32)},
    "status": {"status": np.array([0, 3], np.uint8)},
    "nan": {"vectors": np.full((2, 3), np.nan, np.float32)},
    "not ok": {"vectors": np.ones((2, 3), np.float32)},
    "start": {"id_offsets": np.array([1, 1, 4])},
    "end": {"id_offsets": np.array([0, 1, 3])},
    "past": {"id_offsets": np.array([0, 1, 2**62])},
    "falling": {"id_offsets": np.array([0, 5, 4])},
    "few offsets": {"id_offsets": np.array([0, 4])},
    "offset type": {"id_offsets": np.array([0, 1, 4], np.int32)},
    "utf-8": {"id_offsets": np.array([0, 2, 4])},
    "int ids": {"id_bytes": None, "id_offsets": None, "ids": np.array([1, 2])},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_vector_file_is_refused(case):
    tensors = {name: array for name, array in (vectors() | WRONG[case]).items() if array is not None}
    with pytest.raises(StoreCorruptError, match="vec-x is not as it was written"):
        decode(tensors)


def header(content, size=None):
    text = json.dumps(content).encode()
    return struct.pack("<Q", size or len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\0" * 64,
        header({}, 2**63),
        header({}, 99_000_000) + b" " * 100,
        header({"vectors": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}) + b"\0\0",
        header({"vectors": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}) + b"\0" * 4,
        b"\x80\x04K\x01.",  # a pickle
    ],
    ids=range(8),
)
def test_other_bytes_are_refused(data):
    with pytest.raises(StoreCorruptError):
        decode_vectors(data, "vec-x", 2, 3, "float32", "str")
    with pytest.raises(StoreCorruptError):
        decode_texts(data, "txt-x", 2)


@pytest.mark.parametrize("facts", [b"[]", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a": 1}', b"\xff", b"["])
def test_wrong_texts_are_refused_by_row(facts):
    row = {"bytes": np.frombuffer(facts, np.uint8), "offsets": np.array([0, len(facts)])}
    none = {"bytes": np.zeros(0, np.uint8), "offsets": np.array([0, 0])}
    tensors = {
        f"{name}_{part}": array
        for name, pair in (("prompt", none), ("answer", none), ("facts", row))
        for part, array in pair.items()
    }
    shard = decode_texts(safetensors.numpy.save(tensors), "txt-x", 1)
    with pytest.raises(StoreCorruptError, match=r"txt-x.*row 0"):
        shard.row(0, "txt-x")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FACTS = st.dictionaries(
    TEXT, st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.none()
)


@given(
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
    | st.lists(TEXT, min_size=1, max_size=5),
    texts=st.lists(st.tuples(TEXT, TEXT, FACTS), min_size=5, max_size=5),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_any_rows_survive(ids, texts, dtype):
    records = [
        Record(name, "ok", prompt, text, facts, 3, 4, np.zeros(2, np.float32))
        for name, (prompt, text, facts) in zip(ids, texts, strict=False)
    ]
    kept = np.arange(2 * len(ids)).reshape(-1, 2).astype(dtype)
    kind = "int" if isinstance(ids[0], int) else "str"
    rows = decode_vectors(encode_vectors("user", ids, records, kept), "vec", len(ids), 2, dtype, kind)
    assert rows.ids == ids
    assert (rows.vectors == kept).all()
    assert rows.tokens.tolist() == [[3, 4]] * len(ids)
    shard = decode_texts(encode_texts(records), "txt", len(ids))
    assert [shard.row(n, "txt") for n in range(len(ids))] == [(r.prompt, r.text, r.facts) for r in records]
