"""Shards: rows of a level as files, and back, with nothing taken on trust.

Rows are encoded piece by piece, so that a large shard is never whole in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.fingerprint import canonical_json, parse_canonical_json
from msr_enhance.store.record import STATUSES, IdType, Level, Record, is_known
from msr_enhance.store.tensors import (
    Array,
    Promised,
    corrupt,
    header,
    packed,
    some_tensors,
    tensors_of,
    unpack,
)

_TEXTS = 3  # prompt, answer and facts of a row stand side by side


class Layout(NamedTuple):
    """What a manifest promises of all shards of a level.

    Attributes:
        level: The level, so that equal rows of two levels are two files.
        width: Numbers in a vector, all layers together.
        dtype: How they are kept.
        id_type: Type of the ids.
    """

    level: Level
    width: int
    dtype: str
    id_type: IdType


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


class TextShard(NamedTuple):
    """Prompts, answers and facts of the same rows, as UTF-8, three a row."""

    pieces: list[bytes]

    def row(self, position: int, source: str) -> tuple[str, str, dict[str, Any]]:
        """Prompt, answer and facts of one row; damage is a ``StoreCorruptError``."""
        prompt, answer, stored = self.pieces[_TEXTS * position : _TEXTS * (position + 1)]
        try:
            facts = parse_canonical_json(stored)
            if not isinstance(facts, dict):
                raise ValueError("facts are no mapping")
            return prompt.decode(), answer.decode(), facts
        except ValueError as error:
            raise corrupt(source, f"row {position}: {error}") from error

    def prompts(self) -> list[bytes]:
        """The prompt of every row."""
        return self.pieces[::_TEXTS]

    def rows(self, keep: npt.NDArray[np.bool_]) -> bytes:
        """The texts of some rows, as they stand in a file."""
        return b"".join(itertools.compress(self.pieces, np.repeat(keep, _TEXTS).tolist()))


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
    facts = canonical_json(record.facts)
    parse_canonical_json(facts)  # keys that are numbers may be written, but not in the order they read back
    return record.prompt.encode(), record.text.encode(), facts


def encode_vectors(layout: Layout, heads: Heads, vectors: Iterable[Array]) -> Iterator[bytes]:
    """The vector file of a shard, piece by piece.

    Args:
        layout: Of the level.
        heads: The rows without their vectors.
        vectors: Their vectors as they are kept, in blocks ``[some rows, width]``.

    Yields:
        The file's content, the same for the same rows however they are divided into blocks.
    """
    rows, (names, text) = len(heads.ids), _id_arrays(layout.id_type, heads.ids)
    dtype = np.dtype(layout.dtype)
    yield header(
        {name: (array.dtype, array.shape) for name, array in names.items()}
        | {"tokens": (np.dtype(np.int32), (rows, 2)), "vectors": (dtype, (rows, layout.width))}
        | {"status": (np.dtype(np.uint8), (rows,))}
        | {name: (array.dtype, array.shape) for name, array in text.items()},
        {"level": layout.level},
    )
    yield from (array.tobytes() for array in names.values())
    yield heads.tokens.astype(np.int32, copy=False).tobytes()
    yield from (block.astype(dtype, copy=False).tobytes() for block in vectors)
    yield heads.status.astype(np.uint8, copy=False).tobytes()
    yield from (array.tobytes() for array in text.values())


def encode_texts(lengths: npt.NDArray[np.int64], blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The text file of a shard, piece by piece.

    Args:
        lengths: Bytes of every prompt, answer and facts, ``[3 * rows]``.
        blocks: The texts themselves, in blocks of whole rows.

    Yields:
        The file's content.
    """
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    yield header(
        {
            "text_offsets": (offsets.dtype, offsets.shape),
            "text_bytes": (np.dtype(np.uint8), (int(offsets[-1]),)),
        }
    )
    yield offsets.tobytes()
    yield from blocks


def encode_ids(layout: Layout, ids: Sequence[int | str]) -> Iterator[bytes]:
    """The file of a tombstone, piece by piece: ids and nothing else."""
    names, text = _id_arrays(layout.id_type, ids)
    arrays = names | text
    yield header(
        {name: (array.dtype, array.shape) for name, array in arrays.items()}, {"level": layout.level}
    )
    yield from (array.tobytes() for array in arrays.values())


def decode_vectors(data: bytes, source: str, rows: int, layout: Layout) -> tuple[Heads, Array]:
    """Read a vector file.

    Args:
        data: The file's content.
        source: Its name, for messages.
        rows: The rows the manifest promises.
        layout: What it promises of them.

    Returns:
        The rows, and their vectors ``[rows, width]``.

    Raises:
        StoreCorruptError: If anything is not as promised.
    """
    tensors = tensors_of(data, source, _promised(rows, layout))
    heads, vectors = _heads(tensors, source, layout), tensors["vectors"]
    if not np.isfinite(vectors).all() or vectors[~is_known(heads.status)].any():
        raise corrupt(source, "has a vector with NaN or infinity, or one in a row that is empty or failed")
    return heads, vectors


def read_heads(path: Path, rows: int, layout: Layout) -> Heads:
    """What a vector file says of its rows; the vectors are not read. See ``decode_vectors``."""
    promised = _promised(rows, layout)
    return _heads(some_tensors(path, promised, promised.keys() - {"vectors"}), path.name, layout)


def decode_texts(data: bytes, source: str, rows: int) -> TextShard:
    """Read a text file; see ``decode_vectors``."""
    return TextShard(unpack("text", tensors_of(data, source, packed("text", _TEXTS * rows)), source))


def read_text_lengths(path: Path, rows: int) -> npt.NDArray[np.int64]:
    """Bytes of every prompt, answer and facts of a text file, ``[3 * rows]``; see ``decode_vectors``."""
    tensors = some_tensors(path, packed("text", _TEXTS * rows), {"text_offsets"})
    lengths: npt.NDArray[np.int64] = np.diff(tensors["text_offsets"])
    return lengths


def decode_ids(data: bytes, source: str, rows: int, layout: Layout) -> list[int] | list[str]:
    """Read the file of a tombstone; see ``decode_vectors``."""
    return _ids(tensors_of(data, source, _promised_ids(rows, layout)), source, layout)


def _promised_ids(rows: int, layout: Layout) -> Promised:
    return {"ids": (np.int64, (rows,))} if layout.id_type == "int" else packed("id", rows)


def _promised(rows: int, layout: Layout) -> Promised:
    return {
        **_promised_ids(rows, layout),
        "status": (np.uint8, (rows,)),
        "tokens": (np.int32, (rows, 2)),
        "vectors": (np.dtype(layout.dtype), (rows, layout.width)),
    }


def _heads(tensors: Mapping[str, Array], source: str, layout: Layout) -> Heads:
    status, tokens = tensors["status"], tensors["tokens"]
    if (status >= len(STATUSES)).any() or (tokens < 0).any():
        raise corrupt(source, f"has a status outside {', '.join(STATUSES)}, or negative tokens")
    return Heads(_ids(tensors, source, layout), status, tokens)


def _ids(tensors: Mapping[str, Array], source: str, layout: Layout) -> list[int] | list[str]:
    if layout.id_type == "int":
        numbers: list[int] = tensors["ids"].tolist()
        return numbers
    try:
        return [name.decode() for name in unpack("id", tensors, source)]
    except UnicodeDecodeError as error:
        raise corrupt(source, f"has an id that is not UTF-8: {error}") from error


def _id_arrays(id_type: IdType, ids: Sequence[int | str]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Ids as arrays of eight-byte numbers, and their letters, which come last in a file."""
    if id_type == "int":
        return {"ids": np.array(ids, np.int64)}, {}
    names = [str(name).encode() for name in ids]
    ends = np.cumsum([0, *map(len, names)], dtype=np.int64)
    return {"id_offsets": ends}, {"id_bytes": np.frombuffer(b"".join(names), np.uint8)}
