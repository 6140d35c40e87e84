"""Ways to look at a store on disk that the tests share."""

from __future__ import annotations

import hashlib

import numpy as np

from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest


def entries(path, level="user"):
    """Shards and tombstones of the newest version."""
    return latest_manifest(path)[0].entries(level)


def named(path):
    """The files of the newest version, by name."""
    return {file.name: (path / file.name).read_bytes() for file in latest_manifest(path)[0].files()}


def contents(path):
    """Every file of a folder, by name."""
    return {each.name: each.read_bytes() for each in path.iterdir()}


def rows(path, level="user"):
    """What a reader sees, row by row."""
    store = KnowledgeStore.load(path)
    seen = {name: store.record(level, name) for name in store.ids(level)}
    vectors = store.vectors(level, list(seen))
    np.testing.assert_array_equal(vectors, [row.vector for row in seen.values()])
    return {name: {**vars(row), "vector": row.vector.tolist()} for name, row in seen.items()}


def digest(store, level, ids):
    """SHA-256 of what a store hands out; another process may be asked for it."""
    return hashlib.sha256(store.vectors(level, ids).tobytes()).hexdigest()
