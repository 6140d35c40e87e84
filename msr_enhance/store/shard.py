"""Shards: rows of a level as files, and back, with nothing taken on trust.

Rows are written piece by piece, so that a large shard is never whole in memory, and read one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from msr_enhance.store.checks import flat_bytes, pack, unpack, vector_crcs
from msr_enhance.store.entry import StoredFile
from msr_enhance.store.files import OpenFile, put
from msr_enhance.store.frame import Array, Frame, corrupt
from msr_enhance.store.numbers import KIND, itemsize
from msr_enhance.store.record import STATUSES, IdType, Layout


class Heads(NamedTuple):
    """What a shard says of its rows besides their vectors.

    Attributes:
        ids: The ids.
        status: uint8 ``[rows]``, positions in ``STATUSES``.
        tokens: int32 ``[rows, 2]``, of prompt and answer.
    """

    ids: list[int] | list[str]
    status: Array
    tokens: Array


def write_vectors(
    folder: Path, layout: Layout, heads: Heads, vectors: Iterable[Array]
) -> tuple[StoredFile, int]:
    """Write the vector file of a shard.

    Args:
        folder: The store's folder.
        layout: Of the level.
        heads: The rows without their vectors.
        vectors: Their vectors as they are kept, in blocks ``[some rows, width]``.

    Returns:
        The file, the same for the same rows however they are divided into blocks; and the CRC-32 of all of
        it but the vectors.

    Raises:
        OSError: If the disk refuses.
    """
    names, letters = _id_bytes(layout.id_type, heads.ids)
    frame = _vector_frame(layout, len(heads.ids), len(letters))
    front = frame.header + names + heads.tokens.astype("<i4", copy=False).tobytes()
    status, crcs, back = heads.status.astype(np.uint8, copy=False).tobytes(), list[Array](), b""

    def pieces() -> Iterator[bytes | memoryview]:
        nonlocal back
        yield front
        done = 0
        for block in vectors:
            crcs.append(vector_crcs(heads.ids[done : done + len(block)], block))
            done += len(block)
            yield flat_bytes(block)
        back = pack(np.concatenate(crcs)) + status + letters
        yield back

    file = put(folder, "vec", pieces(), len(letters))
    return file, crc32(back, crc32(front))


def read_heads(opened: OpenFile, file: StoredFile, rows: int, layout: Layout, crc: int) -> Heads:
    """What a vector file says of its rows; the vectors are not read.

    Args:
        opened: The file.
        file: What the manifest promises of it.
        rows: How many rows it promises.
        layout: What it promises of them.
        crc: CRC-32 of what is read here.

    Returns:
        The rows.

    Raises:
        StoreCorruptError: If anything is not as promised.
        StoreIOError: If the disk refuses.
    """
    source, frame = str(opened.path), checked_frame(opened, file, rows, layout)
    vectors = frame.spans["vectors"]
    front, back = opened.read(0, vectors.start), opened.read(vectors.end, frame.bytes)
    if crc32(back, crc32(front)) != crc:
        raise corrupt(source, "the checksum of its ids, states and token counts does not fit")

    def tensor(name: str) -> Array:
        span = frame.spans[name]
        if span.start < vectors.start:
            return span.array(memoryview(front)[span.start : span.end])
        return span.array(memoryview(back)[span.start - vectors.end : span.end - vectors.end])

    status, tokens = tensor("status"), tensor("tokens")
    if (status >= len(STATUSES)).any() or (tokens < 0).any():
        raise corrupt(source, f"has a status outside {', '.join(STATUSES)}, or negative tokens")
    if layout.id_type == "int":
        return Heads(tensor("ids").tolist(), status, tokens)
    return Heads(_words(tensor("id_offsets"), tensor("id_bytes"), source), status, tokens)


def read_vectors(
    opened: OpenFile,
    frame: Frame,
    ids: Sequence[int | str],
    rows: npt.NDArray[np.int64],
) -> Array:
    """Some vectors of a shard, as they are kept.

    Args:
        opened: The vector file.
        frame: Of that file, from ``checked_frame``.
        ids: The ids that these rows should have.
        rows: The rows, ascending, none twice.

    Returns:
        A new array ``[len(rows), width]``.

    Raises:
        StoreCorruptError: If a row is not what was written, or not of that id.
        StoreIOError: If the disk refuses.
    """
    span, crcs = frame.spans["vectors"], frame.spans["crcs"]
    row_bytes = (span.end - span.start) // span.shape[0]
    data = opened.rows(span.start, row_bytes, rows)
    wrong = np.flatnonzero(vector_crcs(ids, data) != unpack(opened.rows(crcs.start, 4, rows)))
    if len(wrong):
        raise corrupt(
            str(opened.path),
            f"the checksum of {len(wrong)} rows does not fit, the first of them row {int(rows[wrong[0]])}",
        )
    return span._replace(shape=(len(rows), span.shape[1])).array(flat_bytes(data))


def checked_frame(opened: OpenFile, file: StoredFile, rows: int, layout: Layout) -> Frame:
    """The frame of a vector file, once the file has its size and its header; see ``read_heads``."""
    # Multiplied as Python integers, and compared with a size that is on disk, before anything is allocated.
    if rows * layout.width * itemsize(layout.dtype) + 9 * rows + file.blob > file.bytes:
        raise corrupt(str(opened.path), f"{rows:,} rows of {layout.width:,} numbers do not fit into it")
    frame = _vector_frame(layout, rows, file.blob)
    opened.check(frame)
    return frame


def write_ids(folder: Path, layout: Layout, ids: Sequence[int | str]) -> StoredFile:
    """Write the file of a tombstone: ids and nothing else; see ``write_vectors``."""
    names, letters = _id_bytes(layout.id_type, ids)
    frame = _id_frame(layout, len(ids), len(letters))
    return put(folder, "del", [frame.header, names, letters], len(letters))


def read_ids(data: bytes | bytearray, file: StoredFile, rows: int, layout: Layout) -> list[int] | list[str]:
    """Read the file of a tombstone, whose digest was compared; see ``read_heads``."""
    frame = _id_frame(layout, rows, file.blob) if 8 * rows + file.blob <= file.bytes else None
    if frame is None or len(data) != frame.bytes or data[: len(frame.header)] != frame.header:
        raise corrupt(file.name, "its header names other ids than the manifest")
    arrays = {name: span.array(memoryview(data)[span.start : span.end]) for name, span in frame.spans.items()}
    if layout.id_type == "int":
        numbers: list[int] = arrays["ids"].tolist()
        return numbers
    return _words(arrays["id_offsets"], arrays["id_bytes"], file.name)


def _ids(id_type: IdType, rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {"ids": ("I64", (rows,))} if id_type == "int" else {"id_offsets": ("I64", (rows + 1,))}


def _letters(id_type: IdType, blob: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {} if id_type == "int" else {"id_bytes": ("U8", (blob,))}


def _vector_frame(layout: Layout, rows: int, blob: int) -> Frame:
    # Long numbers first, so that each tensor is aligned to its own kind.
    return Frame.of(
        {
            **_ids(layout.id_type, rows),
            "tokens": ("I32", (rows, 2)),
            "vectors": (KIND[layout.dtype], (rows, layout.width)),
            "crcs": ("U8", (rows, 4)),
            "status": ("U8", (rows,)),
            **_letters(layout.id_type, blob),
        },
        {"level": layout.level},
    )


def _id_frame(layout: Layout, rows: int, blob: int) -> Frame:
    return Frame.of(_ids(layout.id_type, rows) | _letters(layout.id_type, blob), {"level": layout.level})


def _id_bytes(id_type: IdType, ids: Sequence[Any]) -> tuple[bytes, bytes]:
    """Ids as numbers of eight bytes, and the letters that these divide."""
    if id_type == "int":
        return np.array(ids, "<i8").tobytes(), b""
    names = [name.encode() for name in ids]
    return np.cumsum([0, *map(len, names)], dtype="<i8").tobytes(), b"".join(names)


def _words(ends: Array, letters: Array, source: str) -> list[str]:
    blob = letters.tobytes()
    if ends[0] != 0 or ends[-1] != len(blob) or (ends[1:] < ends[:-1]).any():
        raise corrupt(source, f"id_offsets do not divide the {len(blob)} bytes they belong to")
    try:
        return [blob[start:end].decode() for start, end in itertools.pairwise(ends.tolist())]
    except UnicodeDecodeError as error:
        raise corrupt(source, f"has an id that is not UTF-8: {error}") from error
