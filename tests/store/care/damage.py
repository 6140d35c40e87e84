"""Damage that the tests of verify and repair share."""

from __future__ import annotations

import os

from looking import contents

from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.shard import checked_frame, read_heads
from msr_enhance.store.versions import latest_manifest


def shards(path, level="user"):
    return [entry for entry in latest_manifest(path)[0].entries(level) if isinstance(entry, Shard)]


def held(path):
    """Every file of a store but the lock, which says who held it last."""
    return {name: data for name, data in contents(path).items() if name != "lock"}


def flip(path, at):
    """Change one bit; the store's files are only readable for a while, never linked."""
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def ids_of(path, shard):
    """Ids of a shard, read from a store that is whole."""
    manifest = latest_manifest(path)[0]
    with StoreFiles(path, manifest.version).open(shard.vectors) as opened:
        return read_heads(opened, shard.vectors, shard.rows, manifest.layout(shard.level), shard.heads).ids


def living(path, shard):
    """Ids of the rows of a shard that count: nothing dropped them, and no later shard has them anew."""
    store = KnowledgeStore.load(path)
    every = shards(path)
    later = {name for each in every[every.index(shard) + 1 :] for name in ids_of(path, each)}
    return [name for name in ids_of(path, shard) if name in set(store.ids("user")) - later]


def vector_at(path, shard, row):
    """Where a row's vector begins in its file."""
    manifest = latest_manifest(path)[0]
    with StoreFiles(path, manifest.version).open(shard.vectors) as opened:
        span = checked_frame(opened, shard.vectors, shard.rows, manifest.layout(shard.level)).spans["vectors"]
    return span.start + row * (span.end - span.start) // shard.rows


def text_at(shard):
    """Where the texts begin in a text file."""
    return shard.texts.bytes - 4 * shard.rows - shard.texts.blob


def empty(path):
    os.truncate(path, 0)


def gone(path):
    path.unlink()


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))
