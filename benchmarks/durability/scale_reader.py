"""The reading half of the proof of scale, in a fresh process: it imports what a server imports."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.store.knowledge import KnowledgeStore

WIDTH = 4096
PLANTED = 4
LOOKUPS = 1_000_000
_BATCH = 1024
_STEP, _FIRST = 7, -(10**8)
_ROW_BITS = 32

Numbers = npt.NDArray[np.int64]


class Users(NamedTuple):
    """So many users, and where each of them lies: arithmetic, so that any answer can be compared.

    Attributes:
        rows: How many.
        each: How many in a shard.
        factor: A number without a divisor in common with ``rows``; it mixes the ids.
    """

    rows: int
    each: int
    factor: int = 7_368_787

    def ids(self, rows: Numbers) -> Numbers:
        """The id of each row: far apart, some negative, in no order."""
        return rows * self.factor % self.rows * _STEP + _FIRST

    def rows_of(self, ids: Numbers) -> Numbers:
        """The row of each id."""
        return (ids - _FIRST) // _STEP * pow(self.factor, -1, self.rows) % self.rows

    def places(self, rows: Numbers) -> Numbers:
        """Where each row lies, as the index says it."""
        return (rows // self.each << _ROW_BITS) + rows % self.each

    def planted(self) -> Numbers:
        """Rows that have a vector: the first and the last of each shard, and some between."""
        starts = np.arange(0, self.rows, self.each)
        sizes = np.minimum(starts + self.each, self.rows) - starts
        between = np.linspace(0, 1, PLANTED)[None, :] * (sizes[:, None] - 1)
        return np.unique((starts[:, None] + between.astype(np.int64)).reshape(-1))

    def vectors(self, rows: Numbers) -> npt.NDArray[np.float16]:
        """The vector of each row."""
        return (rows[:, None] * 31 % 1009 + np.arange(WIDTH) % 13).astype(np.float16)

    def some(self, seed: int) -> tuple[list[int], Numbers]:
        """Ids in order, and where each lies; one in a hundred is nobody's."""
        draw = np.random.default_rng(seed)
        ids = np.sort(draw.integers(0, self.rows, LOOKUPS)) * _STEP + _FIRST
        places = self.places(self.rows_of(ids))
        nobody = draw.random(LOOKUPS) < 0.01
        return (ids + nobody).tolist(), np.where(nobody, -1, places)


class Words(NamedTuple):
    """So many users with a name; see ``Users``."""

    rows: int
    each: int

    def name(self, row: int) -> str:
        """The name of a row."""
        return f"user-{row * 7919 % self.rows:x}-é"

    def some(self, seed: int) -> tuple[list[str], Numbers]:
        """Names, and where each lies; one in a hundred is nobody's."""
        draw = np.random.default_rng(seed)
        rows = draw.integers(0, self.rows, LOOKUPS)
        nobody = draw.random(LOOKUPS) < 0.01
        names = [self.name(row) + "?" * no for row, no in zip(rows.tolist(), nobody.tolist(), strict=True)]
        return names, np.where(nobody, -1, (rows // self.each << _ROW_BITS) + rows % self.each)


def measure(path: Path, made: Users | Words, seed: int) -> dict[str, int | float]:
    """Open a store and look up rows; every answer is compared.

    Raises:
        AssertionError: If a place or a vector is wrong.
    """
    store, opened = _timed(lambda: KnowledgeStore.load(path))
    found: dict[str, int | float] = {"opened_in_s": round(opened, 3), "private_mb": _private_mb()}
    assert store.count("user") == made.rows
    level = store._level("user")
    ids, expected = made.some(seed)
    places, seconds = _timed(lambda: level.places(ids))
    assert np.array_equal(places, expected), f"{(places != expected).sum()} places are wrong"
    found |= {"lookups": len(ids), "us_per_place": round(seconds / len(ids) * 1e6, 2)}
    if isinstance(made, Words):
        rows = np.flatnonzero(expected >= 0)[:_BATCH]
        vectors = store.vectors("user", [ids[row] for row in rows.tolist()])
        numbers = (expected[rows] >> _ROW_BITS) * made.each + (expected[rows] & (2**_ROW_BITS - 1))
        assert np.array_equal(vectors[:, 0], numbers), "a vector is another row's"
        return found | {"vectors": len(vectors)}
    planted = made.planted()
    planted = planted[np.argsort(made.ids(planted))]
    seconds = 0.0
    for start in range(0, len(planted), _BATCH):
        some = planted[start : start + _BATCH]
        names = made.ids(some)
        vectors, took = _timed(lambda names=names: store.vectors("user", names))
        seconds += took
        assert np.array_equal(vectors, made.vectors(some).astype(np.float32)), "a vector is another row's"
    per_row = round(seconds / len(planted) * 1e6, 1)
    return found | {"vectors": len(planted), "us_per_vector": per_row, "private_mb_later": _private_mb()}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _private_mb() -> int:
    """Memory that this process has for itself, Python and numpy included."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    private = [int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))]
    return round(sum(private) / 1000)


if __name__ == "__main__":
    kind = {"Users": Users, "Words": Words}[sys.argv[2]]
    print(json.dumps(measure(Path(sys.argv[1]), kind(*json.loads(sys.argv[3])), int(sys.argv[4]))))
