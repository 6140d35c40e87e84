"""Vectors of several layers, and the status of a prompt that was shortened."""

import numpy as np
import pytest

from msr_enhance.errors import StoreError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def layered(tmp_path, provenance, record):
    """Users with two layers, scenarios with one of another width; a user without knowledge among them."""
    writer = StoreWriter.open(tmp_path / "layered", provenance)
    writer.append("user", [record(1, dim=(2, 3)), record(2, "failed", dim=(2, 3))])
    writer.append("scenario", [record("Toys", dim=(1, 4))])
    writer.append("user", [record(3, "truncated", dim=(2, 3)), record(4, "empty", dim=(2, 3))])
    return writer.path


@pytest.mark.parametrize("verify", [True, False])
def test_layers_are_read_as_they_were_written(layered, record, verify):
    store = KnowledgeStore.load(layered, verify)
    assert (store.shape("user"), store.shape("scenario")) == ((2, 3), (1, 4))
    assert (store.dim("user"), store.dim("scenario")) == (3, 4)
    seen = store.vectors("user", [3, 9, 1, 4], unknown="zero")
    zeros = np.zeros((2, 3))
    expected = [record(3, "truncated", dim=(2, 3)).vector, zeros, record(1, dim=(2, 3)).vector, zeros]
    np.testing.assert_array_equal(seen, np.float32(expected))
    assert store.vectors("user", []).shape == (0, 2, 3)
    np.testing.assert_array_equal(store.record("user", 1).vector, record(1, dim=(2, 3)).vector)
    assert store.vectors("scenario", ["Toys"]).shape == (1, 1, 4)
    assert "user=[4, 2, 3]" in repr(store)


def test_layers_survive_saving_and_resuming(layered, tmp_path, provenance, record):
    KnowledgeStore.load(layered).save(tmp_path / "copy")
    StoreWriter.open(tmp_path / "copy", provenance).append("user", [record(5, dim=(2, 3))])
    store = KnowledgeStore.load(tmp_path / "copy")
    np.testing.assert_array_equal(store.vectors("user", [5])[0], record(5, dim=(2, 3)).vector)
    np.testing.assert_array_equal(store.vectors("user", [1])[0], record(1, dim=(2, 3)).vector)


@pytest.mark.parametrize("shape", [(3,), (6,), (3, 2), (1, 2, 3)])
def test_another_shape_of_as_many_numbers_is_refused(layered, provenance, record, shape):
    with pytest.raises(StoreError, match=r"user 5 has shape .*holds \[2, 3\]"):
        StoreWriter.open(layered, provenance).append("user", [record(5, dim=shape)])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 2, 3)])
def test_the_first_vector_is_one_layer_or_several(tmp_path, provenance, record, shape):
    with pytest.raises(StoreError, match=r"allowed: \(dim,\) or \(n_layers, dim\)"):
        StoreWriter.open(tmp_path, provenance).append("user", [record(5, vector=np.zeros(shape, np.float32))])


def test_a_shortened_prompt_is_knowledge(layered):
    store = KnowledgeStore.load(layered)
    assert store.statuses("user") == ["ok", "failed", "truncated", "empty"]
    assert store.known("user") == [1, 3]
    assert store.vectors("user", [3]).any()
    assert store.record("user", 3).status == "truncated"
    assert store.text("user", 3)


def test_a_shortened_prompt_without_a_finite_vector_is_refused(tmp_path, provenance, record):
    with pytest.raises(StoreError, match="user 3 is not finite"):
        StoreWriter.open(tmp_path, provenance).append(
            "user", [record(3, "truncated", vector=np.float32([np.nan, 1]))]
        )


def test_the_writer_counts_the_statuses(layered, provenance):
    writer = StoreWriter.open(layered, provenance)
    assert writer.statuses() == {
        "user": {"ok": 1, "empty": 1, "failed": 1, "truncated": 1},
        "scenario": {"ok": 1},
    }
    assert writer.fingerprint == KnowledgeStore.load(layered).fingerprint
