"""Headers: those of any safetensors reader, though none is ever parsed here."""

import json

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import named

from msr_enhance.store.frame import STORED_AS, Frame

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter("__metadata__".__ne__)
TENSOR = st.tuples(st.sampled_from(list(STORED_AS)), st.lists(st.integers(0, 5), max_size=3).map(tuple))


@settings(deadline=None)
@given(
    tensors=st.dictionaries(NAME, TENSOR, min_size=1, max_size=5),
    metadata=st.none() | st.dictionaries(NAME, NAME, max_size=2),
    draw=st.randoms(use_true_random=False),
)
def test_any_reader_agrees_on_every_tensor(tensors, metadata, draw):
    frame = Frame.of(tensors, metadata)
    data = frame.header + draw.randbytes(frame.bytes - len(frame.header))
    seen = dict(safetensors.deserialize(data))
    assert seen.keys() == tensors.keys()
    for name, (kind, shape) in tensors.items():
        span = frame.spans[name]
        assert (seen[name]["dtype"], seen[name]["shape"]) == (kind, list(shape))
        assert bytes(seen[name]["data"]) == data[span.start : span.end]
        array = span.array(memoryview(data)[span.start : span.end])
        assert (array.dtype, array.shape) == (STORED_AS[kind], shape)
        assert array.tobytes() == data[span.start : span.end]
    content = json.loads(frame.header[8:])
    assert content.get("__metadata__", {}) == (metadata or {})


def test_the_same_tensors_are_the_same_bytes_and_others_are_not():
    tensors = {"a": ("F32", (2, 3)), "b": ("U8", (4,))}
    frame = Frame.of(tensors, {"level": "user"})
    assert frame.header == Frame.of(dict(tensors), {"level": "user"}).header
    assert len(frame.header) % 64 == 8, "the tensors begin at a multiple of 64 behind the first eight bytes"
    others = [
        Frame.of({"a": ("F32", (3, 2)), "b": ("U8", (4,))}, {"level": "user"}),
        Frame.of({"a": ("I32", (2, 3)), "b": ("U8", (4,))}, {"level": "user"}),
        Frame.of({"b": ("U8", (4,)), "a": ("F32", (2, 3))}, {"level": "user"}),
        Frame.of(tensors, {"level": "scenario"}),
        Frame.of(tensors),
    ]
    assert len({frame.header, *(other.header for other in others)}) == 6


def test_sizes_of_other_peoples_making_cost_nothing():
    frame = Frame.of({"a": ("F32", (2**62, 2**62))})
    assert frame.bytes == len(frame.header) + 4 * 2**124


@pytest.mark.parametrize("kind", ["vec", "txt"])
def test_every_file_of_a_store_opens_with_the_library(folder, kind):
    files = {name: data for name, data in named(folder).items() if name.startswith(kind)}
    assert len(files) == 3
    for data in files.values():
        seen = dict(safetensors.deserialize(data))
        if kind == "vec":
            assert seen["vectors"]["dtype"] == "F32"
            assert np.isfinite(np.frombuffer(seen["vectors"]["data"], "<f4")).all()
        else:
            assert b"prompt of" in bytes(seen["text_bytes"]["data"])
