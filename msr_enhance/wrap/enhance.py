"""`enhance()`: check everything, then build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError, not_one_of
from msr_enhance.meta.branch import Branch, Place
from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.table import VectorTable
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.keys import KeyIndex, KeySource
from msr_enhance.wrap.model import LEVELS, EnhancedModel, Output
from msr_enhance.wrap.tap import TapCall, find_tap, leave, on_tap

Ids = Sequence[int] | Sequence[str]
Vectors = tuple[Ids, npt.NDArray[np.float32]]
PLACEMENT: dict[str, Place] = {"user": "bottom", "scenario": "parallel"}


def enhance(
    backbone: nn.Module,
    knowledge: KnowledgeStore | Mapping[str, Vectors],
    *,
    tap: str,
    keys: Mapping[str, KeySource],
    placement: Mapping[str, Place | None] | None = None,
    output: Output = "logit",
    vocabulary: Mapping[str, Ids] | None = None,
    training_ids: Mapping[str, Ids] | None = None,
    example: Any = None,
    width: int | None = None,
    fidelity: Literal["safe", "paper"] | None = None,
    meta: MetaConfig | None = None,
    learned: Sequence[str] = (),
    seed: int = 0,
) -> EnhancedModel:
    """Wrap any module with generated layers; the module itself is not changed.

    Args:
        backbone: Any `nn.Module` that returns one logit (or probability) a row.
        knowledge: A store, or `{level: (ids, vectors [ids, dim])}`; vectors of several layers, `[ids,
            n_layers, dim]`, are set side by side.
        tap: Name of the submodule whose output is the feature embedding, `[batch, width]` or
            `[batch, fields, dim]`.
        keys: For each placed level, the name of the argument (or member of a mapping argument) that
            holds each row's key `[batch]`, or a callable of the call's `(*args, **kwargs)`.
        placement: Where each level stands: ``bottom``, ``parallel`` or None. Default: user at the
            bottom, scenario in parallel.
        output: What the backbone returns: ``logit`` or ``probability``.
        vocabulary: `{level: ids}` when integer keys are positions (what an embedding layer takes):
            the id at each position. Without it, keys are the store's own ids.
        training_ids: `{level: ids}` that the vectors are centred over; by default all.
        example: A batch to try the tap and keys on at once; a tuple is taken as the positional
            arguments. Runs once, in eval mode, and leaves modes as they were.
        width: Width of the tap's flattened output, when there is no example.
        fidelity: ``safe`` (the default) starts as the plain model; ``paper`` is the literal equations 7 to 9.
        meta: Shape of the generated layers; by default that of the fidelity.
        learned: Levels whose vectors are trained (a control, not knowledge).
        seed: Of the generated layers' start; the global generator is left alone.

    Returns:
        A module to be called like the backbone.

    Raises:
        EnhanceError: A wrong tap, key, placement or width; lists what is there.
        UnknownIdError: The store holds no vector for a scenario of the vocabulary.

    Example:
        >>> model = enhance(backbone, store, tap="embedding",
        ...                 keys={"user": "user", "scenario": "scenario"}, example=batch)
        >>> model(batch).shape
        torch.Size([256])
    """
    if meta is not None and fidelity not in (None, meta.fidelity):
        raise EnhanceError(
            f"fidelity={fidelity!r} and meta=MetaConfig(fidelity={meta.fidelity!r}) disagree; "
            "write it in meta."
        )
    config = meta or MetaConfig.for_fidelity(fidelity or "safe")
    places = _places(PLACEMENT if placement is None else placement)
    if output not in ("logit", "probability"):
        raise EnhanceError(not_one_of("output", output, ("logit", "probability")))
    for level in places:
        if level not in keys:
            raise EnhanceError(
                f"keys names {sorted(keys)} but {level!r} is placed; write keys={{{level!r}: NAME, ...}}, "
                f"or placement={{{level!r}: None, ...}}."
            )
    module = find_tap(backbone, tap)
    if example is not None:
        width = _try_tap(backbone, module, tap, example)
    if width is None:
        raise EnhanceError(
            f"The width of tap {tap!r} is not known before a call; pass example=BATCH, or width=NUMBER."
        )
    branches: dict[str, Branch] = {}
    indexes: dict[str, KeyIndex] = {}
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        for level, place in places.items():
            held, vectors = _vectors(knowledge, level, (vocabulary or {}).get(level))
            ids = (vocabulary or {}).get(level, held)
            among = (training_ids or {}).get(level)
            table = VectorTable.aligned(held, vectors, ids, among, learned=level in learned)
            _check_known(level, held, ids, table)
            # Only users come and go: their zero-knowledge path is trained by dropping vectors.
            own = config if level == "user" else config.model_copy(update={"knowledge_dropout": 0.0})
            branches[level] = Branch(table, width, place, own)
            indexes[level] = KeyIndex(
                level,
                ids,
                positions=level in (vocabulary or {}),
                unknown="zero" if level == "user" else "error",
            )
    device = next((weight.device for weight in backbone.parameters()), torch.device("cpu"))
    model = EnhancedModel(backbone, branches, indexes, keys, tap, output)
    model.meta.to(device)
    model.index.to(device)
    if example is not None:
        try:
            _run_quietly(model, example)
        except BaseException:
            leave(module)
            raise
    return model


def _places(placement: Mapping[str, Place | None]) -> dict[str, Place]:
    for level, place in placement.items():
        if level not in LEVELS:
            raise EnhanceError(not_one_of("level", level, LEVELS, "Write placement={'user': 'bottom'}."))
        if place not in ("bottom", "parallel", None):
            raise EnhanceError(not_one_of(f"placement of {level}", place, ("bottom", "parallel", None)))
    placed = {level: place for level in LEVELS if (place := placement.get(level)) is not None}
    if not placed:
        raise EnhanceError("placement places no level; write for example placement={'user': 'bottom'}.")
    return placed


def _vectors(
    knowledge: KnowledgeStore | Mapping[str, Vectors], level: str, among: Ids | None
) -> tuple[Ids, Tensor]:
    """Ids and vectors `[ids, dim]` or `[ids, n_layers, dim]` of a level; rows without knowledge are zeros."""
    if isinstance(knowledge, KnowledgeStore):
        if level not in knowledge.levels:
            raise EnhanceError(
                f"The store holds no {level} vectors; it holds {sorted(knowledge.levels)}. "
                f"Write placement={{{level!r}: None, ...}}, or extract that level."
            )
        held: Ids = knowledge.ids(level)
        if knowledge.keyed(
            level
        ):  # its own ids are hashes, and only the ids of a vocabulary can be looked up
            if among is None:
                raise EnhanceError(
                    f"The {level} ids of the store are keyed hashes; pass vocabulary={{{level!r}: ids}}."
                )
            held = list(dict.fromkeys(among))  # type: ignore[assignment]  # of one type, as it was
        matrix = knowledge.vectors(level, held, unknown="zero")
    else:
        if level not in knowledge:
            raise EnhanceError(not_one_of("level", level, knowledge, "Pass {level: (ids, vectors)}."))
        held, matrix = knowledge[level]
    if len(held) != len(matrix) or matrix.ndim not in (2, 3) or len(held) == 0:
        raise EnhanceError(
            f"{len(held)} {level} ids for vectors of shape {matrix.shape}; allowed: [ids, dim] or "
            "[ids, n_layers, dim]."
        )
    if not np.isfinite(matrix).all():
        raise EnhanceError(f"The {level} vectors hold NaN or infinity; extract those ids again.")
    if len(set(held)) != len(held):
        twice = next(name for place, name in enumerate(held) if name in held[:place])
        raise EnhanceError(
            f"{level} id {twice!r} stands twice among the {len(held)} ids; allowed: once each."
        )
    return held, torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))


def _check_known(level: str, held: Ids, ids: Ids, table: VectorTable) -> None:
    """Refuse a scenario without a vector, and a level of which nothing is known."""
    if level == "scenario" and not bool(table.known.all()):
        missing = [name for name, here in zip(ids, table.known.tolist(), strict=True) if not here]
        raise UnknownIdError(
            not_one_of("scenario", missing[0], held, "Extract the store with this log's scenarios.")
        )
    if not bool(table.known.any()):
        raise UnknownIdError(
            f"The store knows none of the {len(ids)} {level} ids (first asked: {list(ids[:3])}, "
            f"first held: {list(held[:3])}); are the id types the same? A store with keyed ids is opened "
            "with its key."
        )


def _try_tap(backbone: nn.Module, module: nn.Module, tap: str, example: Any) -> int:
    """Width of the flattened tap output for the example."""
    before = on_tap in module._forward_hooks.values()
    try:
        with TapCall(tap, module, lambda flat: flat) as call:
            _run_quietly(backbone, example)
        return call.seen().shape[1]
    finally:
        if not before:
            leave(module)


@torch.no_grad()
def _run_quietly(module: nn.Module, example: Any) -> None:
    """One call in eval mode; every submodule's mode is put back, and buffers do not move."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        module(*example) if isinstance(example, tuple) else module(example)
    finally:
        for part, mode in modes:
            part.training = mode
