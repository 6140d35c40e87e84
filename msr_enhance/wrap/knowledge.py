"""A level's vectors out of a store or out of memory, in the order a model wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError, UnknownIdError, not_one_of
from msr_enhance.meta.statistics import RawVectors
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.record import Level

Ids = Sequence[int] | Sequence[str]
Vectors = tuple[Ids, npt.NDArray[np.float32]]
Knowledge = KnowledgeStore | Mapping[str, Vectors]


def ids_of(knowledge: Knowledge, level: str, vocabulary: Ids | None) -> Ids:
    """The ids whose rows a model holds: those of the vocabulary, else those that the knowledge is about.

    Raises:
        EnhanceError: The level is not there, or its own ids are hashes and there is no vocabulary.
    """
    if not isinstance(knowledge, KnowledgeStore):
        if level not in knowledge:
            raise EnhanceError(not_one_of("level", level, knowledge, "Pass {level: (ids, vectors)}."))
        return knowledge[level][0] if vocabulary is None else vocabulary
    if level not in knowledge.levels:
        raise EnhanceError(
            f"The store holds no {level} vectors; it holds {sorted(knowledge.levels)}. "
            f"Write placement={{{level!r}: None, ...}}, or extract that level."
        )
    if vocabulary is not None:
        return vocabulary
    if knowledge.keyed(level):  # only the ids of a vocabulary can be looked up
        raise EnhanceError(
            f"The {level} ids of the store are keyed hashes; pass vocabulary={{{level!r}: ids}}."
        )
    return knowledge.ids(level)


def read_raw(knowledge: Knowledge, level: str, ids: Ids) -> RawVectors:
    """The vectors of these ids, in their order; zeros for those without one.

    Vectors of several layers, `[ids, n_layers, dim]`, are set side by side.

    Raises:
        EnhanceError: They are not one finite vector an id.
    """
    if not isinstance(knowledge, KnowledgeStore):
        return _in_memory(*knowledge[level], level, ids)
    if len(ids) == 0:
        raise EnhanceError(f"No {level} ids; pass at least one in vocabulary={{{level!r}: [...]}}.")
    name = cast("Level", level)  # one that the store has
    try:
        probe = knowledge.vectors(name, ids[:1], unknown="zero")
    except UnknownIdError as error:
        raise UnknownIdError(f"{error} (A store with keyed ids is opened with its key.)") from error

    return RawVectors(len(ids), int(np.prod(probe.shape[1:])), _Stored(knowledge, name, ids))


@dataclass(frozen=True)
class _Stored:
    """Reads a store. A class, not a function inside another, so that a model can be sent to a process."""

    store: KnowledgeStore
    level: Level
    ids: Ids

    def __call__(self, start: int, stop: int) -> Tensor:
        found = self.store.vectors(self.level, self.ids[start:stop], unknown="zero")
        return _tensor(found, self.level)


@dataclass(frozen=True)
class _InMemory:
    """Reads a matrix; row -1 is an id without a vector."""

    matrix: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    level: str

    def __call__(self, start: int, stop: int) -> Tensor:
        here = self.rows[start:stop]
        known = (here >= 0).reshape(-1, *[1] * (self.matrix.ndim - 1))
        return _tensor(np.where(known, self.matrix[here], 0), self.level)


def _in_memory(held: Ids, matrix: npt.NDArray[Any], level: str, ids: Ids) -> RawVectors:
    if len(held) != len(matrix) or matrix.ndim not in (2, 3) or len(held) == 0:
        raise EnhanceError(
            f"{len(held)} {level} ids for vectors of shape {matrix.shape}; allowed: [ids, dim] or "
            "[ids, n_layers, dim]."
        )
    row_of = {name: row for row, name in enumerate(_plain(held))}
    if len(row_of) != len(held):
        twice = next(name for place, name in enumerate(held) if name in held[:place])
        raise EnhanceError(
            f"{level} id {twice!r} stands twice among the {len(held)} ids; allowed: once each."
        )
    _tensor(matrix, level)
    rows = np.array([row_of.get(name, -1) for name in _plain(ids)], dtype=np.int64)
    return RawVectors(len(rows), int(np.prod(matrix.shape[1:])), _InMemory(np.asarray(matrix), rows, level))


def _plain(ids: Ids) -> list[Any]:
    return [name.item() if isinstance(name, (np.generic, Tensor)) else name for name in ids]


def _tensor(matrix: npt.NDArray[Any], level: str) -> Tensor:
    if not np.isfinite(matrix).all():
        raise EnhanceError(f"The {level} vectors hold NaN or infinity; extract those ids again.")
    return torch.from_numpy(np.ascontiguousarray(matrix.reshape(len(matrix), -1), dtype=np.float32))


def trained_on(ids: Ids, training: Ids | None) -> Tensor:
    """`[ids]` bool, those that the vectors are centred over."""
    if training is None:
        return torch.ones(len(ids), dtype=torch.bool)
    chosen = set(_plain(training))
    found = torch.tensor([name in chosen for name in _plain(ids)], dtype=torch.bool)
    if not bool(found.any()):
        raise EnhanceError(
            f"None of the {len(chosen):,} training ids (first: {list(training[:3])}) is among "
            f"the {len(ids):,} ids (first: {list(ids[:3])}); are the types the same? Vectors are centred "
            "over them."
        )
    return found


def check_known(level: str, ids: Ids, absent: Tensor, knowledge: Knowledge, policy: str) -> None:
    """Refuse an id without a vector where unknown ones are errors, and a level of which nothing is known.

    Raises:
        UnknownIdError: So it is.
    """
    missing = absent[:-1]
    if bool(missing.all()):
        name = cast("Level", level)
        held = knowledge.known(name) if isinstance(knowledge, KnowledgeStore) else knowledge[level][0]
        raise UnknownIdError(
            f"The store knows none of the {len(ids)} {level} ids (first asked: {list(ids[:3])}, "
            f"first held: {list(held[:3])}); are the id types the same? A store with keyed ids is opened "
            "with its key."
        )
    if policy == "error" and bool(missing.any()):
        first = ids[int(missing.nonzero()[0])]
        known = [name for name, gone in zip(ids, missing.tolist(), strict=True) if not gone]
        more = f"Extract the store with this log's {level}s, or write unknown={{{level!r}: 'zero'}}."
        raise UnknownIdError(not_one_of(level, first, known, more))
