"""`enhance()`: check everything, then build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Place
from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.table import Unknown
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.arguments import as_call
from msr_enhance.wrap.build import assemble
from msr_enhance.wrap.keys import KeySource
from msr_enhance.wrap.knowledge import Ids, Knowledge
from msr_enhance.wrap.model import EnhancedModel
from msr_enhance.wrap.output import Output
from msr_enhance.wrap.quiet import run_quietly
from msr_enhance.wrap.recipe import LEVELS, PLACEMENT, Recipe, placed, policies
from msr_enhance.wrap.report import report
from msr_enhance.wrap.tap import Tap, leave
from msr_enhance.wrap.trial import tried


def enhance(
    backbone: nn.Module,
    knowledge: Knowledge,
    *,
    tap: str | None = None,
    keys: Mapping[str, KeySource] | None = None,
    placement: Mapping[str, Place | None] | None = None,
    output: str | Sequence[str] = "logit",
    vectors: Mapping[str, KeySource] | None = None,
    vocabulary: Mapping[str, Ids] | None = None,
    training_ids: Mapping[str, Ids] | None = None,
    unknown: Mapping[str, Unknown] | None = None,
    example: Any = None,
    width: int | None = None,
    fidelity: Literal["safe", "paper"] | None = None,
    meta: MetaConfig | None = None,
    learned: Sequence[str] = (),
    seed: int = 0,
) -> EnhancedModel:
    """Wrap any module with generated layers; the module itself is not changed.

    Args:
        backbone: Any `nn.Module` that returns a score a row.
        knowledge: A store, or `{level: (ids, vectors [ids, dim])}`; vectors of several layers, `[ids,
            n_layers, dim]`, are set side by side.
        tap: Where the feature embedding is, `[batch, width]` or `[batch, fields, dim]`, or a dict or tuple
            of those: ``NAME`` of a submodule for its output, ``NAME:input`` for its input, ``:input[NAME]``
            for an argument; ``[MEMBER]`` or ``[0]`` behind for one member. Left out, the error lists the
            backbone's taps for `example`, with shapes, and a call to copy.
        keys: For each placed level, where each row's key is, `[batch]`: the name of an argument or of a
            member of one, the number of a positional argument, ``NAME[member]``, ``NAME[:,0]`` for a column,
            or a callable of the call's `(*args, **kwargs)`.
        placement: Where each level stands: ``bottom``, ``parallel`` or None. Default: user at the
            bottom, scenario in parallel.
        output: What the backbone returns: ``logit`` or ``probability``, with ``[MEMBER]`` behind for a
            member of a dict or tuple; several for several tasks. Only read where a level stands in parallel.
        vectors: Instead of keys, for levels whose vectors `[batch, dim]` come with the batch: where they
            are. `knowledge` is then only read for the mean and the main directions.
        vocabulary: `{level: ids}` when integer keys are positions (what an embedding layer takes):
            the id at each position. Without it, keys are the store's own ids.
        training_ids: `{level: ids}` that the vectors are centred over; by default all.
        unknown: What an unknown user or scenario gets: ``zero`` knowledge (users' default), a ``learned``
            vector, or an ``error`` (scenarios' default).
        example: A batch to try the tap and keys on at once. A tuple is the positional arguments, a pair
            of a tuple and a dict positional and keyword arguments, a dict one argument (keyword arguments
            where its keys name them). Runs in eval mode, and leaves modes as they were.
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
    places = placed(dict(PLACEMENT if placement is None else placement))
    said, sources = (
        Output.parse(tuple(output) if not isinstance(output, str) else output),
        _sources(keys, vectors),
    )
    if example is not None and (tap is None or not sources):
        raise EnhanceError(report(backbone, example))
    if tap is None:
        raise EnhanceError(
            "No tap is given; write tap=NAME of the embedding, or example=BATCH alone to list taps."
        )
    for level in places:
        if level not in sources:
            raise EnhanceError(
                f"keys names {sorted(sources)} but {level!r} is placed; write keys={{{level!r}: NAME, ...}}, "
                f"or placement={{{level!r}: None, ...}}."
            )
    for what, named in (("vocabulary", vocabulary), ("training_ids", training_ids), ("learned", learned)):
        for level in named or ():
            if level not in LEVELS:
                raise EnhanceError(not_one_of(f"level of {what}", level, LEVELS))
    if not isinstance(knowledge, (KnowledgeStore, Mapping)):
        raise EnhanceError(
            f"knowledge is {type(knowledge).__name__}; allowed: a KnowledgeStore, or "
            "{level: (ids, vectors)}. Write KnowledgeStore.load(FOLDER)."
        )
    where, tasks = Tap.parse(tap), len(said.parts)
    where.find(backbone)
    if example is not None:
        width, tasks = tried(backbone, where, said, places, example)
    if width is None:
        raise EnhanceError(
            f"The width of tap {tap!r} is not known before a call; pass example=BATCH, or width=NUMBER."
        )
    recipe = Recipe(
        tap=tap,
        keys={level: _plain(source) for level, source in (keys or {}).items() if level in places},
        vectors={level: _plain(source) for level, source in (vectors or {}).items() if level in places},
        output=tuple(said.written),
        placement=places,
        unknown=policies(dict(unknown or {})),
        positions=tuple(level for level in places if level in (vocabulary or {})),
        learned=tuple(level for level in learned if level in places),
        width=width,
        tasks=tasks,
        meta=config,
    )
    parts = assemble(
        recipe, knowledge, vocabulary=vocabulary or {}, training_ids=training_ids or {}, seed=seed
    )
    model = EnhancedModel(backbone, parts, sources)
    if example is not None:
        try:
            run_quietly(model, as_call(backbone, example))
        except BaseException:
            leave(where, where.find(backbone), model)
            raise
        model.whose.forget()
    return model


def _sources(
    keys: Mapping[str, KeySource] | None, vectors: Mapping[str, KeySource] | None
) -> dict[str, KeySource]:
    twice = set(keys or {}) & set(vectors or {})
    if twice:
        raise EnhanceError(f"{sorted(twice)} stand in keys and in vectors; write each level in one of them.")
    return {**(keys or {}), **(vectors or {})}


def _plain(source: KeySource) -> str | int | None:
    """A source that can be saved; a function cannot."""
    return source if isinstance(source, (str, int)) else None
