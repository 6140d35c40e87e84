"""Scale without the disk: millions of users with vectors of 4096 numbers, in files with holes.

Every id is in its shard and in the index, which the library's own code writes. A few rows of each shard have
a vector and its checksum; the others are holes that nobody reads. Opening and lookups are measured in a fresh
process, in which nothing else has happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np

from benchmarks.durability.scale_reader import WIDTH, Users, Words
from benchmarks.durability.tiny import PROVENANCE
from msr_enhance.atomic import write_bytes_new
from msr_enhance.store.checks import pack, vector_crcs
from msr_enhance.store.entry import Index, Shard, StoredFile, file_name
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import _write, keys_of, write_index
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import Layout
from msr_enhance.store.seal import FULL
from msr_enhance.store.shard import Heads, _vector_frame, write_vectors

SECONDS, MEGABYTES = 1.0, 100
_WORDS = 1_000_000
_LARGE = 600_000  # rows of a shard of more than 4 GiB
_ROOT = Path(__file__).parents[2]


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Make stores, and measure them.

    Args:
        folder: Where they are made; on a file system with holes.
        count: How many users.
        seed: Of the lookups.

    Returns:
        Figures.

    Raises:
        AssertionError: If a place or a vector is wrong, opening is too slow, or needs too much memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, int | float] = {"users": count}
    try:
        started = time.perf_counter()
        users = Users(count, FULL)
        files = write_users(folder / "users", users)
        figures["made_in_s"] = round(time.perf_counter() - started, 1)
        figures["disk_mb"] = sum(each.st_blocks * 512 for each in files) // 10**6
        figures["gb_with_holes"] = sum(each.st_size for each in files) // 10**9
        figures |= _fresh(folder / "users", users, seed)
        large = Users(_LARGE, _LARGE)
        files = write_users(folder / "large", large)
        figures["largest_file_gb"] = max(each.st_size for each in files) / 10**9
        assert figures["largest_file_gb"] > 2**32 / 10**9
        _fresh(folder / "large", large, seed)
        words = Words(_WORDS, FULL)
        write_words(folder / "words", words)
        figures |= {f"names_{what}": value for what, value in _fresh(folder / "words", words, seed).items()}
    finally:
        shutil.rmtree(folder)
    assert figures["opened_in_s"] < SECONDS, f"opened in {figures['opened_in_s']} s"
    assert figures["private_mb"] < MEGABYTES, f"open with {figures['private_mb']} MB"
    return figures


def write_users(folder: Path, users: Users) -> list[os.stat_result]:
    """A store with a hole for nearly every vector; what each of its files takes."""
    folder.mkdir()
    layout = Layout("user", WIDTH, "float16", "int")
    planted = users.planted()
    shards = []
    for start in range(0, users.rows, users.each):
        end = min(start + users.each, users.rows)
        some = planted[np.searchsorted(planted, start) : np.searchsorted(planted, end)]
        shards.append(_sparse(folder, layout, users, np.arange(start, end), some))
    ids = np.sort(users.ids(np.arange(users.rows)))
    places = users.places(users.rows_of(ids)).astype(np.uint64)
    table = np.column_stack([keys_of("int", ids), places])
    _finish(folder, layout, shards, _write(folder, table, shards))
    return [each.stat() for each in folder.iterdir()]


def _sparse(folder: Path, layout: Layout, users: Users, rows: np.ndarray, planted: np.ndarray) -> Shard:
    """A shard whose ids are all there, and whose vectors are those of a few rows."""
    frame = _vector_frame(layout, len(rows), 0)
    spans = frame.spans
    ids, vectors = users.ids(rows), users.vectors(planted).astype("<f2")
    crcs = np.zeros(len(rows), np.uint32)
    crcs[planted - rows[0]] = vector_crcs(users.ids(planted).tolist(), vectors)
    front = frame.header + ids.astype("<i8").tobytes() + bytes(8 * len(rows))
    back = pack(crcs) + bytes(len(rows))
    sha256 = hashlib.sha256(front).hexdigest()  # of all of it would take minutes; only `verify` compares it
    with (folder / file_name("vec", sha256)).open("wb") as file:
        file.truncate(frame.bytes)
        file.write(front[: spans["tokens"].start])
        for row, vector in zip((planted - rows[0]).tolist(), vectors, strict=True):
            file.seek(spans["vectors"].start + row * vector.nbytes)
            file.write(vector.tobytes())
        file.seek(spans["crcs"].start)
        file.write(back)
    stored = StoredFile(kind="vec", bytes=frame.bytes, sha256=sha256)
    heads = crc32(back, crc32(front))
    return Shard(level="user", rows=len(rows), vectors=stored, heads=heads, texts=None)


def write_words(folder: Path, words: Words) -> None:
    """A store of users with names, whose vectors are the number of their row; nothing is left out."""
    folder.mkdir()
    layout = Layout("user", 1, "float32", "str")
    shards = []
    for start in range(0, words.rows, words.each):
        rows = np.arange(start, min(start + words.each, words.rows))
        heads = Heads(
            [words.name(row) for row in rows.tolist()],
            np.zeros(len(rows), np.uint8),
            np.ones((len(rows), 2), np.int32),
        )
        vectors, crc = write_vectors(folder, layout, heads, [rows[:, None].astype(np.float32)])
        shards.append(Shard(level="user", rows=len(rows), vectors=vectors, heads=crc, texts=None))
    _finish(folder, layout, shards, write_index(StoreFiles(folder, 1), layout, shards))


def _finish(folder: Path, layout: Layout, shards: Iterable[Shard], index: Index) -> None:
    manifest = Manifest(
        store="0" * 32,
        provenance=PROVENANCE,
        dtype="float16" if layout.dtype == "float16" else "float32",
        shape={"user": (layout.width,)},
        id_type={"user": layout.id_type},
        shards=tuple(shards),
        index={"user": index},
    )
    write_bytes_new(folder, manifest.name, manifest.to_bytes())


def _fresh(path: Path, made: Users | Words, seed: int) -> dict[str, int | float]:
    """Measure in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.durability.scale_reader"]
    words += [str(path), type(made).__name__, json.dumps(made), str(seed)]
    run = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found: dict[str, int | float] = json.loads(run.stdout)
    return found
