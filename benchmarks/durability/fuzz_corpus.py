"""Inputs for the fuzzer: valid tiny stores with something changed, checksums repaired in nine of ten."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.durability import tiny
from benchmarks.durability.mutations import (
    EDGES,
    PLACES,
    Tree,
    as_manifest,
    changed_tree,
    fitted,
    frame_of,
    misplaced,
    name_of,
    repaired,
    scrambled,
)
from msr_enhance.fingerprint import canonical_json, parse_canonical_json
from msr_enhance.store.record import Layout
from msr_enhance.store.versions import latest_manifest

_SHARES = {"manifest": 30, "vec": 20, "txt": 15, "del": 5, "idx": 18, "map": 6, "store": 4}


class Case(NamedTuple):
    """One input.

    Attributes:
        target: Who reads it: ``manifest``, ``store``, or a kind of file by itself.
        files: Bytes by name.
        entry: Of a single file, the part of a manifest that names it.
        layout: Of a single file, what the manifest promises of all rows.
    """

    target: str
    files: dict[str, bytes]
    entry: Tree
    layout: Layout


class _Seed(NamedTuple):
    tree: Tree
    files: dict[str, bytes]


NO_LAYOUT = Layout("user", 1, "float32", "int")


class Corpus:
    """Valid stores, and inputs made from them.

    Args:
        folder: Where the stores are made.
    """

    def __init__(self, folder: Path) -> None:
        self._stores: list[_Seed] = []
        self._parts: dict[str, list[tuple[Tree, Layout, bytes]]] = {kind: [] for kind in PLACES}
        for make in tiny.KINDS:
            path = make(folder / make.__name__)
            manifest, data = latest_manifest(path)
            files = {file.name: (path / file.name).read_bytes() for file in manifest.files()}
            tree = parse_canonical_json(data)
            self._stores.append(_Seed(tree, files))
            for kind, part, layout in _parts(tree):
                self._parts[kind].append((part, layout, files[name_of(part[PLACES[kind]])]))

    def valid(self) -> list[Case]:
        """Inputs with nothing changed, each of which must be accepted."""
        found = []
        for tree, files in self._stores:
            data = canonical_json(tree)
            found.append(Case("manifest", {"manifest": data}, {}, NO_LAYOUT))
            found.append(Case("store", files | {f"manifest-{tree['version']}.json": data}, {}, NO_LAYOUT))
        for kind, parts in self._parts.items():
            found += [Case(kind, {"file": data}, part, layout) for part, layout, data in parts]
        return found

    def changed(self, draw: random.Random) -> Case:
        """An input with something changed."""
        repair = draw.random() < 0.9
        target = draw.choices(list(_SHARES), list(_SHARES.values()))[0]
        if target == "store":
            return self._store(draw, repair)
        if target == "manifest":
            tree = changed_tree(draw, draw.choice(self._stores).tree)
            return Case(target, {"manifest": as_manifest(draw, tree, repair)}, {}, NO_LAYOUT)
        part, layout, data = draw.choice(self._parts[target])
        part, data = _changed_file(draw, target, part, layout, data, repair)
        return Case(target, {"file": data}, part, layout)

    def _store(self, draw: random.Random, repair: bool) -> Case:
        tree, files = draw.choice(self._stores)
        if draw.random() < 0.6:
            tree = parse_canonical_json(canonical_json(tree))
            parts = _parts(tree)
            kind = draw.choice(sorted({kind for kind, _, _ in parts}))
            kind, part, layout = draw.choice([each for each in parts if each[0] == kind])
            name = name_of(part[PLACES[kind]])
            new, data = _changed_file(draw, kind, part, layout, files[name], repair)
            part |= new
            files = files | {(name_of(new[PLACES[kind]]) if repair else name): data}
        else:
            tree = changed_tree(draw, tree)
        version = tree.get("version")
        number = version if type(version) is int and 0 < version < 10**18 else 1
        named = {f"manifest-{number}.json": as_manifest(draw, tree, repair)}
        return Case("store", files | named, {}, NO_LAYOUT)


def _changed_file(
    draw: random.Random, kind: str, part: Tree, layout: Layout, data: bytes, repair: bool
) -> tuple[Tree, bytes]:
    """Another part of the manifest, and another file to go with it."""
    before, place = frame_of(part, kind, layout), PLACES[kind]
    part = part | {place: dict(part[place])}
    if draw.random() < 0.3:
        rows = part.get("rows", 0)
        number = draw.choice((*EDGES, rows + 1, rows - 1))
        if draw.random() < 0.3:
            part[place]["blob"] = number
        elif "rows" in part:
            part["rows"] = number
        else:
            part["shape"] = [number, *part["shape"][1:]]
        after = frame_of(part, kind, layout)
        if before and after and draw.random() < 0.8:
            data = fitted(data, after, before)
    frame = frame_of(part, kind, layout)
    if kind == "idx" and frame and frame.bytes == len(data) and draw.random() < 0.4:
        data = misplaced(draw, data, frame)
    elif draw.random() < 0.8:
        data = scrambled(draw, data)
    return part, (repaired(part, kind, layout, data) if repair else data)


def _parts(tree: Tree) -> list[tuple[str, Tree, Layout]]:
    """The files that a valid manifest names: kind, the part that names it, and the layout of its rows."""
    named = [(entry, entry["level"]) for entry in (*tree["shards"], *tree["maps"])]
    named += [(part, level) for level, part in tree["index"].items()]
    found = []
    for part, level in named:
        layout = Layout(level, int(np.prod(tree["shape"][level])), tree["dtype"], tree["id_type"][level])
        places = [place for place in dict.fromkeys(PLACES.values()) if part.get(place)]
        found += [(part[place]["kind"], part, layout) for place in places]
    return found
