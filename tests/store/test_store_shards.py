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
from msr_enhance.store.shard import (
    Heads,
    Layout,
    decode_ids,
    decode_texts,
    decode_vectors,
    encode_ids,
    encode_texts,
    encode_vectors,
    read_heads,
    read_text_lengths,
    text_pieces,
)

WORDS = Layout("user", 3, "float32", "str")


def vectors():
    return {
        "id_bytes": np.frombuffer("aéb".encode(), np.uint8),
        "id_offsets": np.array([0, 1, 4]),
        "status": np.array([3, 1], np.uint8),
        "tokens": np.array([[1, 2], [3, 0]], np.int32),
        "vectors": np.array([[1, 2, 3], [0, 0, 0]], np.float32),
    }


def decode(tensors):
    return decode_vectors(safetensors.numpy.save(tensors), "vec-x", 2, WORDS)


def test_a_good_file_reads(tmp_path):
    heads, rows = decode(vectors())
    assert heads.ids == ["a", "éb"]
    assert (rows == vectors()["vectors"]).all()
    safetensors.numpy.save_file(vectors(), tmp_path / "vec-x")
    again = read_heads(tmp_path / "vec-x", 2, WORDS)
    assert (again.ids, again.status.tolist(), again.tokens.tolist()) == (heads.ids, [3, 1], [[1, 2], [3, 0]])


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
    "status": {"status": np.array([0, 4], np.uint8)},
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
def test_a_wrong_vector_file_is_refused(tmp_path, case):
    tensors = {name: array for name, array in (vectors() | WRONG[case]).items() if array is not None}
    with pytest.raises(StoreCorruptError, match="vec-x is not as it was written"):
        decode(tensors)
    safetensors.numpy.save_file(tensors, tmp_path / "vec-x")
    if case in ("nan", "not ok"):
        return  # seen where vectors are read
    with pytest.raises(StoreCorruptError, match="vec-x is not as it was written"):
        read_heads(tmp_path / "vec-x", 2, WORDS)


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
def test_other_bytes_are_refused(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    for read in (
        lambda: decode_vectors(data, "x", 2, WORDS),
        lambda: decode_texts(data, "x", 2),
        lambda: decode_ids(data, "x", 2, WORDS),
        lambda: read_heads(path, 2, WORDS),
        lambda: read_text_lengths(path, 2),
    ):
        with pytest.raises(StoreCorruptError):
            read()


@pytest.mark.parametrize("facts", [b"[]", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a": 1}', b"\xff", b"["])
def test_wrong_texts_are_refused_by_row(facts):
    tensors = {
        "text_bytes": np.frombuffer(facts, np.uint8),
        "text_offsets": np.array([0, 0, 0, len(facts)]),  # no prompt, no answer
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
    heads = Heads(ids, np.zeros(len(ids), np.uint8), np.full((len(ids), 2), [3, 4], np.int32))
    layout = Layout("user", 2, dtype, "int" if isinstance(ids[0], int) else "str")
    whole = b"".join(encode_vectors(layout, heads, [kept]))
    assert whole == b"".join(encode_vectors(layout, heads, np.array_split(kept, len(ids))))
    again, rows = decode_vectors(whole, "vec", len(ids), layout)
    assert again.ids == ids
    assert (rows == kept).all()
    assert again.tokens.tolist() == [[3, 4]] * len(ids)
    pieces = [piece for record in records for piece in text_pieces(record)]
    shard = decode_texts(b"".join(encode_texts(np.array(list(map(len, pieces))), pieces)), "txt", len(ids))
    assert [shard.row(n, "txt") for n in range(len(ids))] == [(r.prompt, r.text, r.facts) for r in records]
    assert shard.prompts() == [record.prompt.encode() for record in records]
    names = b"".join(encode_ids(layout, ids))
    assert decode_ids(names, "del", len(ids), layout) == ids
