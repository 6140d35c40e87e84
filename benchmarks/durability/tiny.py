"""Tiny stores that have everything a store can have, and what is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from msr_enhance.atomic import write_bytes_new
from msr_enhance.store import seal
from msr_enhance.store.entry import Index, Keyed, Map, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import write_index
from msr_enhance.store.keyed import key_check, keyed_id
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.numbers import Dtype
from msr_enhance.store.record import Layout, Level, Record, Status
from msr_enhance.store.shard import Heads, write_vectors
from msr_enhance.store.texts import as_block, text_pieces, write_texts
from msr_enhance.store.transform import write_map
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(identity={"model": "tiny"}, window={"until": 10.5}, facts={"made": ["today"]})
KEY = bytes(range(32))
Content = dict[str, list[tuple[Any, ...]]]


@contextlib.contextmanager
def few(full: int = 4) -> Iterator[None]:
    """Shards of so few rows count as large, so that tiny stores have an index."""
    before = seal.FULL, seal.RUN
    seal.FULL, seal.RUN = full, 3  # type: ignore[misc]
    try:
        yield
    finally:
        seal.FULL, seal.RUN = before  # type: ignore[misc]


def numbers(folder: Path, dtype: Dtype = "float32") -> Path:
    """Users by number in an index, in newer rows and dropped; scenarios by name; prompts and answers."""
    with few(), StoreWriter.open(folder, PROVENANCE, dtype) as writer:
        writer.append("user", [row(7), row(-(2**63), "empty"), row(2**63 - 1, "truncated")])
        writer.append("scenario", [row("Toys"), row("Schön 😀", "failed")])
        writer.append("user", [row(11), row(12)])
        writer.drop("user", [7, 12])
    return folder


def words(folder: Path) -> Path:
    """Users by name in bfloat16, with several layers, in an index, newer and dropped."""
    with few(), StoreWriter.open(folder, PROVENANCE, "bfloat16") as writer:
        writer.append("user", [row("a", shape=(2, 3)), row("", shape=(2, 3)), row("ß" * 9, shape=(2, 3))])
        writer.append("user", [row("new", shape=(2, 3))])
        writer.drop("user", [""])
    return folder


def changed(folder: Path) -> Path:
    """Users under keyed ids as int8 with a scale, after a projection, without the scenarios' texts."""
    folder.mkdir()
    level: Level = "user"
    layout = Layout(level, 4, "int8", "str")
    rows = [row(name, shape=(4,)) for name in range(5)]
    names = [keyed_id(KEY, row.id) for row in rows]
    values = np.array([[1, -7, 127, row.id] for row in rows], np.int8)
    heads = Heads(names, np.zeros(5, np.uint8), np.ones((5, 2), np.int32))
    vectors, crc = write_vectors(folder, layout, heads, [values])
    lengths, blob = as_block(map(text_pieces, rows))
    texts = write_texts(folder, lengths, [(lengths, blob)])
    shard = Shard(level=level, rows=5, tier=0, vectors=vectors, heads=crc, texts=texts)
    maps: tuple[Map, ...] = (
        write_map(folder, level, "int8", np.zeros(0, np.float32), np.arange(1, 5, dtype=np.float32)),
        write_map(folder, level, "project", np.ones(6, np.float32), np.ones((4, 6), np.float32)),
    )
    index: dict[Level, Index] = {level: write_index(StoreFiles(folder, 1), layout, [shard])}
    manifest = Manifest(
        store="0" * 32,
        provenance=PROVENANCE,
        dtype="int8",
        shape={level: (4,)},
        id_type={level: "str"},
        shards=(shard,),
        index=index,
        maps=maps,
        keyed={level: Keyed(id_type="int", check=key_check(KEY))},
    )
    write_bytes_new(folder, manifest.name, manifest.to_bytes())
    return folder


KINDS: tuple[Callable[[Path], Path], ...] = (numbers, words, changed)


def content(store: KnowledgeStore) -> Content:
    """All that a store says of all of its rows; each vector is looked up twice, alone and with the others."""
    found: Content = {}
    for level in store.levels:
        ids = store.ids(level)
        vectors = store.vectors(level, ids)
        records = [store.record(level, name) for name in ids]
        assert store.count(level) == len(ids), "the count is another than the number of ids"
        statuses = zip(ids, store.statuses(level), vectors, strict=True)
        found[level] = [
            (*plain(record), name, status, vector.tobytes())
            for record, (name, status, vector) in zip(records, statuses, strict=True)
        ]
    return found


def plain(record: Record) -> tuple[Any, ...]:
    """All that a row holds, to be compared."""
    tokens = record.prompt_tokens, record.answer_tokens
    texts = record.prompt, record.text, record.facts
    return record.id, record.status, *texts, *tokens, record.vector.tobytes()


def row(name: int | str, status: Status = "ok", shape: tuple[int, ...] = (3,)) -> Record:
    """A row whose vector and texts follow from its id."""
    vector = np.random.default_rng(list(str(name).encode())).normal(size=shape).astype(np.float32)
    return Record(name, status, f"p {name}", f"é {name}", {"n": [str(name)]}, 3, 2, vector)
