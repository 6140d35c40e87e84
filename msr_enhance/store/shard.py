"""Shards: records as safetensors bytes, and back, with nothing taken on trust."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from msr_enhance.errors import StoreCorruptError
from msr_enhance.fingerprint import canonical_json, parse_canonical_json
from msr_enhance.store.record import STATUSES, IdType, Level, Record

HEADER_BYTES = 1 << 20

Array = npt.NDArray[Any]
_TEXTS = ("prompt", "answer", "facts")


class VectorShard(NamedTuple):
    """Rows of a level.

    Attributes:
        ids: The ids.
        status: uint8 ``[rows]``, positions in ``STATUSES``.
        tokens: int32 ``[rows, 2]``, of prompt and answer.
        vectors: ``[rows, dim]``.
    """

    ids: list[int] | list[str]
    status: Array
    tokens: Array
    vectors: Array


class TextShard(NamedTuple):
    """Prompts, answers and facts of the same rows, as UTF-8."""

    prompt: list[bytes]
    answer: list[bytes]
    facts: list[bytes]

    def row(self, position: int, source: str) -> tuple[str, str, dict[str, Any]]:
        """Prompt, answer and facts of one row; damage is a ``StoreCorruptError``."""
        try:
            facts = parse_canonical_json(self.facts[position])
            if not isinstance(facts, dict):
                raise ValueError("facts are no mapping")
            return self.prompt[position].decode(), self.answer[position].decode(), facts
        except ValueError as error:
            raise _corrupt(source, f"row {position}: {error}") from error


def encode_vectors(
    level: Level, ids: Sequence[int | str], records: Sequence[Record], vectors: Array
) -> bytes:
    """The vector file of a shard.

    Args:
        level: The level, so that equal rows of two levels are two files.
        ids: The rows' ids, all of one type.
        records: The rows.
        vectors: Their vectors as they are kept, ``[rows, dim]``.

    Returns:
        The file's content, the same for the same rows.
    """
    named = (
        {"ids": np.array(ids, np.int64)}
        if isinstance(ids[0], int)
        else _pack("id", (str(name).encode() for name in ids))
    )
    tensors = named | {
        "status": np.array([STATUSES.index(record.status) for record in records], np.uint8),
        "tokens": np.array([(record.prompt_tokens, record.answer_tokens) for record in records], np.int32),
        "vectors": np.ascontiguousarray(vectors),
    }
    return safetensors.numpy.save(tensors, {"level": level})


def encode_texts(records: Sequence[Record]) -> bytes:
    """The text file of a shard.

    Args:
        records: The rows.

    Returns:
        The file's content.

    Raises:
        ValueError: If a text is not Unicode, or facts hold NaN or would not read back.
        TypeError: If facts are not JSON.
    """
    return safetensors.numpy.save(
        _pack("prompt", (record.prompt.encode() for record in records))
        | _pack("answer", (record.text.encode() for record in records))
        | _pack("facts", (_facts(record.facts) for record in records))
    )


def decode_vectors(data: bytes, source: str, rows: int, dim: int, dtype: str, kind: IdType) -> VectorShard:
    """Read a vector file.

    Args:
        data: The file's content.
        source: Its name, for messages.
        rows: The rows the manifest promises.
        dim: The width it promises.
        dtype: The type it promises for vectors.
        kind: The type it promises for ids.

    Returns:
        The rows.

    Raises:
        StoreCorruptError: If anything is not as promised.
    """
    offsets = {"ids": (np.int64, (rows,))} if kind == "int" else _packed("id", rows)
    tensors = _tensors(
        data,
        source,
        {
            **offsets,
            "status": (np.uint8, (rows,)),
            "tokens": (np.int32, (rows, 2)),
            "vectors": (np.dtype(dtype), (rows, dim)),
        },
    )
    status, vectors = tensors["status"], tensors["vectors"]
    if (status >= len(STATUSES)).any() or (tensors["tokens"] < 0).any():
        raise _corrupt(source, f"has a status outside {', '.join(STATUSES)}, or negative tokens")
    if not np.isfinite(vectors).all() or vectors[status != 0].any():
        raise _corrupt(source, "has a vector with NaN or infinity, or one in a row that is not ok")
    if kind == "int":
        return VectorShard(tensors["ids"].tolist(), status, tensors["tokens"], vectors)
    try:
        names = [name.decode() for name in _unpack("id", tensors, source)]
    except UnicodeDecodeError as error:
        raise _corrupt(source, f"has an id that is not UTF-8: {error}") from error
    return VectorShard(names, status, tensors["tokens"], vectors)


def decode_texts(data: bytes, source: str, rows: int) -> TextShard:
    """Read a text file; see ``decode_vectors``."""
    promised = _packed("prompt", rows) | _packed("answer", rows) | _packed("facts", rows)
    tensors = _tensors(data, source, promised)
    return TextShard(*(_unpack(name, tensors, source) for name in _TEXTS))


def _tensors(
    data: bytes, source: str, promised: Mapping[str, tuple[Any, tuple[int, ...]]]
) -> dict[str, Array]:
    """The tensors of a file; ``-1`` in a promised shape is any length."""
    if int.from_bytes(data[:8], "little") > HEADER_BYTES:
        raise _corrupt(source, f"has a header over {HEADER_BYTES >> 20} MiB")
    try:
        tensors: dict[str, Array] = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _corrupt(source, str(error)) from error
    if tensors.keys() != promised.keys():
        raise _corrupt(source, f"holds {', '.join(sorted(tensors))}; expected {', '.join(sorted(promised))}")
    for name, (dtype, shape) in promised.items():
        seen = tensors[name]
        if (
            seen.dtype != dtype
            or seen.ndim != len(shape)
            or any(want not in (have, -1) for have, want in zip(seen.shape, shape, strict=True))
        ):
            raise _corrupt(source, f"{name} is {seen.dtype} {seen.shape}; expected {np.dtype(dtype)} {shape}")
    return tensors


def _pack(name: str, texts: Iterable[bytes]) -> dict[str, Array]:
    """Texts as one blob and the places where each begins and ends."""
    pieces = list(texts)
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return {f"{name}_bytes": np.frombuffer(b"".join(pieces), np.uint8), f"{name}_offsets": ends}


def _facts(facts: dict[str, Any]) -> bytes:
    data = canonical_json(facts)
    parse_canonical_json(data)  # keys that are numbers may be written, but not in the order they read back
    return data


def _packed(name: str, rows: int) -> dict[str, tuple[Any, tuple[int, ...]]]:
    return {f"{name}_bytes": (np.uint8, (-1,)), f"{name}_offsets": (np.int64, (rows + 1,))}


def _unpack(name: str, tensors: Mapping[str, Array], source: str) -> list[bytes]:
    blob, ends = tensors[f"{name}_bytes"].tobytes(), tensors[f"{name}_offsets"]
    if ends[0] != 0 or ends[-1] != len(blob) or (ends[1:] < ends[:-1]).any():
        raise _corrupt(source, f"{name}_offsets do not divide the {len(blob)} bytes they belong to")
    places = ends.tolist()
    return [blob[start:end] for start, end in itertools.pairwise(places)]


def _corrupt(source: str, what: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{source} is not as it was written: {what}. Fetch the store again, or extract into a new folder."
    )
