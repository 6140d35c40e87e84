"""Files that break one rule each, and what is said of them."""

from __future__ import annotations

import os

import numpy as np
from spoil import (
    both,
    change_tail,
    fill,
    first_shard,
    index,
    instead,
    made_map,
    manifest,
    put,
    recovered,
    removed,
    shards,
    stone,
    txt,
    vec,
    words,
)

from msr_enhance.store.index import ROW_BITS

FILES = {
    "absent": (instead(lambda path, data: removed(path)), "it is missing"),
    "cut": (instead(lambda path, data: path.write_bytes(data[:-1])), "bytes, its manifest promises"),
    "grown": (instead(lambda path, data: path.write_bytes(data + b"\0")), "bytes, its manifest promises"),
    "a pipe": (instead(lambda path, data: removed(path, os.mkfifo)), "no regular file"),
    "a folder": (instead(lambda path, data: removed(path, lambda path: path.mkdir())), "no regular file"),
    "a link": (instead(lambda path, data: removed(path, lambda p: p.symlink_to("/etc/passwd"))), "symbolic"),
    "another digest": (
        first_shard(lambda shard, content: (change_tail(shard["vectors"]), recovered(content))),
        "has SHA-256",
    ),
    "another digest of texts": (first_shard(lambda shard, _: change_tail(shard["texts"])), "has SHA-256"),
    "another digest of ids": (
        manifest(lambda c: (change_tail(shards(c, "ids")[0]["ids"]), recovered(c))),
        "has SHA-256",
    ),
    "another digest of an index": (
        manifest(lambda c: change_tail(c["index"]["user"]["file"])),
        "has SHA-256",
    ),
    "more rows": (first_shard(lambda shard, _: shard.update(rows=4)), "its rows need|do not fit into it"),
    "fewer rows": (first_shard(lambda shard, _: shard.update(rows=2)), "its rows need"),
    "as many rows as there are numbers": (
        first_shard(lambda s, _: s.update(rows=2**22)),
        "do not fit into it",
    ),
    "width": (put("shape", "user", value=[2]), "its rows need"),
    "a giant": (put("shape", "user", value=[2**62, 2**62]), "do not fit into it"),
    "other numbers": (put("dtype", value="float16"), "its rows need|names other tensors"),
    "other ids": (put("id_type", "user", value="str"), "its rows need|names other tensors"),
    "letters": (manifest(lambda c: shards(c)[2]["vectors"].update(blob=1)), "its rows need|other tensors"),
    "letters of texts": (first_shard(lambda s, _: s["texts"].update(blob=1)), "its rows need|other tensors"),
    "texts of another shard": (
        manifest(lambda c: shards(c)[0].update(texts=shards(c)[1]["texts"])),
        "its rows need|do not fit",
    ),
    "heads": (first_shard(lambda shard, _: shard.update(heads=7)), "the checksum of its ids, states"),
    "header": (
        instead(lambda path, data: path.write_bytes(data.replace(b'"level":"user"', b'"level":"useR"'))),
        "SHA-256|names other tensors",
    ),
}
CONTENT = {
    "status": (vec(0, fill("status", 4)), "a status outside ok, empty"),
    "negative tokens": (vec(0, fill("tokens", -1)), "negative tokens"),
    "NaN": (vec(0, fill("vectors", np.nan)), "NaN or infinity"),
    "infinity": (vec(1, fill("vectors", -np.inf, (0, 1))), "NaN or infinity"),
    "row checksum": (vec(0, fill("crcs", 0), rows=False), "the checksum of 2 rows does not fit"),
    "another id": (vec(1, fill("ids", 5), rows=False), "checksum of 1 rows"),
    "another order": (
        vec(1, lambda tensors: tensors.update(tokens=tensors.pop("tokens"))),
        "its header names other tensors",
    ),
    "id twice": (both(vec(1, fill("ids", 1)), put("index", value={})), "hold a user id twice"),
    "id twice in a shard": (both(vec(0, fill("ids", 3)), put("index", value={})), "hold a user id twice"),
    "offsets from one": (vec(2, fill("id_offsets", 1, 0), rows=False), "id_offsets do not divide"),
    "offsets beyond": (vec(2, fill("id_offsets", 2**62, -1), rows=False), "id_offsets do not divide"),
    "offsets falling": (vec(2, fill("id_offsets", 7, 1), rows=False), "id_offsets do not divide"),
    "an id that is not UTF-8": (vec(2, words("id_bytes", b"Toys\xff\xff"), rows=False), "not UTF-8"),
    "text offsets negative": (txt(0, fill("text_offsets", -1, 0), crcs=False), "text_offsets do not divide"),
    "text offsets falling": (txt(0, fill("text_offsets", 0, 2), crcs=False), "text_offsets do not divide"),
    "text offsets beyond": (
        txt(0, fill("text_offsets", 2**62, -1), crcs=False),
        "text_offsets do not divide",
    ),
    "text checksum": (txt(0, fill("crcs", 1), crcs=False), "a checksum of its texts does not fit"),
    "a text that is not UTF-8": (txt(0, fill("text_bytes", 255, 0)), "row 0: .*utf-8"),
    "facts that are no mapping": (
        txt(1, fill("text_bytes", list(b'"fffff"'), slice(4, 11))),
        "facts are no map",
    ),
    "ids of a tombstone": (stone(1, words("id_bytes", b"\xff\xff")), "not UTF-8"),
    "offsets of a tombstone": (stone(1, fill("id_offsets", 1)), "id_offsets do not divide"),
    "header of a tombstone": (stone(0, lambda t: t.update(id=t.pop("ids"))), "names other ids"),
    "index header": (
        index(lambda t: t.update(row=t["rows"], rows=t.pop("rows"))),
        "bytes, its rows need|tensors",
    ),
    "index checksum": (put("index", "user", "heads", value=7), "checksum of its first bytes"),
    "index block": (index(fill("crcs", 0), blocks=False), "the checksum of block 0"),
    "index rows": (put("index", "user", "rows", value=2**62), "do not fit into it"),
    "index rows fewer": (put("index", "user", "rows", value=1), "its rows need"),
    "index place": (index(fill("rows", 9 << ROW_BITS, (0, 1))), "index of user names shard 9"),
    "index row": (index(fill("rows", 3, (0, 1))), "names row 3 of 3"),
    "index negative": (index(fill("rows", 1 << 63, (0, 1))), "it names place"),
    "index of a tombstone": (index(fill("rows", 1 << ROW_BITS, (0, 1))), "index of user names shard 1"),
    "index of another row": (index(fill("rows", 1, (0, 1))), "the checksum of 1 rows"),
}
SCALES = {
    "map with NaN": (made_map(0, fill("matrix", np.nan)), r"map-\w+\.safetensors is .*it has NaN"),
    "map of another kind": (made_map(0, lambda tensors: None, {"kind": "inT8"}), "names other tensors"),
    "map of another size": (put("maps", 0, "shape", value=[4]), "has another size"),
    "map beyond": (put("maps", 0, "shape", value=[2**62]), "has another size"),
    "map of another width": (
        manifest(lambda content: content["maps"][0].update(shape=[2], file=content["maps"][1]["file"])),
        "it scales 2 numbers",
    ),
    "map of another digest": (manifest(lambda c: change_tail(c["maps"][0]["file"])), "has SHA-256"),
}
