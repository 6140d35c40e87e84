import fcntl
import os

import numpy as np
import pytest

from msr_enhance.store import seal, sweep
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def provenance():
    return Provenance(
        identity={"model": {"id": "tiny", "revision": "abc"}, "history": 35},
        window={"protocol": "window", "cutoffs": {"Toys": 10.5}},
        facts={"made": "today"},
    )


@pytest.fixture
def record():
    def make(name, status="ok", dim=3, **changes):
        values = np.random.default_rng(sum(str(name).encode())).normal(size=dim).astype(np.float32)
        known = status in ("ok", "truncated")
        fields = {
            "id": name,
            "status": status,
            "prompt": f"prompt of {name}",
            "text": f"answer é\n{name}" if known else "",
            "facts": {"shown": {"Toys": 2}, "share": 0.5},
            "prompt_tokens": 11,
            "answer_tokens": 7,
            "vector": values if known else np.zeros(dim, np.float32),
        }
        return Record(**fields | changes)

    return make


@pytest.fixture
def folder(tmp_path, provenance, record):
    """Five users (ints) in two commits, two scenarios (strings, wider vectors) in one."""
    with StoreWriter.open(tmp_path / "store", provenance) as writer:
        writer.append("user", [record(7), record(-3, "empty"), record(2**63 - 1)])
        writer.append("scenario", [record("Toys", dim=5), record("Schön 😀", dim=5)])
        writer.append("user", [record(0, "failed"), record(1)])
    return writer.path


@pytest.fixture
def small(monkeypatch):
    """Runs of 4 and shards of 24 rows instead of 64 and 32,768; nothing is flushed to the disk."""
    monkeypatch.setattr(seal, "RUN", 4)
    monkeypatch.setattr(seal, "FULL", 24)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def no_grace(monkeypatch):
    """What no version needs is removed at once."""
    monkeypatch.setattr(sweep, "GRACE", -1.0)


@pytest.fixture
def no_locks(monkeypatch):
    """Everybody gets every lock, as on some network file systems."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)


@pytest.fixture
def part(tmp_path, provenance, record):
    """Make a store `part-<n>` of some users; part 0 has the scenarios."""

    def make(number, ids, **changes):
        given = provenance.model_copy(update={"facts": {"part": number}, **changes})
        with StoreWriter.open(tmp_path / f"part-{number}", given) as writer:
            for name in ids:
                writer.append("user", [record(name)])
            if number == 0:
                writer.append("scenario", [record("Toys", dim=5)])
        return writer.path

    return make
