"""Pieces of a sentencepiece `tokenizer.model`, read from its protobuf bytes by hand.

The layout is that of sentencepiece's `sentencepiece_model.proto`. Reading it here saves two dependencies
(sentencepiece and protobuf) and lets a damaged file be refused by name.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm.tensors import refuse_pointer

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
# ChatGLM2's own: 1,018,370 bytes, 64,789 pieces of at most 16 characters.
LARGEST_FILE, MOST_PIECES, LONGEST_PIECE = 16 << 20, 1_000_000, 256
_FIRST = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))
_BPE = 2
# Setting: (message, field, its default, what the fast tokenizer can do).
_SETTINGS = {
    "model_type": (2, 3, 1, _BPE),
    "treat_whitespace_as_suffix": (2, 24, 0, 0),
    "byte_fallback": (2, 35, 0, 1),
    "precompiled_charsmap": (3, 2, b"", b""),
    "add_dummy_prefix": (3, 3, 1, 1),
    "remove_extra_whitespaces": (3, 4, 1, 0),
    "escape_whitespaces": (3, 5, 1, 1),
}
_Value = int | bytes


class Piece(NamedTuple):
    """One entry of the vocabulary; its position is its id.

    Attributes:
        text: The piece; a space is written ``▁``.
        score: Rank of its merge; higher merges earlier.
        kind: `NORMAL`, `UNKNOWN`, `CONTROL` or `BYTE`.
    """

    text: str
    score: float
    kind: int


def read_pieces(path: Path) -> list[Piece]:
    """Read the vocabulary of a BPE `tokenizer.model` with byte fallback, as ChatGLM2 and ChatGLM3 have it.

    Args:
        path: The file.

    Returns:
        Its pieces in order of id; ``<unk>``, ``<s>`` and ``</s>`` are 0, 1 and 2, and every byte is there.

    Raises:
        ModelError: If the file is missing, damaged, a tokenizer of another kind, or larger than any
            tokenizer should be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Fetch the whole model.") from error
    refuse_pointer(path, content[:64])
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", content[:4096]):
        raise ModelError(
            f"{path} is a tiktoken file, which only GLM-4 with its own code uses; write the repository whose "
            "name ends in -hf, for example --model THUDM/glm-4-9b-chat-hf."
        )
    if len(content) > LARGEST_FILE:
        raise ModelError(
            f"{path} has more than {LARGEST_FILE} bytes, too many for a tokenizer. Fetch it again."
        )
    try:
        pieces = _parse(content)
        _check(pieces)
    except ValueError as error:
        raise ModelError(
            f"{path} is no sentencepiece BPE model of ChatGLM2 or ChatGLM3: {error}. Fetch it again."
        ) from error
    return pieces


def _parse(content: bytes) -> list[Piece]:
    pieces: list[Piece] = []
    settings: dict[tuple[int, int], _Value] = {}
    for field, value in _fields(content):
        if field == 1:
            if len(pieces) == MOST_PIECES:
                raise ValueError(f"more than {MOST_PIECES} pieces")
            pieces.append(_piece(_as_bytes(value), len(pieces)))
        elif field in (2, 3):
            settings |= {(field, inner): one for inner, one in _fields(_as_bytes(value))}
    if not pieces:
        raise ValueError("it holds no pieces")
    for name, (message, field, default, wanted) in _SETTINGS.items():
        seen = settings.get((message, field), default)
        if seen != wanted:
            raise ValueError(f"{name} is {seen!r:.40}, and only {wanted!r} can be represented")
    return pieces


def _piece(content: bytes, number: int) -> Piece:
    parts = dict(_fields(content))
    text = _as_bytes(parts.get(1, b"")).decode("utf-8")
    raw, kind = parts.get(2, bytes(4)), parts.get(3, NORMAL)
    if not isinstance(raw, bytes) or len(raw) != 4:
        raise ValueError(f"piece {number} has no float score")
    (score,) = struct.unpack("<f", raw)
    if not 1 <= len(text) <= LONGEST_PIECE or not math.isfinite(score):
        raise ValueError(f"piece {number} has {len(text)} characters and the score {score}")
    if kind not in (NORMAL, UNKNOWN, CONTROL, BYTE):
        raise ValueError(f"piece {number} is of kind {kind!r:.20} (user-defined or unused)")
    return Piece(text, score, int(kind))


def _check(pieces: list[Piece]) -> None:
    if tuple((one.text, one.kind) for one in pieces[:3]) != _FIRST:
        seen = [one.text for one in pieces[:3]]
        raise ValueError(f"its first pieces are {seen!r:.80}, not <unk>, <s>, </s>")
    if any(one.kind in (UNKNOWN, CONTROL) for one in pieces[3:]):
        raise ValueError("it has control pieces beside <unk>, <s> and </s>")
    if len({one.text for one in pieces}) != len(pieces):
        raise ValueError("a piece appears twice")
    if sorted(one.text for one in pieces if one.kind == BYTE) != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise ValueError("the 256 byte pieces <0x00> to <0xFF> are not complete")


def _fields(content: bytes) -> Iterator[tuple[int, _Value]]:
    """Number and value of every field of one protobuf message; floats stay 4 bytes."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == 0:
            number, at = _varint(content, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            length, at = _varint(content, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"byte {at} is no protobuf field")
        if length > len(content) - at:
            raise ValueError(f"it ends inside a field of {length} bytes")
        yield tag >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise ValueError("it ends inside a number")
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError(f"byte {at} is no protobuf number")


def _as_bytes(value: _Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value
