"""From a saved model, and what the user brings, to a model: all is checked before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Branch
from msr_enhance.meta.statistics import Statistics
from msr_enhance.meta.table import VectorTable
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.keys import KeySource
from msr_enhance.wrap.knowledge import Ids, Knowledge, ids_of
from msr_enhance.wrap.recipe import Recipe
from msr_enhance.wrap.saved import Saved, Vocabulary, digest_of
from msr_enhance.wrap.state import aliases_of, state_of
from msr_enhance.wrap.tensors import Entry, TensorFile, damaged, entry_of

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def sources_of(
    recipe: Recipe, keys: Mapping[str, KeySource] | None, vectors: Mapping[str, KeySource] | None
) -> tuple[Recipe, dict[str, KeySource]]:
    """Where each level's keys or vectors are: as saved, or as given instead.

    Raises:
        EnhanceError: A function that could not be saved is missing, or a level is not one of the model's.
    """
    found: dict[str, KeySource] = {}
    update: dict[str, Any] = {}
    for what, saved, given in (("keys", recipe.keys, keys or {}), ("vectors", recipe.vectors, vectors or {})):
        _check_mapping(what, given, "{level: NAME}")
        for level, one in given.items():
            if level not in saved:
                raise EnhanceError(not_one_of(f"level of {what}", level, saved, "It is as it was saved."))
            if isinstance(one, bool) or not (isinstance(one, (str, int)) or callable(one)):
                raise EnhanceError(
                    f"{what}={{{level!r}: {repr(one)[:60]}}}; allowed: a name, the number of an argument, "
                    "or a function of the call's arguments."
                )
        now = {level: given.get(level, source) for level, source in saved.items()}
        for level, source in now.items():
            if source is None:
                raise EnhanceError(
                    f"The {what} of {level} are found by a function, which cannot be saved; pass it again: "
                    f"{what}={{{level!r}: FUNCTION}}."
                )
            found[level] = source
        plain = {level: one if isinstance(one, (str, int)) else None for level, one in now.items()}
        update[what] = plain
    return recipe.model_copy(update=update), found


def ids_for(saved: Saved, knowledge: Knowledge, vocabulary: Mapping[str, Ids]) -> dict[str, Ids]:
    """The ids of each level whose weights depend on their order, which is the saved one.

    Raises:
        EnhanceError: A vocabulary is missing, or is neither the saved one nor goes on from it.
    """
    recipe = saved.recipe
    _check_mapping("vocabulary", vocabulary, "{level: ids}")
    for level, ids in vocabulary.items():
        if level not in recipe.placement:
            raise EnhanceError(not_one_of("level of vocabulary", level, recipe.placement))
        in_order = hasattr(ids, "__len__") and hasattr(ids, "__getitem__")
        if not in_order or isinstance(ids, (str, bytes, Mapping)):
            raise EnhanceError(
                f"The vocabulary of {level} is {type(ids).__name__}; allowed: a list, a tuple or an array of "
                "ids, in the order of training."
            )
    found = dict(vocabulary)
    for level, held in saved.vocabularies.items():
        if level in vocabulary:
            ids = vocabulary[level]
        elif held.names is not None:
            ids = held.names  # type: ignore[assignment]  # all integers or all strings
        elif level in recipe.positions:
            raise EnhanceError(
                f"The {level} keys are positions in a vocabulary of {held.ids:,} ids, of which only the "
                "digest was "
                f"saved; pass vocabulary={{{level!r}: [id of 0, id of 1, ...]}}."
            )
        else:
            ids = ids_of(knowledge, level, None)
        _check_ids(level, ids, held, level in recipe.learned)
        found[level] = ids
    for level in recipe.vectors:
        found.setdefault(level, ())  # no rows: their vectors come with the batch
    return found


def with_vector_levels(recipe: Recipe, knowledge: Knowledge) -> Knowledge:
    """Knowledge that names the levels whose vectors come with the batch, which need none.

    Raises:
        EnhanceError: It is no knowledge.
    """
    if isinstance(knowledge, KnowledgeStore):
        return knowledge
    if not isinstance(knowledge, Mapping):
        raise EnhanceError(
            f"knowledge is {type(knowledge).__name__}; allowed: a KnowledgeStore, or "
            "{level: (ids, vectors)}. Write KnowledgeStore.load(FOLDER)."
        )
    none: Any = ((), torch.zeros(0, 1).numpy())
    return {**dict.fromkeys(recipe.vectors, none), **knowledge}


def statistics_of(saved: Saved, file: TensorFile, tensors: Mapping[str, Tensor]) -> dict[str, Statistics]:
    """How each level's vectors are read, in float32.

    Raises:
        EnhanceError: They are missing, of another shape, or no numbers.
    """
    found = {}
    for level, dim in saved.knowledge.dims.items():
        prefix = f"meta.{level}.table."
        mean, basis = tensors.get(f"{prefix}mean"), tensors.get(f"{prefix}basis")
        given = [one for one in (mean, basis) if one is not None]
        right = mean is not None and mean.shape == (dim,) and all(one.dtype in _FLOATS for one in given)
        if basis is not None:
            right = right and basis.dim() == 2 and len(basis) == dim and basis.shape[1] > 0
        if mean is None or not right:
            raise damaged(file.path, f"{prefix}mean or {prefix}basis does not fit vectors of {dim} numbers")
        if not all(bool(one.isfinite().all()) for one in given):
            raise EnhanceError(f"The saved statistics of {level} hold NaN or infinity; save the model again.")
        found[level] = Statistics(mean.float(), None if basis is None else basis.float())
        if not 0 < float(found[level].gain) < torch.inf:
            raise damaged(file.path, f"{prefix}basis has columns of length {float(found[level].gain)}")
    return found


def check_meta(recipe: Recipe, saved: Saved, file: TensorFile, statistics: Mapping[str, Statistics]) -> None:
    """Refuse generated layers other than the recipe's, before anything of their size is made.

    Raises:
        EnhanceError: A tensor is missing, too many, or of another shape or type.
    """
    if recipe.meta.layers > len(file.entries):
        raise damaged(file.path, f"it has fewer tensors than the {recipe.meta.layers:,} layers of the recipe")
    expected: dict[str, Entry] = {}
    for level, place in recipe.placement.items():
        prefix = f"meta.{level}."
        layer = file.entries.get(f"{prefix}layers.0.weight")
        if layer is None or layer.dtype not in _FLOATS:
            raise damaged(file.path, f"{prefix}layers.0.weight is {layer}")
        with torch.device("meta"):  # shapes without memory
            learned = level in recipe.learned and level not in recipe.vectors
            table = VectorTable(None, statistics[level], learned=learned, unknown=recipe.unknown[level])
            few = level in recipe.few
            try:
                branch = Branch(table, recipe.width, place, recipe.meta, tasks=recipe.tasks, few=few)
            except RuntimeError as error:  # more numbers than can be counted
                raise damaged(
                    file.path, f"its recipe asks for {level} layers of a size that none has"
                ) from error
        for name, tensor in branch.state_dict(prefix=prefix).items():
            shape = tuple(tensor.shape)
            if name == f"{prefix}table.trained":
                shape = (saved.vocabularies[level].ids, *shape[1:])
            statistic = name in (f"{prefix}table.mean", f"{prefix}table.basis")
            # Statistics keep their own type when the layers are turned to a smaller one.
            expected[name] = Entry(file.entries[name].dtype if statistic else layer.dtype, shape)
    there = {name: entry for name, entry in file.entries.items() if name.startswith("meta.")}
    _compare(there, expected, f"{file.path}: the generated layers of its recipe")


def check_backbone(saved: Saved, file: TensorFile, backbone: nn.Module) -> dict[str, str]:
    """Refuse a backbone with other weights than the saved one's.

    Returns:
        For every name of its state the name of the tensor in the file; empty where none were saved.

    Raises:
        EnhanceError: A tensor is missing, too many, of another shape or type, or tied otherwise.
    """
    others = [name for name in file.entries if not name.startswith(("meta.", "backbone."))]
    stray = others or [
        name for name in file.entries if name.startswith("backbone.") and not saved.backbone.weights
    ]
    aliases = saved.weights.aliases
    wrong = [name for name, first in aliases.items() if name in file.entries or first not in file.entries]
    if stray or wrong:
        raise damaged(file.path, f"{(stray or wrong)[0]!r} has no place in it")
    if not saved.backbone.weights:
        return {}
    held = {name: name for name in file.entries if name.startswith("backbone.")}
    held |= {name: first for name, first in aliases.items() if name.startswith("backbone.")}
    state = state_of(backbone, "backbone.")
    given = f"The backbone ({type(backbone).__name__}) and the saved one ({saved.backbone.name})"
    _compare(
        {name: entry_of(tensor) for name, tensor in state.items()},
        {name: file.entries[first] for name, first in held.items()},
        given,
    )
    for name, first in aliases_of(state).items():
        if held[name] != held[first]:
            raise EnhanceError(
                f"{given} differ: {name} and {first} are one tensor here and were two; allowed: tied as they "
                "were."
            )
    return held


def _check_mapping(what: str, given: object, allowed: str) -> None:
    if not isinstance(given, Mapping):
        raise EnhanceError(f"{what} is {type(given).__name__}; allowed: {allowed}.")


def _check_ids(level: str, ids: Ids, saved: Vocabulary, learned: bool) -> None:
    plain = [name.item() if hasattr(name, "item") else name for name in ids]
    rows = {name: row for row, name in enumerate(plain)}
    allowed = f"the {saved.ids:,} ids that it was trained with, in their order, "
    allowed += "and no others, as their vectors were trained" if learned else "with new ones behind them"
    if len(plain) < saved.ids or (learned and len(plain) != saved.ids):
        raise EnhanceError(f"The vocabulary of {level} has {len(plain):,} ids; allowed: {allowed}.")
    if digest_of(rows, saved.ids) != saved.sha256:
        raise EnhanceError(
            f"The vocabulary of {level} is another one: its first {saved.ids:,} ids are not those of "
            "training, or not "
            f"in that order; allowed: {allowed}."
        )


def _compare(seen: Mapping[str, Entry], allowed: Mapping[str, Entry], where: str) -> None:
    faults = [f"{name} is missing ({allowed[name]})" for name in allowed.keys() - seen.keys()]
    faults += [f"{name} is not known ({seen[name]})" for name in seen.keys() - allowed.keys()]
    faults += [
        f"{name} is {seen[name]}, allowed: {allowed[name]}"
        for name in seen.keys() & allowed.keys()
        if seen[name] != allowed[name]
    ]
    if faults:
        faults.sort()
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise EnhanceError(
            f"{where} differ: {'; '.join(faults[:5])}{more}. Build the backbone as it was when it was saved, "
            "in the "
            "same type (backbone.to(...))."
        )
