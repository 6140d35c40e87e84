"""What a store should hold: rows, steps that change them, and ways to look at what is there."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from msr_enhance.store import seal, sweep
from msr_enhance.store.care.compact import compact
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(identity={"model": "tiny"}, window={})
State = dict[int, str]
"""The text of each row that counts; its vector follows from both."""


class Step(NamedTuple):
    """A change of a store: ``append``, ``drop``, ``adopt`` or ``compact``, and what it is given."""

    kind: str
    given: list[Any]


def row(name: int, text: str = "") -> Record:
    """A row whose vector tells its id and its text."""
    text = text or f"answer {name}"
    return Record(name, "ok", f"prompt of {name}", text, {"n": name}, 1, 1, _vector(name, text))


def held(path: Path) -> State | None:
    """What a reader sees, every file verified and every row read; None where there is no store."""
    if not any(path.glob("manifest-*.json")):
        return None
    return state_of(KnowledgeStore.load(path, verify=True))


def state_of(store: KnowledgeStore) -> State:
    """Every row of a store, text and vector."""
    if "user" not in store.levels:
        return {}
    names = [int(name) for name in store.ids("user")]
    assert len(set(names)) == len(names), "an id comes twice"
    state = {name: store.text("user", name) for name in names}
    expected = np.array([_vector(name, text) for name, text in state.items()])
    assert np.array_equal(store.vectors("user", names), expected), "a vector is another row's"
    return state


def _vector(name: int, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([name + 1, zlib.crc32(text.encode()) % 9973, 7], np.float32)


def ending(path: Path) -> dict[str, Any]:
    """What a settled folder comes to: the newest version's files, and of its manifest what two runs share.

    Everything else in the folder is of the version before, or the lock.
    """
    manifests = {json.loads(data)["version"]: data for data in map(Path.read_bytes, path.glob("manifest-*"))}
    newest = manifests[max(manifests)]
    own = ("store", "parent", "checksum", "version")  # random, or follow from what is random or from ends
    found = {"manifest": {key: value for key, value in json.loads(newest).items() if key not in own}}
    for each in path.iterdir():
        digest = each.stem.rpartition("-")[2].encode()
        if each.name == "lock" or each.name.startswith("manifest-"):
            continue
        if digest in newest:
            found[each.name] = each.read_bytes()
        else:
            named = any(digest in data for data in manifests.values())
            assert named, f"{each.name} is named by no version, and was not swept"
    assert max(manifests) - min(manifests) <= 1, f"manifests {sorted(manifests)} were not swept"
    return found


@contextlib.contextmanager
def small(grace: float = -1.0, run: int = 4, full: int = 40) -> Iterator[None]:
    """Sealed often; by default what no version needs is removed at once."""
    before = seal.RUN, seal.FULL, sweep.GRACE
    seal.RUN, seal.FULL, sweep.GRACE = run, full, grace  # type: ignore[misc]
    try:
        yield
    finally:
        seal.RUN, seal.FULL, sweep.GRACE = before  # type: ignore[misc]


def opened(path: Path) -> StoreWriter:
    """A writer; use it in a ``with`` statement."""
    return StoreWriter.open(path, PROVENANCE)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Two endings are equal."""
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    more, less = sorted(found.keys() - wanted.keys()), sorted(wanted.keys() - found.keys())
    assert not names, f"the folder differs in {names}; {more} are too many and {less} are not there"


def settle(path: Path) -> None:
    """Have writers sweep a folder: the second one what the first one's index replaced."""
    for _ in range(2):
        with opened(path):
            pass


def take(writer: StoreWriter, step: Step) -> None:
    """Make one change that needs no more than a writer."""
    {"append": writer.append, "drop": writer.drop}.get(step.kind, lambda _, given: writer.adopt(given))(
        "user", step.given
    )


def carry_out(path: Path, steps: Sequence[Step], done: Callable[[], object] = lambda: None) -> None:
    """Make changes one after the other, with one writer for as many as it can; tell after each."""
    todo = list(steps)
    while todo:
        with opened(path) as writer:
            while todo and todo[0].kind != "compact":
                take(writer, todo[0])
                done()
                del todo[0]
        if todo:
            compact(path)
            done()
            del todo[0]


def plan(
    folder: Path, draw: random.Random, length: int, sizes: Sequence[int] = (1, 2, 5, 13), most: int = 200
) -> tuple[list[Step], list[State]]:
    """Random changes, and what the store holds before the first and after each.

    Args:
        folder: Where stores to adopt are made; it exists.
        draw: Where chance comes from.
        length: How many changes.
        sizes: Of batches.
        most: Rows beyond which some are dropped.
    """
    steps: list[Step] = []
    states: list[State] = [{}]
    top = 0
    kinds = {"append": 6, "drop": 2, "again": 2, "adopt": 1, "compact": 1}
    while len(steps) < length:
        state, number = states[-1], len(steps)
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        gone = [name for name in range(top) if name not in state]
        last = number >= length - 2  # so that runs which end alike also have the version before alike
        if len(state) > most:
            kind = "drop"
        if last or len(state) < 5 or (kind == "again" and not gone):
            kind = "append"
        if kind == "append":
            given: list[Any] = [row(top + place) for place in range(draw.choice(sizes))]
        elif kind == "again":
            given = [row(name, f"again {number}") for name in draw.sample(gone, min(3, len(gone)))]
        elif kind == "drop":
            given = draw.sample(list(state), draw.randint(1, 4) + max(0, len(state) - most))
        elif kind == "adopt":
            given = [folder / f"other-{number}"]
            brought = [row(top + place) for place in range(draw.choice([2, 7]))]
            shutil.rmtree(given[0], ignore_errors=True)
            carry_out(given[0], [Step("append", brought[:1]), Step("append", brought[1:])])
            state = state | {one.id: one.text for one in brought}
            top += len(brought)
        else:
            given = []
        if kind in ("append", "again"):
            state = state | {one.id: one.text for one in given}
            top = max(top, max(state) + 1)
        elif kind == "drop":
            state = {name: text for name, text in state.items() if name not in given}
        steps.append(Step("append" if kind == "again" else kind, given))
        states.append(state)
    return steps, states
