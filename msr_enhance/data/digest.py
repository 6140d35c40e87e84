"""One name for a set of rows, whatever their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from msr_enhance.data.table import InteractionTable


def rows_digest(table: InteractionTable, rows: npt.NDArray[np.int64], *, texts: bool = False) -> str:
    """Identify a set of rows by user, item, scenario, clock and label.

    Args:
        table: The log.
        rows: Row positions ``[n]``; their order does not matter, a row that is there twice counts twice.
        texts: Tell rows apart by what they say of their item too.

    Returns:
        sha256 over the sorted 64-bit hashes of the rows, in hex.
    """
    hashes = np.zeros(len(rows), np.uint64)
    named = [table.frame[name][rows] for name in table.columns.text] if texts else []
    for words in (
        _id_words(table.user_ids)[table.user_index[rows]],
        _id_words(table.item_ids)[table.item_index[rows]],
        _id_words(table.scenarios)[table.scenario_index[rows]],
        _bits(table.clock[rows]),
        _bits(table.labels[rows]),
        *(_id_words(text.unique().sort().to_list())[text.rank("dense").to_numpy() - 1] for text in named),
    ):
        hashes = _mixed(hashes ^ words)
    hashes.sort()
    return hashlib.sha256(hashes.astype("<u8").tobytes()).hexdigest()


def _id_words(ids: Sequence[int] | Sequence[str]) -> npt.NDArray[np.uint64]:
    """One word for each distinct id; Python's own hash of a string differs from run to run."""
    if isinstance(ids[0], int):
        return np.array(ids, np.int64).view(np.uint64)
    digests = b"".join(hashlib.blake2b(str(each).encode(), digest_size=8).digest() for each in ids)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    if values.dtype.kind == "f":
        values = values.astype(np.float64) + 0.0  # -0.0 is the same moment as 0.0
    return values.view(np.uint64)


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64: every bit of the input moves every bit of the output."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
