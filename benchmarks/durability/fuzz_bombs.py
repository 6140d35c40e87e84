"""Inputs that are small on disk and would be large, deep or slow in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from msr_enhance.fingerprint import canonical_json, fingerprint
from msr_enhance.store.manifest import MANIFEST_BYTES, Manifest

_ROOM = MANIFEST_BYTES - 4096


def bombs(valid: bytes) -> Iterator[tuple[str, bytes]]:
    """Manifests of nearly the largest size that is read at all, and deep ones: name and bytes.

    Args:
        valid: A manifest.
    """
    manifest = Manifest.from_bytes(valid, "manifest")
    for place in ("identity", "facts"):
        for name, text in _values():
            yield f"{place} {name}", _with(manifest, place, text)
    shard = max(manifest.shards, key=lambda entry: len(entry.model_dump_json()))
    tree = manifest.model_dump(mode="json")
    tree["shards"] = [shard.model_dump(mode="json")] * (_ROOM // len(shard.model_dump_json()))
    yield "one shard many times", _signed(tree)
    tree["shards"] = [
        shard.model_dump(mode="json") | {"vectors": shard.vectors.model_dump() | {"sha256": f"{n:064x}"}}
        for n in range(_ROOM // (len(shard.model_dump_json()) + 8))
    ]
    yield "many shards", _signed(tree)
    names = {f"{n:030x}": 0 for n in range(110_000)}
    for place in ("", "provenance", "shape", "id_type", "index", "keyed"):
        tree = manifest.model_dump(mode="json")
        (tree[place] if place else tree).update(names)
        yield f"names in {place or 'it'}", _signed(tree)
    tree, long = manifest.model_dump(mode="json"), "x" * 60
    for name, item, count in (
        ("no shard", {"": long * 2}, 30_000),
        ("number", 2**31, 16_000),
        ("word", long, 60_000),
        ("wrong shard", {"level": long, "x": 0, "rows": -1, "tier": 99, "heads": long}, 20_000),
    ):
        yield f"{name} many times", _signed(tree | {"shards": [item] * count})
    yield "names in a map", _signed(tree | {"maps": [names]})
    yield "long shape", _signed(tree | {"shape": {"user": [2**60] * 150_000}})
    yield "larger than any", b" " * (MANIFEST_BYTES + 1)
    yield "only brackets", b"[" * MANIFEST_BYTES
    yield "nothing", b""
    yield "zeros", bytes(4096)


def _values() -> Iterator[tuple[str, str]]:
    for name, item in {
        "small numbers": "0",
        "numbers": "1234567",
        "decimals": "0.5",
        "empty texts": '""',
        "texts": '"abcdefg"',
        "long decimals": "0.12345678901234567890123",
        "longer texts": '"abcdefghijklmnopqrstuvwxyz"',
        "nothings": "null",
        "truths": "true",
    }.items():
        yield name, "[" + ",".join([item] * (_ROOM // (len(item) + 1))) + "]"
    yield "empty lists", "[" + ",".join(["[]"] * (_ROOM // 3)) + "]"
    for width in (6, 20, 60):
        keys = (f'"{n:0{width}x}":0' for n in range(_ROOM // (width + 5)))
        yield f"keys of {width} letters", "{" + ",".join(keys) + "}"
    yield "long text", '"' + "é" * (_ROOM // 2) + '"'
    yield "long number", "1" + "0" * 4_299
    yield "too long number", "1" + "0" * (_ROOM - 1)
    for depth in (*range(100, 1100, 7), 5_000):
        room = " " if depth > 64 else ""
        yield f"depth {depth}", "[" * depth + f'"{room}{"x" * 24 * depth}"' + "]" * depth


def _with(manifest: Manifest, place: str, text: str) -> bytes:
    """A manifest with a value in its provenance, spelled as it is."""
    tree: dict[str, Any] = manifest.model_dump(mode="json")
    tree["provenance"][place] = {"k": "HERE"}
    # A checksum is of bytes, and so needs no parsing either.
    plain = canonical_json(tree).replace(b'"HERE"', text.encode())
    tree["checksum"] = hashlib.sha256(plain).hexdigest()
    return canonical_json(tree).replace(b'"HERE"', text.encode())


def _signed(tree: dict[str, Any]) -> bytes:
    return canonical_json(tree | {"checksum": fingerprint(tree)})
