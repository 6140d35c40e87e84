from __future__ import annotations

import numpy as np
import pytest

from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def record(record):
    """Rows as elsewhere, whose vectors are long enough to be looked for, and differ from row to row."""

    def make(name, status="ok", dim=6, **changes):
        if status == "ok":
            own = np.random.default_rng(list(str(name).encode())).normal(size=dim).astype(np.float32)
            changes = {"vector": own, **changes}
        return record(name, status, dim, **changes)

    return make


@pytest.fixture
def used(tmp_path, provenance, record, small):
    """A store that was written to for a while: 90 users in any order, 20 of them dropped, 3 written anew.

    Shards are of 24 rows at most, and so it has full ones, small ones, an index and tombstones.
    """

    def make(kind=int, name="used", close=True):
        ids = [(37 * number) % 90 - 20 for number in range(90)]
        named = [f"user {number}" if kind is str else number for number in ids]
        writer = StoreWriter.open(tmp_path / name, provenance)
        for start in range(0, 90, 5):
            rows = [record(one, "empty" if place % 11 == 0 else "ok") for place, one in enumerate(named)]
            writer.append("user", rows[start : start + 5])
        writer.drop("user", named[10:30])
        writer.append("user", [record(one) for one in named[10:13]])
        writer.append("scenario", [record("Toys", dim=5), record("Schön 😀", dim=5)])
        if close:
            writer.close()
        writer.release()
        return writer.path

    return make
