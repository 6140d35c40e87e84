"""Needles: byte strings that are looked for in every byte of some files, all of them at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

SHORTEST: Final = 16
"""Bytes that a needle has at least; anything shorter is found by chance."""

_PIECE: Final = 4 << 20
_BITS: Final = 20

_Alike = dict[tuple[int, int], set[bytes]]
"""Byte strings by the place of their four bytes and their length."""


class Needles:
    """Looks for many byte strings in one pass.

    Four bytes of each are looked up at every place of a file; where they are, the ``SHORTEST`` around them
    are, and where those are, the whole: many that are alike, as prompts are, cost no more than others.

    Args:
        wanted: The byte strings, none shorter than ``SHORTEST``.
        sample: Bytes as they stand in the files; of each string the four bytes are taken that are rarest
            in them and in all strings, as whole sentences of a prompt are in every row.
    """

    def __init__(self, wanted: Collection[bytes], sample: bytes = b"") -> None:
        self._by_core: dict[int, dict[int, dict[bytes, _Alike]]] = {}
        usual = np.bincount(_slot(_words(sample)), minlength=1 << _BITS)
        for piece in _joined(wanted):
            usual += np.bincount(_slot(_words(piece)), minlength=1 << _BITS)
        for needle in wanted:
            words = _words(needle)
            at = int(np.argmin(usual[_slot(words)]))
            start = min(at, len(needle) - SHORTEST)
            windows = self._by_core.setdefault(int(words[at]), {}).setdefault(at - start, {})
            alike = windows.setdefault(needle[start : start + SHORTEST], {})
            alike.setdefault((at, len(needle)), set()).add(needle)
        self._longest = max(map(len, wanted), default=0)
        self._may = np.zeros(1 << _BITS, bool)
        self._may[_slot(np.array(list(self._by_core), np.uint32))] = True

    def search(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """Where they are in a file.

        Args:
            path: The file.

        Yields:
            Place and byte string of every find.

        Raises:
            OSError: If the disk refuses.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            size, start = os.fstat(descriptor).st_size, 0
            while start < size and self._by_core:
                data = _read(descriptor, start, min(_PIECE + 2 * self._longest, size - start))
                last = start + len(data) >= size
                limit = len(data) if last else _PIECE + self._longest
                for core, place, needle in self._inside(data):
                    # A find whose four bytes lie further on is made in the next piece, whole.
                    if (start == 0 or core >= self._longest) and (last or core < limit):
                        yield start + place, needle
                if last:
                    return
                start += _PIECE
        finally:
            os.close(descriptor)

    def _inside(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        words = _words(data)
        for core in np.flatnonzero(self._may[_slot(words)]).tolist():
            for offset, windows in self._by_core.get(int(words[core]), {}).items():
                start = core - offset
                for (at, size), needles in windows.get(data[max(start, 0) : start + SHORTEST], {}).items():
                    place = core - at
                    if place >= 0 and (piece := data[place : place + size]) in needles:
                        yield core, place, piece


def _joined(wanted: Iterable[bytes]) -> Iterator[bytes]:
    """Byte strings one after the other, in pieces of some megabytes."""
    piece = bytearray()
    for needle in wanted:
        piece += needle
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _words(data: bytes) -> npt.NDArray[np.uint32]:
    """The four bytes at every place, as numbers."""
    found = np.empty(max(len(data) - 3, 0), np.uint32)
    for shift in range(4):
        count = (len(data) - shift) // 4
        if count > 0:
            found[shift::4] = np.frombuffer(data, "<u4", count, shift)
    return found


def _slot(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Where a word stands in the table of those that are looked for."""
    found: npt.NDArray[np.uint32] = (words * np.uint32(2654435761)) >> np.uint32(32 - _BITS)
    return found


def _read(descriptor: int, start: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := os.pread(descriptor, count - len(data), start + len(data))):
        data += piece
    return data
