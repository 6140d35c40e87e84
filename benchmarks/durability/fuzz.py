"""Fuzzing with repaired checksums: whatever a store says, it is read, or refused with a declared error.

Plain mutations end at the first checksum. These repair every one of them, and so reach what looks at the
values: rows that do not fit, offsets that go back, places in no shard, levels without rows. Each input may
take a second and 64 MiB; a limit of the operating system sees to the latter. Inputs that fail are kept:

    python -m benchmarks.durability.fuzz FOLDER/failed-0
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from benchmarks.durability import tiny
from benchmarks.durability.fuzz_bombs import bombs
from benchmarks.durability.fuzz_corpus import NO_LAYOUT, Case, Corpus
from benchmarks.durability.mutations import PLACES
from benchmarks.durability.victims import all_ended, victim
from msr_enhance.errors import MsrEnhanceError
from msr_enhance.fingerprint import canonical_json
from msr_enhance.store.entry import Index, Map, Shard, StoredFile, Tombstone
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import LevelIndex, keys_of
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.numbers import as_float32
from msr_enhance.store.record import STATUSES, Layout
from msr_enhance.store.shard import checked_frame, read_heads, read_ids, read_vectors
from msr_enhance.store.texts import read_blocks, read_lengths, read_row
from msr_enhance.store.transform import read_map

SECONDS = 1.0
MEMORY = 64 << 20
_WORKERS = 2
_PARTS = {"vec": Shard, "txt": Shard, "del": Tombstone, "idx": Index, "map": Map}
_IDS = {"int": [7, 0, -(2**63), 2**63 - 1, 11], "str": ["a", "", "ß" * 9, "none"]}


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Read changed stores.

    Args:
        folder: Where they are made; memory, so that it is fast.
        count: How many.
        seed: Of the changes.

    Returns:
        Figures.

    Raises:
        AssertionError: If one ended with anything but a declared error, too late or too large; says where
            the first of them are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(folder)
    started = time.perf_counter()

    def work(part: int) -> Callable[[int], None]:
        numbers = range(part, count, _WORKERS)
        return lambda pipe: _tell(pipe, _fuzz(corpus, folder / f"case-{part}", numbers, seed))

    found = [
        _Found(*json.loads(said)) for said in all_ended([victim(work(part)) for part in range(_WORKERS)])
    ]
    failed = [what for one in found for what in one.failed]
    assert not failed, "; ".join(failed)
    figures = sum((Counter(one.figures) for one in found), Counter[str]())
    accepted = sum(number for name, number in figures.items() if name.endswith("accepted"))
    return {
        "inputs": figures.total(),
        "accepted": accepted,
        "refused": figures.total() - accepted,
        "slowest_ms": max(one.slowest_ms for one in found),
        "inputs_per_second": round(figures.total() / (time.perf_counter() - started)),
        **dict(sorted(figures.items())),
    }


class _Found(NamedTuple):
    """What a worker found: how many inputs by target and end, how long the slowest took, what failed."""

    figures: dict[str, int]
    slowest_ms: int
    failed: list[str]


def _tell(pipe: int, found: _Found) -> None:
    os.write(pipe, json.dumps(found).encode())


def _fuzz(corpus: Corpus, folder: Path, numbers: range, seed: int) -> _Found:
    """Read inputs in this process, whose memory is limited for good."""
    readers = Readers(folder)
    for case in corpus.valid():
        readers.read(case)  # each must be accepted, or nothing below means anything
    large: list[Case] = []
    if numbers.start == 0:
        valid = next(case for case in corpus.valid() if case.target == "manifest")
        large = [
            Case("manifest", {"manifest": data}, {}, NO_LAYOUT) for _, data in bombs(valid.files["manifest"])
        ]
    bound = _size() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    figures: Counter[str] = Counter()
    slowest, failed = 0.0, list[str]()
    changed = (corpus.changed(random.Random(f"{seed}-{number}")) for number in numbers)
    for case in itertools.chain(changed, large):
        before = time.process_time()
        what, end = "", "refused"
        try:
            readers.read(case)
            end = "accepted"
        except MsrEnhanceError:
            pass
        except Exception as error:
            if not (isinstance(error, ValidationError) and case.target in PLACES):
                what = f"{error!r} at {_where(error)}"
        seconds = time.process_time() - before
        figures[f"{case.target}_{end}"] += 1
        slowest = max(slowest, seconds)
        what = what or (f"took {seconds:.1f} s" if seconds > SECONDS else "")
        if what:
            failed.append(f"{case.target}: {what[:300]} ({_keep(case, len(failed))})")
        if len(failed) == 3:
            break
    return _Found(figures, round(slowest * 1000), failed)


class Readers:
    """Reads inputs with the library's own code.

    Args:
        folder: Where whole stores are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = _OneFile()

    def read(self, case: Case) -> None:
        """Read all of an input.

        Raises:
            MsrEnhanceError: If it is refused.
            ValidationError: If the part of the manifest that names a single file is; a manifest with that
                part in it is read by another target.
        """
        if case.target == "manifest":
            manifest = Manifest.from_bytes(case.files["manifest"], "manifest-1.json")
            if len(case.files["manifest"]) < 100_000:
                manifest.provenance.changes(tiny.PROVENANCE)
            for level in manifest.shape:
                manifest.layout(level)
            return
        if case.target == "store":
            return self._store(case)
        part = _PARTS[case.target].model_validate_json(canonical_json(case.entry), strict=True)
        self._files.put(case.files["file"])
        getattr(self, f"_{case.target}")(part, case.layout)

    def _store(self, case: Case) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        for name, data in case.files.items():
            (self._folder / name).write_bytes(data)
        store = KnowledgeStore.load(self._folder)
        for level in store.levels:
            ids = store.ids(level)
            kind = store._manifest.id_type[level]
            vectors = store.vectors(level, [*ids[:2], *_IDS[kind]], unknown="zero")
            assert np.isfinite(vectors).all(), "a vector that is not finite"
            for name in ids[:4]:
                store.record(level, name)
            store.known(level)

    def _vec(self, shard: Shard, layout: Layout) -> None:
        with self._files.open(shard.vectors) as opened:
            heads = read_heads(opened, shard.vectors, shard.rows, layout, shard.heads)
            frame = checked_frame(opened, shard.vectors, shard.rows, layout)
            rows = np.unique([0, shard.rows // 2, shard.rows - 1])
            found = read_vectors(opened, frame, [heads.ids[row] for row in rows.tolist()], rows)
            as_float32(found, layout.dtype)
            assert heads.status.max() < len(STATUSES), "a status that there is not"
            assert heads.tokens.min() >= 0, "a negative count"
            self._divided(heads.ids, shard.vectors)

    def _txt(self, shard: Shard, layout: Layout) -> None:
        if not shard.texts:
            return
        with self._files.open(shard.texts) as opened:
            for row in (0, shard.rows - 1):
                read_row(opened, shard.texts, shard.rows, row)
            lengths = read_lengths(opened, shard.texts, shard.rows)
            assert lengths.min() >= 0, "a negative length"
            blocks = list(read_blocks(opened, shard.texts, shard.rows))
            assert sum(len(texts) for _, texts in blocks) == lengths.sum() <= shard.texts.blob

    def _del(self, stone: Tombstone, layout: Layout) -> None:
        ids = read_ids(self._files.read(stone.ids), stone.ids, stone.rows, layout)
        assert len(ids) == stone.rows
        self._divided(ids, stone.ids)

    def _idx(self, index: Index, layout: Layout) -> None:
        reader = LevelIndex(self._files, layout, index)
        reader.find(keys_of(layout.id_type, _IDS[layout.id_type]))
        reader.everything()

    def _map(self, made: Map, layout: Layout) -> None:
        offset, matrix = read_map(self._files, made)
        assert matrix.shape == made.shape
        assert np.isfinite([*offset, *matrix.reshape(-1)]).all(), "a number that is not finite"

    def _divided(self, ids: Sequence[int | str], file: StoredFile) -> None:
        """The letters at the end of a file are those of its ids, each of them once."""
        if isinstance(ids[0], str):
            letters = "".join(map(str, ids)).encode()
            assert letters == self._files.end(file.blob), "ids that do not divide their letters"


class _OneFile(StoreFiles):
    """Files of a store that are all the same one, in memory; all else is the library's."""

    def __init__(self) -> None:
        super().__init__(Path("/"), 2**62)
        self._memory = os.memfd_create("case")

    def put(self, data: bytes) -> None:
        """Replace the content."""
        os.ftruncate(self._memory, 0)
        os.pwrite(self._memory, data, 0)

    def end(self, size: int) -> bytes:
        """The last bytes."""
        return os.pread(self._memory, size, os.fstat(self._memory).st_size - size)

    def _descriptor(self, path: Path) -> int:
        return os.dup(self._memory)


def _size() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _keep(case: Case, number: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="msr-enhance-fuzz-")) / f"failed-{number}"
    folder.mkdir()
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    said = {"target": case.target, "entry": case.entry, "layout": case.layout}
    (folder / "case.json").write_text(json.dumps(said))
    return folder


def main(words: Sequence[str]) -> int:
    """Read a kept input again, and let its error out."""
    folder = Path(words[0])
    said = json.loads((folder / "case.json").read_text())
    files = {each.name: each.read_bytes() for each in folder.iterdir() if each.name != "case.json"}
    with tempfile.TemporaryDirectory() as scratch:
        case = Case(said["target"], files, said["entry"], Layout(*said["layout"]))
        Readers(Path(scratch) / "case").read(case)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
