"""Put the parts of an enhanced model together, new or from saved statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.branch import FEW_KEYS, Branch
from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.statistics import RawVectors, Statistics, span
from msr_enhance.meta.table import VectorTable
from msr_enhance.wrap.index import KeyIndex
from msr_enhance.wrap.knowledge import Ids, Knowledge, check_known, ids_of, read_raw, trained_on
from msr_enhance.wrap.origin import pinned
from msr_enhance.wrap.recipe import Recipe
from msr_enhance.wrap.saved import Pinned

_SAMPLE = 65_536  # vectors that tell the mean and the directions of millions
_BLOCK = 8_192


@dataclass(frozen=True)
class Parts:
    """What stands around a backbone."""

    recipe: Recipe
    branches: dict[str, Branch]
    indexes: dict[str, KeyIndex]
    origin: Pinned


def assemble(
    recipe: Recipe,
    knowledge: Knowledge,
    *,
    vocabulary: Mapping[str, Ids],
    training_ids: Mapping[str, Ids] | None = None,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
) -> Parts:
    """The generated layers of a recipe.

    Args:
        recipe: How; its field `few` is filled in here where there are no statistics yet.
        knowledge: The vectors.
        vocabulary: The id at each position, for levels whose keys are positions.
        training_ids: Ids that new statistics are of.
        statistics: Those of a trained model, instead of new ones.
        seed: Of the generated layers' start; the global generator is left alone.

    Raises:
        EnhanceError: A level, ids or vectors that cannot be used.
        UnknownIdError: An unknown scenario.
    """
    branches: dict[str, Branch] = {}
    indexes: dict[str, KeyIndex] = {}
    few = list(recipe.few)
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        for level, place in recipe.placement.items():
            ids = ids_of(knowledge, level, vocabulary.get(level))
            own = recipe.meta
            if statistics is None:
                kept = level not in recipe.learned and level not in recipe.vectors
                if level == "scenario" and len(ids) <= FEW_KEYS and kept:
                    few.append(level)
                among = (training_ids or {}).get(level)
                measured = _measured(knowledge, level, ids, among, own, level in few)
            else:
                measured = statistics[level]
            table = _table(recipe, level, knowledge, ids, measured)
            # Only users come and go: their path without knowledge is trained by dropping vectors.
            policy = recipe.unknown[level]
            if policy == "error" or (policy == "zero" and level != "user"):
                own = own.model_copy(update={"knowledge_dropout": 0.0})
            branches[level] = Branch(table, recipe.width, place, own, tasks=recipe.tasks, few=level in few)
            if level not in recipe.vectors:
                indexes[level] = KeyIndex(level, ids, positions=level in recipe.positions)
    recipe = recipe.model_copy(update={"few": tuple(few)})
    return Parts(recipe, branches, indexes, _origin(knowledge, branches))


def refreshed(
    recipe: Recipe,
    branches: Mapping[str, Branch],
    knowledge: Knowledge,
    vocabulary: Mapping[str, Ids],
) -> tuple[dict[str, VectorTable], dict[str, KeyIndex], Pinned]:
    """Tables and indexes of newer knowledge, read through the statistics of the trained ones.

    Raises:
        EnhanceError: Vectors of another width, levels with trained vectors, or a vocabulary is missing.
        UnknownIdError: An unknown scenario.
    """
    tables: dict[str, VectorTable] = {}
    indexes: dict[str, KeyIndex] = {}
    for level, branch in branches.items():
        old = branch.table
        if level in recipe.learned:
            raise EnhanceError(
                f"The {level} vectors of this model are trained, not knowledge; train it again."
            )
        if level in recipe.positions and level not in vocabulary:
            raise EnhanceError(
                f"{level} keys are positions; pass vocabulary={{{level!r}: [id of 0, id of 1, ...]}}."
            )
        ids = ids_of(knowledge, level, vocabulary.get(level))
        table = _table(recipe, level, knowledge, ids, old.statistics_on("cpu"))
        table.stranger = old.stranger
        tables[level] = table.to(old.rows.device, old.rows.dtype)
        if level not in recipe.vectors:
            index = KeyIndex(level, ids, positions=level in recipe.positions)
            indexes[level] = index.to(old.mean.device)
    return tables, indexes, _origin(knowledge, branches)


def _origin(knowledge: Knowledge, branches: Mapping[str, Branch]) -> Pinned:
    return pinned(knowledge, {level: branch.table.dim for level, branch in branches.items()})


def _table(recipe: Recipe, level: str, knowledge: Knowledge, ids: Ids, statistics: Statistics) -> VectorTable:
    policy = recipe.unknown[level]
    if level in recipe.vectors:
        return VectorTable(None, statistics, unknown=policy)
    raw = read_raw(knowledge, level, ids)
    if raw.dim != len(statistics.mean):
        raise EnhanceError(
            f"The {level} vectors have {raw.dim} numbers, and the model was trained on "
            f"{len(statistics.mean)}; allowed: vectors of the same language model and state."
        )
    table = VectorTable(raw, statistics, learned=level in recipe.learned, unknown=policy)
    check_known(level, ids, table.absent, knowledge, policy)
    return table


def _measured(
    knowledge: Knowledge, level: str, ids: Ids, training: Ids | None, config: MetaConfig, few: bool
) -> Statistics:
    """Statistics of a level's vectors over its training ids."""
    among = trained_on(ids, training)
    if len(ids) > _SAMPLE:
        raw = _sampled(knowledge, level, ids, among)
        among = torch.ones(raw.keys, dtype=torch.bool)
    else:
        raw = read_raw(knowledge, level, ids)
    if few:
        return Statistics.of(raw, among, span(raw, among))
    if config.rank is None:
        return Statistics.of(raw, among, None)
    keep = config.rank if config.projection == "frozen" else max(config.compact, config.rank)
    return Statistics.of(raw, among, keep, config.rank)


def _sampled(knowledge: Knowledge, level: str, ids: Ids, among: Tensor) -> RawVectors:
    """Vectors of some training ids drawn at random that have one: enough for the mean and main directions."""
    drawn = among.nonzero()[:, 0][torch.randperm(int(among.sum()))]
    parts, found = [torch.zeros(0, 1)], 0
    for some in torch.split(drawn, _BLOCK):
        raw = read_raw(knowledge, level, [ids[row] for row in some.tolist()])
        block = raw.read(0, raw.keys)
        parts = [part for part in parts if part.shape[1] == raw.dim] + [block[block.any(dim=1)]]
        found += len(parts[-1])
        if found >= _SAMPLE:
            break
    return RawVectors.of(torch.cat(parts)[:_SAMPLE])
