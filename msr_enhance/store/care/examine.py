"""Examining: which rows of a shard are what was written, as far as that can be told row by row."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreCorruptError
from msr_enhance.fingerprint import parse_canonical_json
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.gather import read_texts
from msr_enhance.store.checks import unpack, vector_crcs
from msr_enhance.store.entry import Shard, StoredFile
from msr_enhance.store.files import OpenFile
from msr_enhance.store.numbers import as_float32
from msr_enhance.store.record import Layout, is_known
from msr_enhance.store.seal import BLOCK_ROWS
from msr_enhance.store.shard import Heads, checked_frame, read_heads
from msr_enhance.store.texts import read_lengths, split

Mask = npt.NDArray[np.bool_]


class Wrong(NamedTuple):
    """One thing that is wrong with a file.

    Attributes:
        file: Its name.
        what: What was seen.
    """

    file: str
    what: str


class Looked(NamedTuple):
    """What a look at a shard found.

    Attributes:
        heads: Its ids, states and token counts; None where they cannot be trusted, and then no row can.
        vectors: Which rows have the vector that was written, bool ``[rows]``.
        texts: Which rows have the texts that were written; all False where the file is lost.
        wrong: What is wrong, empty for a good shard.
    """

    heads: Heads | None
    vectors: Mask
    texts: Mask
    wrong: tuple[Wrong, ...]


def examine(source: Version, shard: Shard) -> Looked:
    """Read everything of a shard: digests, checksums, numbers and texts.

    Args:
        source: The version that names it.
        shard: The shard.

    Returns:
        What was found.

    Raises:
        StoreIOError: If the disk refuses: that is no damage yet, and may pass.
        StoreError: If a newer version has replaced the shard meanwhile.
    """
    layout, wrong = source.manifest.layout(shard.level), list[Wrong]()
    heads, vectors = _vectors(source, shard, layout, wrong)
    texts = np.ones(shard.rows, bool)
    if shard.texts:
        texts = _texts(source, shard.texts, shard.rows, wrong)
    return Looked(heads, vectors, texts, tuple(wrong))


def said(error: StoreCorruptError) -> str:
    """What an error saw, without its path in front and its advice at the end."""
    text = str(error).partition(". Fetch")[0]
    return re.split(r"\.(?:safetensors|json) ", text, maxsplit=1)[-1].removeprefix(
        "is not as it was written: "
    )


def _vectors(source: Version, shard: Shard, layout: Layout, wrong: list[Wrong]) -> tuple[Heads | None, Mask]:
    file, good = shard.vectors, np.zeros(shard.rows, bool)
    known = len(wrong)
    try:
        with source.files.open(file) as opened:
            digest = opened.digest()
            heads = read_heads(opened, file, shard.rows, layout, shard.heads)
            for start in range(0, shard.rows, BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, shard.rows))
                good[rows] = _good_vectors(opened, file, shard, layout, heads, rows, wrong)
    except StoreCorruptError as error:
        wrong.append(Wrong(file.name, said(error)))
        return None, good
    if not good.all() and len(wrong) == known:
        wrong.append(_rows(file, "the checksum of the vector does not fit", good))
    _compare(file, digest, len(wrong) > known, good, wrong)
    return heads, good


def _good_vectors(
    opened: OpenFile,
    file: StoredFile,
    shard: Shard,
    layout: Layout,
    heads: Heads,
    rows: npt.NDArray[np.int64],
    wrong: list[Wrong],
) -> Mask:
    """Which rows have a checksum that fits; finite numbers, and zeros where nothing is known."""
    frame = checked_frame(opened, file, shard.rows, layout)
    span, crcs = frame.spans["vectors"], frame.spans["crcs"]
    data = opened.rows(span.start, (span.end - span.start) // shard.rows, rows)
    ids = [heads.ids[row] for row in rows.tolist()]
    good: Mask = vector_crcs(ids, data) == unpack(opened.rows(crcs.start, 4, rows))
    kept = span._replace(shape=(len(rows), layout.width)).array(data.tobytes())
    numbers = as_float32(kept, layout.dtype)
    finite = np.isfinite(numbers).all(axis=1)
    silent = ~is_known(heads.status[rows]) & np.any(numbers, axis=1)
    for what, bad in (("NaN or infinity in the vector", ~finite), ("numbers without knowledge", silent)):
        if (bad & good).any():  # written like this: no checksum tells
            wrong.append(_rows(file, what, ~(bad & good), int(rows[0])))
    right: Mask = good & finite & ~silent
    return right


def _texts(source: Version, file: StoredFile, count: int, wrong: list[Wrong]) -> Mask:
    good, known = np.zeros(count, bool), len(wrong)
    try:
        with source.files.open(file) as opened:
            digest = opened.digest()
            for start in range(0, count, BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, count))
                found, fits = read_texts(opened, file, count, rows)
                good[rows] = fits
                pieces = split((found.lengths, b"".join(found.texts)))
                unread = np.array([not _reads(*row) for row in pieces], bool)
                if (unread & fits).any():
                    wrong.append(
                        _rows(file, "texts that are no Unicode, or no facts", ~(unread & fits), start)
                    )
                    good[rows] &= ~unread
            if not good.all() and len(wrong) == known:
                wrong.append(_rows(file, "the checksum of the texts does not fit", good))
            try:
                read_lengths(opened, file, count)  # also compares the header
            except StoreCorruptError as error:
                if len(wrong) == known:
                    wrong.append(Wrong(file.name, said(error)))
    except StoreCorruptError as error:
        wrong.append(Wrong(file.name, said(error)))
        return np.zeros(count, bool)
    _compare(file, digest, len(wrong) > known, good, wrong)
    return good


def _compare(file: StoredFile, digest: str, explained: bool, good: Mask, wrong: list[Wrong]) -> None:
    """A digest that is wrong where everything else is right: nobody knows which rows, and so none is good."""
    if digest != file.sha256 and not explained:
        good[:] = False
        wrong.append(
            Wrong(file.name, f"it has SHA-256 {digest[:16]}…, its manifest promises {file.sha256[:16]}…")
        )


def _reads(prompt: bytes, answer: bytes, facts: bytes) -> bool:
    """Whether the texts of a row are texts."""
    try:
        prompt.decode()
        answer.decode()
        return isinstance(parse_canonical_json(facts), dict)
    except ValueError:
        return False


def _rows(file: StoredFile, what: str, good: Mask, start: int = 0) -> Wrong:
    bad = np.flatnonzero(~good) + start
    first = ", ".join(map(str, bad[:5].tolist())) + (", …" if len(bad) > 5 else "")
    return Wrong(file.name, f"{what} in {len(bad):,} rows ({first})")
