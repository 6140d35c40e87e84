"""Ways to spoil a store: one thing is changed, and every checksum that could hide it fits again."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
from forge import crc_beside, framed, newest, placed, rewritten, tensors_of

from msr_enhance.store.checks import pack, text_crcs, vector_crcs
from msr_enhance.store.entry import Shard, Tombstone, file_name, named
from msr_enhance.store.index import crc32
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record

HELP = re.compile(
    r"msr-enhance store repair \S+|pip install --upgrade msr-enhance|[Ee]xtract (again, )?into a new"
)
PROVENANCE = Provenance(identity={"model": "tiny"}, window={"protocol": "window"})


def row(name, dim):
    return Record(name, "ok", f"p{name}", f"a{name}", {"f": 1}, 3, 2, np.arange(1, dim + 1, dtype=np.float32))


def raw(change):
    """Change the bytes of the manifest."""

    def edit(folder):
        path = newest(folder)
        path.write_bytes(change(path.read_bytes()))

    return edit


def manifest(change):
    """Change the content of the manifest; its checksum fits."""
    return lambda folder: rewritten(folder, change)


def put(*path, value):
    """Set a field of the manifest."""

    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return manifest(change)


def both(*edits):
    """One after the other."""

    def edit(folder):
        for each in edits:
            each(folder)

    return edit


def shards(content, key="vectors"):
    return [entry for entry in content["shards"] if key in entry]


def recovered(content):
    """Make the index fit its shards again."""
    entries = [
        (Shard if "vectors" in entry else Tombstone).model_validate(entry)
        for entry in content["shards"]
        if entry["level"] == "user"
    ]
    content["index"]["user"]["covers"] = named(entries[: content["index"]["user"]["entries"]])


def vec(number, change, rows=True):
    """Change the tensors of a shard's vector file; its checksums and digest fit."""

    def edit(folder):
        def inner(content):
            shard = shards(content)[number]
            tensors, metadata = tensors_of((folder / stored(shard["vectors"])).read_bytes())
            change(tensors)
            if rows and "ids" in tensors:
                crcs = vector_crcs(tensors["ids"].tolist(), tensors["vectors"])
                tensors["crcs"] = crcs.view(np.uint8).reshape(-1, 4)
            elif rows:
                words, ends = tensors["id_bytes"].tobytes(), tensors["id_offsets"].tolist()
                ids = [words[start:end].decode() for start, end in itertools.pairwise(ends)]
                crcs = vector_crcs(ids, tensors["vectors"])
                tensors["crcs"] = crcs.view(np.uint8).reshape(-1, 4)
            data = framed(tensors, metadata)
            file = placed(folder, "vec", data, shard["vectors"]["blob"])
            shard.update(vectors=file.model_dump(mode="json"), heads=crc_beside(data, "vectors"))
            recovered(content)

        rewritten(folder, inner)

    return edit


def txt(number, change, crcs=True):
    """Change the tensors of a shard's text file; its checksums and digest fit."""

    def edit(folder):
        def inner(content):
            shard = shards(content)[number]
            tensors, metadata = tensors_of((folder / stored(shard["texts"])).read_bytes())
            change(tensors)
            if crcs:
                lengths = np.diff(tensors["text_offsets"]).reshape(-1, 3)
                texts = tensors["text_bytes"].tobytes()[max(int(tensors["text_offsets"][0]), 0) :]
                fit = pack(text_crcs(lengths, texts))
                tensors["crcs"] = np.frombuffer(fit, np.uint8).reshape(-1, 4)
            data = framed(tensors, metadata)
            shard["texts"] = placed(folder, "txt", data, shard["texts"]["blob"]).model_dump(mode="json")

        rewritten(folder, inner)

    return edit


def stone(number, change):
    """Change the tensors of a tombstone; its digest fits."""

    def edit(folder):
        def inner(content):
            entry = shards(content, "ids")[number]
            tensors, metadata = tensors_of((folder / stored(entry["ids"])).read_bytes())
            change(tensors)
            file = placed(folder, "del", framed(tensors, metadata), entry["ids"]["blob"])
            entry["ids"] = file.model_dump(mode="json")
            recovered(content)

        rewritten(folder, inner)

    return edit


def index(change, blocks=True):
    """Change the tensors of the index; its checksums and digest fit."""

    def edit(folder):
        def inner(content):
            entry = content["index"]["user"]
            tensors, metadata = tensors_of((folder / stored(entry["file"])).read_bytes())
            change(tensors)
            if blocks:
                crcs = pack([crc32(tensors["rows"].tobytes())])
                tensors["crcs"] = np.frombuffer(crcs, np.uint8).reshape(-1, 4)
            data = framed(tensors, metadata)
            entry.update(
                heads=crc_beside(data, "rows"), file=placed(folder, "idx", data).model_dump(mode="json")
            )

        rewritten(folder, inner)

    return edit


def made_map(number, change, metadata=None):
    """Change the tensors of a map; its digest fits."""

    def edit(folder):
        def inner(content):
            entry = content["maps"][number]
            tensors, kept = tensors_of((folder / stored(entry["file"])).read_bytes())
            change(tensors)
            entry["file"] = placed(folder, "map", framed(tensors, metadata or kept)).model_dump(mode="json")

        rewritten(folder, inner)

    return edit


def stored(file):
    return file_name(file["kind"], file["sha256"])


def fill(name, value, at=...):
    def change(tensors):
        tensors[name][at] = value

    return change


def words(name, data):
    return lambda tensors: tensors.update({name: np.frombuffer(data, np.uint8)})


def first_shard(change):
    return manifest(lambda content: change(shards(content)[0], content))


def instead(make):
    """Put something else in the place of the first vector file."""

    def edit(folder):
        path = folder / stored(shards(json.loads(newest(folder).read_bytes()))[0]["vectors"])
        make(path, path.read_bytes())

    return edit


def removed(path, then=lambda path: None):
    path.unlink()
    then(path)


def change_tail(file):
    """Another digest that gives the same name."""
    file["sha256"] = file["sha256"][:32] + "0" * 32
