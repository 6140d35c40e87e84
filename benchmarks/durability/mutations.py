"""Mutations of stores, and the repair of every checksum afterwards, so that they reach what looks behind."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from msr_enhance.fingerprint import canonical_json, fingerprint
from msr_enhance.store import index, shard, texts, transform
from msr_enhance.store.checks import pack, text_crcs, vector_crcs
from msr_enhance.store.entry import file_name
from msr_enhance.store.frame import Frame
from msr_enhance.store.record import Layout

Tree = dict[str, Any]
"""JSON: a manifest, or a part of one."""

EDGES = (
    *(0, 1, -1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 1023, 4096, 65_535, 65_536),
    *(
        sign * 2**power + more
        for sign in (1, -1)
        for power in (15, 31, 32, 40, 52, 62, 63)
        for more in (-1, 0)
    ),
)
_WORDS: tuple[Any, ...] = (
    *(
        "",
        "user",
        "scenario",
        "int",
        "str",
        "vec",
        "idx",
        "int8",
        "project",
        "../../etc/passwd",
        "a/b",
        "C:\\x",
    ),
    *("\x00", "\ud800", "\u202e", "é" * 50, "0" * 64, "f" * 32, "manifest-1.json", "NaN", "1e999", "-0"),
    *(None, True, False, 0.5, -0.0, 1e308, 2**64, -(2**64), 10**400, [], {}, [[]], [0, 0], {"a": {}}),
)


def changed_tree(draw: random.Random, tree: Tree) -> Tree:
    """A copy of JSON with one to three places changed."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        spots = _spots(tree)
        if not spots:
            break
        holder, key = spots[int(len(spots) * draw.random() ** draw.choice((1, 3)))]  # often near the root
        _TREE_CHANGES[draw.randrange(len(_TREE_CHANGES))](draw, holder, key, spots)
    return tree


def _spots(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in JSON, from the root: what holds it, and its key or number there."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    for holder in todo:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                todo.append(holder[key])
    return found


def _to_edge(draw: random.Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = copy.deepcopy(draw.choice(EDGES))  # else a list could come to hold itself


def _to_word(draw: random.Random, holder: Any, key: Any, _: Any) -> None:
    holder[key] = copy.deepcopy(draw.choice(_WORDS))


def _nudged(draw: random.Random, holder: Any, key: Any, _: Any) -> None:
    value = holder[key]
    if isinstance(value, bool) or value is None:
        holder[key] = not value
    elif isinstance(value, (int, float)):
        holder[key] = draw.choice(
            (value + 1, value - 1, -value, value * 2, float(value) if value < 2**63 else 0)
        )
    elif isinstance(value, str):
        place = draw.randrange(len(value) + 1)
        holder[key] = value[:place] + draw.choice(("0", "f", "g", "/", "é", "\n", "")) + value[place + 1 :]
    else:
        holder[key] = draw.choice(([value], {"x": value}, [value, value]))


def _gone(draw: random.Random, holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, dict) or key < len(holder):
        del holder[key]


def _twice(draw: random.Random, holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), holder[key])
    else:
        holder[draw.choice(("x", "user", "scenario", key + "s"))] = holder[key]


def _from_elsewhere(draw: random.Random, holder: Any, key: Any, spots: Any) -> None:
    other, name = draw.choice(spots)
    if (name in other) if isinstance(other, dict) else (name < len(other)):
        holder[key] = json.loads(json.dumps(other[name]))


def _deeper(draw: random.Random, holder: Any, key: Any, _: Any) -> None:
    for _ in range(draw.choice((5, 30))):
        holder[key] = [holder[key]] if draw.random() < 0.5 else {"k": holder[key]}


_TREE_CHANGES: tuple[Callable[[random.Random, Any, Any, Any], None], ...] = (
    *(_to_edge, _to_word, _nudged, _nudged, _gone, _twice, _from_elsewhere, _from_elsewhere),
    _deeper,
)


def as_manifest(draw: random.Random, tree: Tree, repair: bool) -> bytes:
    """The bytes of a manifest, with the right checksum or with an old one, now and then not canonical."""
    content = {key: value for key, value in tree.items() if key != "checksum"}
    try:
        if repair:
            _repair_covers(content)
            return canonical_json(content | {"checksum": fingerprint(content)})
        data = canonical_json(tree)
    except (ValueError, TypeError):  # a lone surrogate has no UTF-8
        data = json.dumps(tree).encode()
    kind = draw.randrange(4)
    if kind == 0:
        return scrambled(draw, data)
    if kind == 1:  # a key twice
        return b"{" + b'"format":"msr-enhance-store",' * draw.choice((1, 2)) + data[1:]
    if kind == 2:
        return data.replace(b":", draw.choice((b": ", b":NaN,", b":1e999,", b":[")), 1)
    return data


def _repair_covers(tree: Tree) -> None:
    """Make right what the indexes of a manifest say of the entries they cover, where there are such."""
    with contextlib.suppress(TypeError, KeyError, AttributeError, ValueError):
        for level, part in tree["index"].items():
            entries = [entry for entry in tree["shards"] if entry["level"] == level][: part["entries"]]
            digests = [entry.get("vectors", entry.get("ids"))["sha256"] for entry in entries]
            part["covers"] = hashlib.sha256("".join(digests).encode()).hexdigest()[:32]


def scrambled(draw: random.Random, data: bytes) -> bytes:
    """A copy of bytes with some flipped, overwritten, moved, cut off or added."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        size = len(found)
        place = draw.randrange(size) if size else 0
        kind = draw.randrange(10)
        if kind < 3 and size:
            found[place] ^= 1 << draw.randrange(8)
        elif kind < 6:
            width = draw.choice((1, 2, 4, 8, 8))
            place -= place % width
            number = draw.choice((*EDGES, size, size - 1)) % (1 << 8 * width)
            found[place : place + width] = number.to_bytes(width, "little")
        elif kind == 6:
            some = found[place : place + draw.randrange(1, 40)]
            other = draw.randrange(size + 1)
            found[other : other + len(some)] = some
        elif kind == 7:
            found[place : place + draw.randrange(64)] = bytes(draw.randrange(64))
        elif kind == 8:
            found = found[:place] if draw.random() < 0.5 else found + bytes(draw.randrange(1, 100))
        else:
            found[8 : 8 + draw.randrange(120)] = found[9 : 9 + draw.randrange(120)]
    return bytes(found)


def misplaced(draw: random.Random, data: bytes, frame: Frame) -> bytes:
    """An index whose keys lie in other shards and rows, or nowhere."""
    rows = frame.spans["rows"]
    table = rows.array(data[rows.start : rows.end]).copy()
    for row in range(len(table)):
        if draw.random() < 0.5:
            entry, place = (
                draw.choice((0, 1, 2, 3, 4, 2**31 - 1, 2**31)),
                draw.choice((0, 1, 2, 3, 2**32 - 1)),
            )
            table[row, -1] = entry << index.ROW_BITS | place
    return data[: rows.start] + table.tobytes()


def fitted(data: bytes, frame: Frame, old: Frame) -> bytes:
    """Data under another header, cut or filled up to the size that goes with it, tensor by tensor."""
    found = bytearray(frame.header)
    for name, span in frame.spans.items():
        before = old.spans.get(name)
        some = data[before.start : before.end] if before else b""
        size = span.end - span.start
        found += some[:size] + bytes(max(0, size - len(some)))
    return bytes(found)


def frame_of(entry: Tree, kind: str, layout: Layout) -> Frame | None:
    """The frame that a manifest's part promises of a file, None where that is out of all proportion."""
    file, rows = entry[PLACES[kind]], entry.get("rows", 1)
    if not (0 <= rows < 4096 and 0 <= file["blob"] < 1 << 20 and 0 < layout.width < 4096):
        return None
    if kind == "vec":
        return shard._vector_frame(layout, rows, file["blob"])
    if kind == "txt":
        return texts.text_frame(rows, file["blob"])
    if kind == "del":
        return shard._id_frame(layout, rows, file["blob"])
    if kind == "idx":
        return index._frame(rows, 2 if layout.id_type == "int" else 3)
    shape = entry["shape"]
    good = 0 < len(shape) < 3 and all(0 < side < 4096 for side in shape)
    return transform._frame(entry["kind"], tuple(shape)) if good else None


PLACES = {"vec": "vectors", "txt": "texts", "del": "ids", "idx": "file", "map": "file"}


def repaired(entry: Tree, kind: str, layout: Layout, data: bytes) -> bytes:
    """The data with right checksums; those in the part of the manifest are made right, too."""
    frame = frame_of(entry, kind, layout)
    if frame and frame.bytes == len(data):
        found = bytearray(data)
        _REPAIRS.get(kind, lambda *_: None)(found, frame, entry, layout)
        data = bytes(found)
    digest = hashlib.sha256(data).hexdigest()
    entry[PLACES[kind]] |= {"bytes": len(data), "sha256": digest}
    return data


def name_of(file: Tree) -> str:
    """The name of a file in a store."""
    return file_name(file["kind"], file["sha256"])


def _repair_vectors(data: bytearray, frame: Frame, entry: Tree, layout: Layout) -> None:
    spans = frame.spans
    ids: list[Any] = []
    try:
        if layout.id_type == "int":
            ids = spans["ids"].array(data[spans["ids"].start : spans["ids"].end]).tolist()
        else:
            ends, letters = (
                spans[name].array(data[spans[name].start : spans[name].end])
                for name in ("id_offsets", "id_bytes")
            )
            ids = shard._words(ends, letters, "")
    except Exception:  # whoever reads it must say why
        ids = []
    if ids:
        span = spans["vectors"]
        crcs = vector_crcs(ids, span.array(data[span.start : span.end]))
        data[spans["crcs"].start : spans["crcs"].end] = pack(crcs)
    vectors = spans["vectors"]
    entry["heads"] = crc32(data[vectors.end :], crc32(data[: vectors.start]))


def _repair_texts(data: bytearray, frame: Frame, entry: Tree, layout: Layout) -> None:
    spans = frame.spans
    first, last = spans["text_bytes"].start, spans["text_bytes"].end
    ends = spans["text_offsets"].array(data[spans["text_offsets"].start : spans["text_offsets"].end])
    if ends[0] >= 0 and ends[-1] <= last - first and (ends[1:] >= ends[:-1]).all():
        lengths = np.diff(ends).reshape(-1, 3)
        crcs = text_crcs(lengths, bytes(data[first + int(ends[0]) : first + int(ends[-1])]))
        data[spans["crcs"].start : spans["crcs"].end] = pack(crcs)


def _repair_index(data: bytearray, frame: Frame, entry: Tree, layout: Layout) -> None:
    rows, crcs = frame.spans["rows"], frame.spans["crcs"]
    size = index.BLOCK * 8 * rows.shape[1]
    blocks = [data[start : min(start + size, rows.end)] for start in range(rows.start, rows.end, size)]
    data[crcs.start : crcs.end] = pack([crc32(block) for block in blocks])
    entry["heads"] = crc32(data[: rows.start])


_REPAIRS = {"vec": _repair_vectors, "txt": _repair_texts, "idx": _repair_index}
