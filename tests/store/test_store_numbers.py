"""Numbers: kept as torch would keep them, and never an infinity that was none before."""

import numpy as np
import pytest
import torch

from msr_enhance.errors import StoreError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.numbers import DTYPES, as_float32, as_kept
from msr_enhance.store.writer import StoreWriter

PATTERNS = np.arange(2**16, dtype="<u2").reshape(1, -1)


def test_every_bfloat16_reads_as_in_torch_and_is_kept_as_it_is():
    found = as_float32(PATTERNS, "bfloat16")
    theirs = torch.from_numpy(PATTERNS.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert found.tobytes() == theirs.tobytes()
    again, odd = as_kept(found, "bfloat16"), np.isnan(found)
    assert (again == PATTERNS)[~odd].all()
    assert np.isnan(as_float32(again, "bfloat16"))[odd].all(), "a NaN stays one"


def test_every_float16_reads_as_in_torch_and_is_kept_as_it_is():
    halves = PATTERNS.view("<f2")
    found = as_float32(halves, "float16")
    np.testing.assert_array_equal(found, torch.from_numpy(halves.copy()).float().numpy())
    odd = np.isnan(found)
    assert (as_kept(found, "float16").view("<u2") == PATTERNS)[~odd].all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_any_float32_is_rounded_as_by_torch(dtype):
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2**32, 400_000, np.uint32)
    halfway = (np.repeat(np.arange(2**16, dtype=np.uint32), 3) << 16) + np.tile(
        [0x7FFF, 0x8000, 0x8001], 2**16
    )
    values = np.concatenate([bits, halfway.astype(np.uint32)]).view(np.float32)[None]
    mine = as_float32(as_kept(values, dtype), dtype)
    theirs = torch.from_numpy(values.copy()).to(getattr(torch, dtype)).float().numpy()
    odd = np.isnan(values)
    assert mine[~odd].tobytes() == theirs[~odd].tobytes()
    assert np.isnan(mine[odd]).all()


def test_what_is_handed_out_is_a_copy():
    kept = np.ones((1, 3), np.float32)
    as_float32(kept, "float32")[:] = 9
    assert (kept == 1).all()


def test_int8_is_scaled_by_dimension():
    kept = np.array([[1, -128, 127]], np.int8)
    scale = np.array([0.5, 2, 0], np.float32)
    assert as_float32(kept, "int8", scale).tolist() == [[0.5, -256, 0]]


@pytest.mark.parametrize(
    ("dtype", "largest", "over"),
    [("float16", 65_504, 65_520), ("bfloat16", 3.3895314e38, 3.4e38), ("float32", 3.4028235e38, 3.5e38)],
)
def test_a_number_too_large_for_the_type_is_refused(tmp_path, provenance, record, dtype, largest, over):
    with StoreWriter.open(tmp_path, provenance, dtype) as writer:
        writer.append("user", [record(1, vector=np.array([0, largest, -largest]))])
        for wrong in (over, -over, np.inf, np.nan):
            with pytest.raises(StoreError, match=rf"user 2 is not finite as {dtype}.*float32"):
                writer.append("user", [record(2, vector=np.array([0, 1, wrong]))])
    seen = KnowledgeStore.load(tmp_path).vectors("user", [1])
    np.testing.assert_array_equal(seen, np.float32([[0, largest, -largest]]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_are_read_as_the_type_keeps_them(tmp_path, provenance, record, dtype):
    rows = [record(number, dim=7) for number in range(9)]
    with StoreWriter.open(tmp_path, provenance, dtype) as writer:
        writer.append("user", rows)
    store = KnowledgeStore.load(tmp_path, verify=True)
    theirs = (
        torch.from_numpy(np.stack([row.vector for row in rows])).to(getattr(torch, dtype)).float().numpy()
    )
    found = store.vectors("user", range(9))
    assert (found.dtype, store.dtype) == (np.float32, dtype)
    assert found.tobytes() == theirs.tobytes()
