"""Checksums of rows: each is read alone, and so each must tell alone whether it is what was written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from msr_enhance.store.frame import Array


def vector_crcs(ids: Iterable[int | str], vectors: Array) -> npt.NDArray[np.uint32]:
    """CRC-32 of each row, its id first: a row found under another id does not fit.

    Args:
        ids: The ids of the rows.
        vectors: ``[rows, width]`` as a file holds them.

    Returns:
        uint32 ``[rows]``.
    """
    flat = flat_bytes(vectors)
    width = len(flat) // max(len(vectors), 1)
    found = [crc32(flat[n * width : (n + 1) * width], crc32(id_bytes(name))) for n, name in enumerate(ids)]
    return np.array(found, np.uint32)


def flat_bytes(array: Array) -> memoryview:
    """The bytes of an array, not copied where they lie together."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def text_crcs(lengths: npt.NDArray[np.int64], blob: bytes | bytearray) -> list[int]:
    """CRC-32 of the texts of each row, their lengths first.

    Args:
        lengths: Bytes of every prompt, answer and facts, ``[rows, 3]``.
        blob: The texts of these rows, one after the other.

    Returns:
        A number for each row.
    """
    ends = [0, *np.cumsum(lengths.sum(axis=1)).tolist()]
    heads, texts = np.ascontiguousarray(lengths, "<i8"), memoryview(blob)
    return [
        crc32(texts[start:end], crc32(head.tobytes()))
        for head, (start, end) in zip(heads, itertools.pairwise(ends), strict=True)
    ]


def id_bytes(name: int | str) -> bytes:
    """An id as bytes: no two differ in type and are equal."""
    if isinstance(name, str):
        return b"s" + name.encode()
    return b"i" + name.to_bytes(8, "little", signed=True)


def pack(crcs: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
    """Checksums as they stand in a file, four bytes each."""
    return np.asarray(crcs, "<u4").tobytes()


def unpack(data: Array) -> npt.NDArray[np.uint32]:
    """Checksums from uint8 ``[rows, 4]``."""
    return np.ascontiguousarray(data).view("<u4").reshape(-1)
