"""Manifests that break one rule each, and what is said of them."""

from __future__ import annotations

import json

from spoil import first_shard, manifest, put, raw, shards

from msr_enhance.fingerprint import canonical_json

MANIFEST = {
    "empty": (raw(lambda data: b""), "Expecting value"),
    "no JSON": (raw(lambda data: b"\x80\x04K\x01."), "manifest"),
    "a list": (raw(lambda data: b"[]"), "its format is not 'msr-enhance-store'"),
    "null": (raw(lambda data: b"null"), "its format is not"),
    "a number": (raw(lambda data: b"9" * 100_000), "manifest"),
    "not UTF-8": (raw(lambda data: data.replace(b"tiny", b"\xff\xff\xff\xff")), "manifest"),
    "a BOM": (raw(lambda data: b"\xef\xbb\xbf" + data), "BOM|canonical"),
    "UTF-16": (raw(lambda data: data.decode().encode("utf-16")), "manifest"),
    "a key twice": (raw(lambda data: b'{"dtype":"float32",' + data[1:]), "a repeated key"),
    "a space": (raw(lambda data: data.replace(b'"dtype":', b'"dtype": ')), "canonical"),
    "a line": (raw(lambda data: data + b"\n"), "canonical"),
    "an escape": (raw(lambda data: data.replace(b"tiny", b"t\\u0069ny")), "canonical"),
    "a surrogate": (raw(lambda data: data.replace(b"tiny", b"\\ud800")), "manifest"),
    "NaN": (raw(lambda data: data.replace(b'"tiny"', b"NaN")), "manifest"),
    "1e999": (raw(lambda data: data.replace(b'"tiny"', b"1e999")), "manifest"),
    "deep": (raw(lambda data: b'{"a":' * 100_000), "nested"),
    "deep and long": (raw(lambda data: b"[" * 60_000 + b" " * 3_000_000), "nested"),
    "too large": (raw(lambda data: data + b" " * (4 << 20)), "larger than 4 MiB"),
    "format": (put("format", value="zip"), "its format is not"),
    "checksum": (raw(lambda data: data.replace(b'"tiny"', b'"tinY"')), "its checksum does not fit"),
    "checksum absent": (
        raw(
            lambda data: canonical_json(
                {key: value for key, value in json.loads(data).items() if key != "checksum"}
            )
        ),
        "its checksum does not fit",
    ),
    "format version text": (put("format_version", value=["2", 0]), "is not two numbers"),
    "format version short": (put("format_version", value=[2]), "is not two numbers"),
    "format version bool": (put("format_version", value=[2, False]), "is not two numbers"),
    "format version absent": (manifest(lambda content: content.pop("format_version")), "is not two numbers"),
    "newer": (put("format_version", value=[2, 1]), r"2\.1; this library reads 2\.0"),
    "much newer": (put("format_version", value=[10**4000, 0]), "this library reads"),
    "older": (put("format_version", value=[1, 9]), r"1\.9, written by a pre-release"),
    "negative": (put("format_version", value=[-2, 0]), "pre-release"),
    "renamed": (put("version", value=9), "says it is version 9"),
    "version": (put("version", value=0), "version"),
    "version fraction": (put("version", value=7.0), "version"),
    "version bool": (put("version", value=True), "version"),
    "store": (put("store", value="../x"), "store"),
    "parent": (put("parent", value="x"), "parent"),
    "unknown name": (put("extra", value=1), "extra"),
    "unknown name in a shard": (put("shards", 0, "name", value="../../etc/passwd"), r"shards\.0.*name"),
    "unknown name in a file": (first_shard(lambda shard, _: shard["vectors"].update(name="/etc/x")), "name"),
    "crowd": (
        manifest(lambda content: content.update({f"k{n:05}": n for n in range(15_000)})),
        "names in one",
    ),
    "crowd of levels": (put("shape", value={f"k{n:05}": 1 for n in range(9_000)}), "names in one place"),
    "provenance absent": (manifest(lambda content: content.pop("provenance")), "provenance"),
    "provenance name": (put("provenance", "extra", value={}), r"provenance\.extra"),
    "identity": (put("provenance", "identity", value=[]), r"provenance\.identity"),
    "facts": (put("provenance", "facts", value=None), r"provenance\.facts"),
    "dtype": (put("dtype", value="object"), "dtype"),
    "id type": (put("id_type", "user", value="bytes"), r"id_type\.user"),
    "level": (put("shards", 0, "level", value="item"), r"shards\.0.*level"),
    "level of a shape": (put("shape", "item", value=[3]), r"shape\.item"),
    "shape empty": (put("shape", "user", value=[]), r"shape\.user"),
    "shape zero": (put("shape", "user", value=[0]), r"shape\.user"),
    "shape deep": (put("shape", "user", value=[1, 1, 3]), r"shape\.user"),
    "shape text": (put("shape", "user", value="3"), r"shape\.user"),
    "shape giant": (put("shape", "user", value=[2**63]), r"shape\.user"),
    "shape absent": (put("shape", value={}), "different levels"),
    "id type absent": (manifest(lambda content: content["id_type"].pop("user")), "different levels"),
    "no shards": (put("shards", value=[]), "different levels"),
    "level without rows": (
        manifest(
            lambda content: content.update(
                shards=[e for e in content["shards"] if e["level"] == "scenario"], index={}
            )
        ),
        "different levels",
    ),
    "tombstone alone": (
        manifest(lambda content: content.update(shards=shards(content, "ids"), index={})),
        "different levels",
    ),
    "rows zero": (put("shards", 0, "rows", value=0), r"shards\.0.*rows"),
    "rows negative": (put("shards", 0, "rows", value=-1), r"shards\.0.*rows"),
    "rows giant": (put("shards", 0, "rows", value=2**32), r"shards\.0.*rows"),
    "rows beyond numbers": (put("shards", 0, "rows", value=10**4000), r"shards\.0.*rows"),
    "rows text": (put("shards", 0, "rows", value="3"), r"shards\.0.*rows"),
    "tier": (put("shards", 0, "tier", value=64), r"shards\.0.*tier"),
    "tier negative": (put("shards", 0, "tier", value=-1), r"shards\.0.*tier"),
    "heads": (first_shard(lambda shard, _: shard.update(heads=2**32)), "heads"),
    "heads negative": (first_shard(lambda shard, _: shard.update(heads=-1)), "heads"),
    "texts absent": (first_shard(lambda shard, _: shard.pop("texts")), "texts"),
    "digest path": (first_shard(lambda s, _: s["vectors"].update(sha256="../" * 21 + "a")), "sha256"),
    "digest drive": (first_shard(lambda s, _: s["vectors"].update(sha256="C:" + "0" * 62)), "sha256"),
    "digest upper": (first_shard(lambda s, _: s["vectors"].update(sha256="A" * 64)), "sha256"),
    "digest line": (first_shard(lambda s, _: s["vectors"].update(sha256="0" * 64 + "\n")), "sha256"),
    "digest NUL": (first_shard(lambda s, _: s["vectors"].update(sha256="0" * 63 + "\0")), "sha256"),
    "kind path": (first_shard(lambda shard, _: shard["vectors"].update(kind="../vec")), "kind"),
    "kind of vectors": (
        first_shard(lambda s, _: s["vectors"].update(kind="map")),
        "where a vec file belongs",
    ),
    "kind of texts": (first_shard(lambda s, _: s["texts"].update(kind="vec")), "where a txt file belongs"),
    "kind of ids": (
        manifest(lambda content: shards(content, "ids")[0]["ids"].update(kind="vec")),
        "where a del file belongs",
    ),
    "kind of an index": (put("index", "user", "file", "kind", value="vec"), "where a idx file belongs"),
    "bytes zero": (first_shard(lambda shard, _: shard["vectors"].update(bytes=0)), "bytes"),
    "bytes giant": (first_shard(lambda shard, _: shard["vectors"].update(bytes=2**63)), "bytes"),
    "letters negative": (first_shard(lambda shard, _: shard["vectors"].update(blob=-1)), "blob"),
    "shard twice": (
        manifest(lambda content: content["shards"].append(shards(content)[1])),
        r"names vec-\w+\.safetensors twice",
    ),
    "index of no shards": (put("index", "user", "entries", value=0), r"index\.user\.entries"),
    "index of others": (put("index", "user", "covers", value="0" * 32), "covers other shards"),
    "index covers": (put("index", "user", "covers", value="x"), r"index\.user\.covers"),
    "index rows": (put("index", "user", "rows", value=-1), r"index\.user\.rows"),
    "index level": (manifest(lambda c: c["index"].update(item=c["index"]["user"])), r"index\.item"),
    "index of another level": (
        manifest(lambda c: c["index"].update(scenario=c["index"]["user"])),
        "index of scenario covers other",
    ),
    "keyed of no level": (put("keyed", "item", value={"id_type": "int", "check": "0" * 32}), r"keyed\.item"),
    "keyed numbers": (put("keyed", "user", value={"id_type": "int", "check": "0" * 32}), "user are no text"),
    "keyed check": (
        put("keyed", "scenario", value={"id_type": "int", "check": "x"}),
        r"keyed\.scenario\.check",
    ),
    "int8 without scales": (put("dtype", value="int8"), "scales of their levels do not go together"),
}
MAPS = {
    "scales without int8": (put("dtype", value="float32"), "scales of their levels do not go together"),
    "one scale": (manifest(lambda content: content["maps"].pop()), "do not go together"),
    "map kind": (put("maps", 0, "kind", value="pickle"), r"maps\.0\.kind"),
    "map shape": (put("maps", 0, "shape", value=[1, 1, 3]), r"maps\.0\.shape"),
    "map shape zero": (put("maps", 0, "shape", value=[0]), r"maps\.0\.shape"),
    "map file": (put("maps", 0, "file", "kind", value="vec"), "where a map file belongs"),
    "map level": (put("maps", 0, "level", value="item"), r"maps\.0\.level"),
    "keyed of rows that are not there": (
        manifest(
            lambda content: content.update(
                shards=[e for e in content["shards"] if e["level"] == "user"],
                maps=content["maps"][:1],
                shape={"user": [3]},
                id_type={"user": "int"},
            )
        ),
        "of a level without rows",
    ),
}
