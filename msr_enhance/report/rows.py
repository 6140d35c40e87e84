"""Rows: some rows of a level, spread evenly over the store, with their texts and vectors block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreCorruptError
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.gather import read_texts
from msr_enhance.store.entry import Shard
from msr_enhance.store.index import ROW_BITS
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.level import LevelReader
from msr_enhance.store.record import Level, is_known
from msr_enhance.store.texts import split

_LOW = (1 << ROW_BITS) - 1
_TEXTS = 512  # rows whose texts are held at once
_BYTES = 8 << 20  # of vectors that are held at once

Positions = npt.NDArray[np.int64]
Blocks = Callable[[], Iterator[npt.NDArray[np.float32]]]


class Texts(NamedTuple):
    """What was asked and answered.

    Attributes:
        prompt: What the model read.
        answer: What it said.
        facts: What the prompt was made of.
    """

    prompt: str
    answer: str
    facts: dict[str, Any]


class Rows:
    """Rows of a level that count, at most so many; the same ones each time.

    Args:
        store: The store.
        level: A level that it has.
        limit: At most so many rows, spread evenly in the order they were written.

    Attributes:
        total: How many rows the level has.
        ids: Those of the chosen rows.
        status: Positions in ``STATUSES``, uint8 ``[rows]``.
        tokens: Tokens of prompt and answer ``[rows, 2]``.
        shape: Of a vector.

    Raises:
        StoreCorruptError: A shard is not what was written.
        StoreIOError: The disk refuses.
    """

    def __init__(self, store: KnowledgeStore, level: Level, limit: int) -> None:
        self._version = Version.of(store)
        self._reader = LevelReader(self._version.files, self._version.manifest, level)
        self._entries = self._version.manifest.entries(level)
        self.shape = self._reader.shape
        self.total = self._reader.count
        wanted = spread(self.total, limit)
        self.ids: list[Any] = []
        status, tokens, places = (
            [np.empty(0, np.uint8)],
            [np.empty((0, 2), np.int64)],
            [np.empty(0, np.int64)],
        )
        seen = 0
        for number, heads, keep in self._reader.blocks():
            live = np.flatnonzero(keep)
            low, high = np.searchsorted(wanted, (seen, seen + len(live)))
            rows = live[wanted[low:high] - seen]
            self.ids += [heads.ids[row] for row in rows.tolist()]
            status.append(heads.status[rows])
            tokens.append(heads.tokens[rows].astype(np.int64))
            places.append((np.int64(number) << ROW_BITS) + rows)
            seen += len(live)
        self.status, self.tokens = np.concatenate(status), np.concatenate(tokens)
        self._places: Positions = np.concatenate(places)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> Positions:
        """Positions of the rows with knowledge, ascending ``[known]``."""
        return np.flatnonzero(is_known(self.status))

    def texts(self, positions: Positions) -> Iterator[tuple[int, Texts]]:
        """Texts of some rows, each compared with its checksum; nothing of rows that were saved without.

        Args:
            positions: Among the chosen rows, ascending ``[n]``.

        Yields:
            The position and its texts.

        Raises:
            StoreCorruptError: If a text is not what was written.
        """
        places = self._places[positions]
        numbers = places >> ROW_BITS
        for number in np.unique(numbers).tolist():
            entry = self._entries[number]
            if not isinstance(entry, Shard) or entry.texts is None:
                continue
            here = np.flatnonzero(numbers == number)
            for some in np.array_split(here, -(-len(here) // _TEXTS)):
                with self._version.files.open(entry.texts) as opened:
                    found, good = read_texts(opened, entry.texts, entry.rows, places[some] & _LOW)
                if not good.all():
                    folder = self._version.files.folder
                    raise StoreCorruptError(
                        f"{self._version.files.path(entry.texts)} has {int((~good).sum())} rows whose texts "
                        f"are not what was written. Write: msr-enhance store repair {folder}"
                    )
                pieces = split((found.lengths, b"".join(found.texts)))
                for at, (prompt, answer, facts) in zip(positions[some].tolist(), pieces, strict=True):
                    yield at, Texts(prompt.decode(), answer.decode(), _mapping(facts))

    def vectors(self, positions: Positions) -> Blocks:
        """The vectors of some rows, of the last layer where several were kept.

        Args:
            positions: Among the chosen rows ``[n]``.

        Returns:
            A function that reads them again each time, in blocks ``[some, dim]`` of a few megabytes.
        """
        step = max(1, _BYTES // (4 * int(np.prod(self.shape))))

        def read() -> Iterator[npt.NDArray[np.float32]]:
            for start in range(0, len(positions), step):
                some = positions[start : start + step]
                found = self._reader.vectors([self.ids[at] for at in some.tolist()], self._places[some])
                yield found.reshape(len(some), -1, self.shape[-1])[:, -1]

        return read


def spread(count: int, limit: int) -> Positions:
    """At most `limit` of the numbers below `count`, ascending and evenly apart, the first always among them.

    Args:
        count: How many there are.
        limit: How many are wanted.

    Returns:
        The numbers ``[min(count, limit)]``.
    """
    few = min(count, limit)
    return np.arange(few, dtype=np.int64) * count // max(few, 1)


def _mapping(facts: bytes) -> dict[str, Any]:
    found = json.loads(facts)
    return found if isinstance(found, dict) else {}
