"""A small sentencepiece BPE file written byte by byte, and a slow tokenizer that reads its pieces."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
CORPUS = (
    "in shop: plain kit | cooking; bold set | music. which interests are common? the user likes the sea, "
    "the sand and the music of the sea. 用户喜欢音乐和电影。用户喜欢旅行。 "
    "[Round 1]\n\n问：电影？\n\n答：音乐。 aaaa aaa aa"
)
Entry = tuple[str, float, int]


def entries(merges: int = 120) -> list[Entry]:
    """Specials, bytes, merged pieces in the order in which the corpus makes them, single characters."""
    words = [list(SPACE + word) for word in CORPUS.split(" ")]
    merged: list[str] = []
    for _ in range(merges):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merged.append("".join(best))
        words = [_joined(word, best) for word in words]
    # A piece may be reached in two ways; it is listed where it came first.
    pieces = list(dict.fromkeys(merged))
    singles = sorted({*CORPUS.replace(" ", SPACE)} - set(pieces))
    found: list[Entry] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    found += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    return found + [(text, -float(rank), NORMAL) for rank, text in enumerate((*pieces, *singles))]


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for one in word:
        if out and (out[-1], one) == pair:
            out[-1] += one
        else:
            out.append(one)
    return out


def model_bytes(
    pieces: Sequence[Entry], trainer: dict[int, int] | None = None, normalizer: dict[int, Any] | None = None
) -> bytes:
    """The file: pieces, then the trainer's and the normaliser's settings by field number."""
    trainer = {3: 2, 24: 0, 35: 1, 43: (1 << 64) - 1} | (trainer or {})
    normalizer = {1: b"identity", 2: b"", 3: 1, 4: 0} | (normalizer or {})
    content = b"".join(
        field(1, field(1, text.encode()) + tag(2, 5) + struct.pack("<f", score) + field(3, kind))
        for text, score, kind in pieces
    )
    spec = b"".join(field(number, value) for number, value in trainer.items())
    content += field(2, spec + tag(51, 5) + struct.pack("<f", 0.5))
    return content + field(3, b"".join(field(number, value) for number, value in normalizer.items()))


def field(number: int, value: int | bytes) -> bytes:
    """One protobuf field: a number, or bytes with their length."""
    if isinstance(value, int):
        return tag(number, 0) + varint(value)
    return tag(number, 2) + varint(len(value)) + value


def tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def slow_encode(text: str, pieces: Sequence[Entry]) -> list[int]:
    """Merge the neighbours whose piece has the highest score, the leftmost first, until none is left."""
    known = {piece: (score, number) for number, (piece, score, kind) in enumerate(pieces) if kind == NORMAL}
    bytes_at = {piece: number for number, (piece, _, kind) in enumerate(pieces) if kind == BYTE}
    parts = list((SPACE + text).replace(" ", SPACE)) if text else []
    while True:
        best = None
        for at in range(len(parts) - 1):
            found = known.get(parts[at] + parts[at + 1])
            if found and (best is None or found[0] > best[0]):
                best = (found[0], at)
        if best is None:
            break
        at = best[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    ids: list[int] = []
    for part in parts:
        if part in known:
            ids.append(known[part][1])
        else:
            ids += [bytes_at[f"<0x{byte:02X}>"] for byte in part.encode()]
    return ids


def slow_decode(ids: Sequence[int], pieces: Sequence[Entry]) -> str:
    """Print pieces and bytes in order; a special prints nothing, a broken byte one U+FFFD."""
    whole, first = "", True
    known = [pieces[one] if one < len(pieces) else ("", 0.0, CONTROL) for one in ids]
    for kind, group in groupby(known, key=lambda entry: entry[2]):
        texts = [text for text, _, _ in group]
        if kind == BYTE:
            whole += _runs(bytes(int(text[3:5], 16) for text in texts))
        elif kind == NORMAL:
            whole += "".join(texts)[first and texts[0][0] == SPACE :].replace(SPACE, " ")
        first = first and kind not in (BYTE, NORMAL)
    return whole


def _runs(run: bytes) -> str:
    # A lone surrogate stands for one broken byte and for nothing else.
    kept = run.decode("utf-8", "surrogateescape")
    return "".join("\ufffd" if 0xDC80 <= ord(sign) <= 0xDCFF else sign for sign in kept)
