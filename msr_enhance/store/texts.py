"""Texts: prompts, answers and facts of the rows of a shard, in a file that may stay behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from msr_enhance.fingerprint import canonical_json, parse_canonical_json
from msr_enhance.store.checks import pack, text_crcs, unpack
from msr_enhance.store.entry import StoredFile
from msr_enhance.store.files import OpenFile, put
from msr_enhance.store.frame import Frame, corrupt
from msr_enhance.store.record import Record

Lengths = npt.NDArray[np.int64]
Block = tuple[Lengths, bytes]
"""Bytes of every prompt, answer and facts of some rows, ``[rows, 3]``, and the texts one after the other."""

_DEEPEST: Final = 32
_ROWS: Final = 1024  # of a block; texts of so many rows are a few megabytes


def text_pieces(record: Record) -> tuple[bytes, bytes, bytes]:
    """What is kept of a record's texts.

    Args:
        record: The record.

    Returns:
        Prompt, answer and facts.

    Raises:
        ValueError: If a text is not Unicode, or facts hold NaN or would not read back.
        TypeError: If facts are not JSON.
    """
    if not isinstance(record.facts, dict) or _depth(record.facts) > _DEEPEST:
        raise TypeError(f"facts are no mapping, or deeper than {_DEEPEST}")
    facts = canonical_json(record.facts)
    parse_canonical_json(facts)  # keys that are numbers may be written, but not in the order they read back
    return record.prompt.encode(), record.text.encode(), facts


def as_block(pieces: Iterable[tuple[bytes, bytes, bytes]]) -> Block:
    """Texts of some rows as a block."""
    rows = list(pieces)
    lengths = np.array([[len(piece) for piece in row] for row in rows], np.int64).reshape(len(rows), 3)
    return lengths, b"".join(itertools.chain.from_iterable(rows))


def write_texts(folder: Path, lengths: Lengths, blocks: Iterable[Block]) -> StoredFile:
    """Write the text file of a shard.

    Args:
        folder: The store's folder.
        lengths: Bytes of every prompt, answer and facts, ``[rows, 3]``.
        blocks: The same with the texts, in blocks of rows.

    Returns:
        The file, the same for the same rows however they are divided into blocks.

    Raises:
        OSError: If the disk refuses.
    """
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths.reshape(-1), dtype=np.int64)])
    blob = int(offsets[-1])
    frame, crcs = text_frame(len(lengths), blob), list[int]()

    def pieces() -> Iterator[bytes]:
        yield frame.header
        yield offsets.astype("<i8", copy=False).tobytes()
        for some, texts in blocks:
            crcs.extend(text_crcs(some, texts))
            yield texts
        yield pack(crcs)

    return put(folder, "txt", pieces(), blob)


def read_lengths(opened: OpenFile, file: StoredFile, rows: int) -> Lengths:
    """Bytes of every prompt, answer and facts of a text file, ``[rows, 3]``.

    Args:
        opened: The file.
        file: What the manifest promises of it.
        rows: How many rows it promises.

    Returns:
        The lengths.

    Raises:
        StoreCorruptError: If anything is not as promised.
        StoreIOError: If the disk refuses.
    """
    return _lengths(opened, _checked(opened, file, rows), 0, rows)


def read_blocks(opened: OpenFile, file: StoredFile, rows: int) -> Iterator[Block]:
    """All texts of a text file, block by block; see ``read_lengths``."""
    frame = _checked(opened, file, rows)
    for start in range(0, rows, _ROWS):
        yield _block(opened, frame, start, min(start + _ROWS, rows))


def read_row(opened: OpenFile, file: StoredFile, rows: int, row: int) -> tuple[str, str, dict[str, Any]]:
    """Prompt, answer and facts of one row; see ``read_lengths``."""
    block = _block(opened, _checked(opened, file, rows), row, row + 1)
    prompt, answer, stored = split(block)[0]
    try:
        facts = parse_canonical_json(stored)
        if not isinstance(facts, dict):
            raise ValueError("facts are no mapping")
        return prompt.decode(), answer.decode(), facts
    except ValueError as error:
        raise corrupt(str(opened.path), f"row {row}: {error}") from error


def split(block: Block) -> list[tuple[bytes, bytes, bytes]]:
    """Prompt, answer and facts of each row of a block."""
    lengths, texts = block
    ends = itertools.pairwise([0, *np.cumsum(lengths.reshape(-1)).tolist()])
    pieces = [texts[start:end] for start, end in ends]
    return list(zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True))


def _depth(value: Any, allowed: int = _DEEPEST) -> int:
    """How deep a value is nested, or one more than is allowed."""
    if not isinstance(value, (dict, list, tuple)) or allowed < 0:
        return 1
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(one, allowed - 1) for one in inner), default=0)


def text_frame(rows: int, blob: int) -> Frame:
    """Where offsets, texts and checksums lie in a text file of so many rows and bytes of text."""
    tensors = {
        "text_offsets": ("I64", (3 * rows + 1,)),
        "text_bytes": ("U8", (blob,)),
        "crcs": ("U8", (rows, 4)),
    }
    return Frame.of(tensors)


def _checked(opened: OpenFile, file: StoredFile, rows: int) -> Frame:
    if 28 * rows + file.blob > file.bytes:
        raise corrupt(str(opened.path), f"texts of {rows:,} rows do not fit into it")
    frame = text_frame(rows, file.blob)
    opened.check(frame)
    return frame


def _offsets(opened: OpenFile, frame: Frame, start: int, end: int) -> Lengths:
    """Where the texts of some rows begin, and where the last one ends."""
    first = frame.spans["text_offsets"].start
    data = opened.read(first + 24 * start, first + 24 * end + 8)
    ends: Lengths = np.frombuffer(data, "<i8")
    if ends[0] < 0 or ends[-1] > frame.spans["text_bytes"].shape[0] or (ends[1:] < ends[:-1]).any():
        raise corrupt(str(opened.path), "text_offsets do not divide the bytes they belong to")
    return ends


def _lengths(opened: OpenFile, frame: Frame, start: int, end: int) -> Lengths:
    found: Lengths = np.diff(_offsets(opened, frame, start, end)).reshape(-1, 3)
    return found


def _block(opened: OpenFile, frame: Frame, start: int, end: int) -> Block:
    ends = _offsets(opened, frame, start, end)
    lengths: Lengths = np.diff(ends).reshape(-1, 3)
    first = frame.spans["text_bytes"].start
    texts = bytes(opened.read(first + int(ends[0]), first + int(ends[-1])))
    crcs = unpack(opened.rows(frame.spans["crcs"].start, 4, np.arange(start, end)))
    if text_crcs(lengths, texts) != crcs.tolist():
        raise corrupt(str(opened.path), f"a checksum of its texts does not fit, in rows {start} to {end - 1}")
    return lengths, texts
