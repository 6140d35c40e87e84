"""Flipped bits: every byte of stores that have everything, and random bits of a larger one.

A store that is verified refuses each of them. One that is not verified either refuses, when it is opened or
when the row is read, or hands out exactly what was written: never another vector, text, id or state.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.durability import tiny
from msr_enhance.errors import MsrEnhanceError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


class _Seen(NamedTuple):
    """What became of a flip: whether opening or reading refused it, without a look at every byte."""

    opening: bool
    reading: bool


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Flip bits of stores.

    Args:
        folder: Where the stores are made.
        count: How many random bits of the larger store.
        seed: Of the patterns and the random bits.

    Returns:
        Figures.

    Raises:
        AssertionError: If a flip was not seen, or not said with a declared error.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    seen: list[_Seen] = []
    for kind in tiny.KINDS:
        path = kind(folder / kind.__name__)
        expected = tiny.content(KnowledgeStore.load(path, verify=True))
        for file, size in _files(path):
            for place in range(size):
                pattern = draw.choice((0xFF, draw.randrange(1, 256), 1 << draw.randrange(8)))
                seen.append(_flip(path, file, place, pattern, tiny.content, expected))
    whole = len(seen)
    path = _larger(folder / "larger")
    expected = _sample(KnowledgeStore.load(path, verify=True))
    files = _files(path)
    for _ in range(count):
        file, size = draw.choices(files, [size for _, size in files])[0]
        place, pattern = draw.randrange(size), 1 << draw.randrange(8)
        seen.append(_flip(path, file, place, pattern, _sample, expected))
    return {
        "bytes_of_tiny_stores": whole,
        "bits_of_a_larger_store": len(seen) - whole,
        "seen_by_verify": len(seen),
        "seen_by_opening": sum(one.opening for one in seen),
        "seen_by_reading": sum(one.reading for one in seen),
        "in_nothing_that_was_read": sum(not (one.opening or one.reading) for one in seen),
    }


def _flip(
    path: Path,
    file: Path,
    place: int,
    pattern: int,
    read: Callable[[KnowledgeStore], object],
    expected: object,
) -> _Seen:
    """Flip bits of one byte, look at the store in both ways, and flip them back."""
    where = f"{file}, byte {place} xor {pattern:#04x}"
    descriptor = os.open(file, os.O_RDWR)
    try:
        byte = os.pread(descriptor, 1, place)[0]
        os.pwrite(descriptor, bytes([byte ^ pattern]), place)
        try:
            KnowledgeStore.load(path, verify=True)
        except MsrEnhanceError:
            pass
        else:
            raise AssertionError(f"{where}: verified all the same")
        opening = True
        try:
            store = KnowledgeStore.load(path)
            opening = False
            found = read(store)
        except MsrEnhanceError:
            return _Seen(opening, not opening)
        assert found == expected, f"{where}: read as something else"
        return _Seen(False, False)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{where}: {error!r} is no declared error") from error
    finally:
        os.pwrite(descriptor, bytes([byte]), place)
        os.close(descriptor)


def _larger(path: Path) -> Path:
    with tiny.few(64), StoreWriter.open(path, tiny.PROVENANCE, "float16") as writer:
        for start in range(0, 400, 40):
            writer.append("user", [tiny.row(name) for name in range(start, start + 40)])
        writer.drop("user", list(range(3, 400, 7)))
    return path


def _sample(store: KnowledgeStore) -> list[object]:
    """All vectors, ids and states, and every 30th text."""
    ids = store.ids("user")
    texts = [(store.record("user", name).prompt, store.text("user", name)) for name in ids[::30]]
    return [ids, store.statuses("user"), store.vectors("user", ids).tobytes(), texts]


def _files(path: Path) -> list[tuple[Path, int]]:
    """The files that the newest version needs, with their sizes."""
    manifest, _ = latest_manifest(path)
    names = dict.fromkeys([manifest.name, *(file.name for file in manifest.files())])
    return [(path / name, (path / name).stat().st_size) for name in names]
