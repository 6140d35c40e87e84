"""`explain()`: the parts that make up one row's score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index as as_index
from typing import Any, cast

import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Place
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.bars import drawn
from msr_enhance.wrap.behind import answer_about, check_answers, is_known, key_of
from msr_enhance.wrap.fuse import at_output, at_tap
from msr_enhance.wrap.keys import find_key
from msr_enhance.wrap.model import EnhancedModel
from msr_enhance.wrap.output import Output, as_logit
from msr_enhance.wrap.quiet import undisturbed
from msr_enhance.wrap.recipe import LEVELS
from msr_enhance.wrap.tap import Tap, TapCall, listen
from msr_enhance.wrap.who import Whose


@dataclass(frozen=True)
class Part:
    """What the backbone, or the layers of one level, add to a row's logit.

    Attributes:
        name: ``backbone``, ``user`` or ``scenario``.
        logit: What it adds.
        key: The row's id of that level; of an unknown one the id as the batch holds it, None for nobody,
            for the backbone and where vectors come with the batch.
        known: Whether there was a vector; True for the backbone, which needs none.
        text: The store's answer about the key; None without a store or an answer.
        alpha: Mixing weight, where the layers stand in parallel.
        place: Where the layers stand; None for the backbone.
    """

    name: str
    logit: float
    key: int | str | None = None
    known: bool = True
    text: str | None = None
    alpha: float | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Explanation:
    """One row's score in parts; `print` shows it with bars.

    Attributes:
        row: Position in the batch.
        task: The score that is explained, as `output=` was written.
        logit: The enhanced model's; the sum of the parts.
        probability: Its sigmoid.
        parts: The backbone, then each placed level in the order in which they run.
    """

    row: int
    task: str
    logit: float
    probability: float
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return drawn(self.parts, self.logit, self.probability)


def explain(
    model: EnhancedModel,
    *args: Any,
    row: int,
    store: KnowledgeStore | None = None,
    task: int | str | None = None,
    **kwargs: Any,
) -> Explanation:
    """Split the score of one row into the backbone's part, the user's and the scenario's, as logits.

    The levels are switched on one after the other, in the order in which they run: those at the bottom
    (scenario, then user), then those in parallel (user, then scenario). A part is the difference that its
    level makes to the logit; so the parts sum to the enhanced logit, whatever the placement. The backbone's
    part is the logit of the disabled model. By default the user's part is thus the logit with the user
    layers alone, less that; and the scenario's is the rest, `alpha` times what the scenario layers say. Of
    two levels at one place, the later one's part is its difference *given* the earlier one.

    With ``fidelity="paper"`` a parallel level makes `alpha * g + (1 - alpha) * h` of the logit `h` before it
    (equation 9). The weight that it takes from `h` counts as its own doing: its part is `alpha * (g - h)`,
    and the parts before it stay whole.

    A probability stands for its logit. One that its type cannot tell from 0 or 1 counts as the nearest
    that it can.

    The model runs in eval mode without gradients, once more than it has levels; its mode, buffers, counts and
    the random numbers are afterwards as they were. It is explained as enhanced inside `disabled()`, too.
    Hooks on the backbone run as often as the backbone; those on the enhanced model itself do not run.

    Args:
        model: As `enhance()` made it.
        args: A batch, as for the model.
        row: Position of the row in the batch.
        store: Where the answers behind the vectors are: the store the model was made with, or a newer
            version. Ids that it lacks have no text.
        task: Which of several scores: its number, or its name (``"ctr"`` of ``"logit[ctr]"``).
        kwargs: Keyword arguments of the batch. One that is called row, store or task goes by position.

    Returns:
        The parts, in order.

    Raises:
        EnhanceError: Not an enhanced model, no such row or task, several tasks and none chosen, a score that
            is not a finite logit or a probability, or a store of another language model.
        UnknownIdError: The batch has an unknown key where that is an error (scenarios).
        StoreError: The store was saved without texts.

    Example:
        >>> print(explain(model, batch, row=0, store=store))
        part      key     alpha    logit
        backbone                 +0.1312                  |++
        user      107            +0.8801                  |++++++++++++++++
        scenario  feed    0.519  -0.1021                --|
        score                    +0.9092                  |++++++++++++++++  probability 0.7128
    """
    if not isinstance(model, EnhancedModel):
        raise EnhanceError(
            f"model is {type(model).__name__}; allowed: an enhanced model, as enhance() made it. Of a "
            "trainer's wrapper write explain(wrapper.module, ...), of torch.compile's the model that was "
            "given to it; of a frozen copy, explain the model that it was made from."
        )
    if store is not None:
        check_answers(model, store)
    recipe = model.recipe
    order = [level for level in LEVELS if recipe.placement.get(level) == "bottom"]
    order += [level for level in reversed(LEVELS) if recipe.placement.get(level) == "parallel"]
    with _untouched(model):
        found = {
            level: find_key(source, model.backbone, args, kwargs) for level, source in model._sources.items()
        }
        who = {
            level: model.whose.found(level, keys, model.branches[level].table)
            for level, keys in found.items()
        }
        results, rows = [model.backbone(*args, **kwargs)], 0
        for count in range(1, len(order) + 1):
            result, rows = _with(model, order[:count], dict(who), args, kwargs)
            results.append(result)
        scores = [Output.parse(recipe.output).scores(result, rows) for result in results]
        place = _row(row, rows)
        column, name, kind = _task(task, scores[-1], recipe.output)
        logits = [_logit(torch.cat(score, dim=1)[place, column], kind, place) for score in scores]
    parts = [Part("backbone", logits[0])]
    for level, before, after in zip(order, logits, logits[1:], strict=False):
        alpha = model.branches[level].alpha
        key = key_of(model, level, found[level], who[level], place)
        parts.append(
            Part(
                name=level,
                logit=after - before,
                key=key,
                known=is_known(model, level, who[level], place),
                text=answer_about(store, level, key),
                alpha=None if alpha is None else float(alpha[column].detach()),
                place=recipe.placement[level],
            )
        )
    return Explanation(place, name, logits[-1], _sigmoid(logits[-1]), tuple(parts))


@contextmanager
def _untouched(model: EnhancedModel) -> Iterator[None]:
    """Eval mode without gradients; everything as before afterwards, the counts of unknown keys, too."""
    # This model's keys are found without counting; an enhanced model inside it counts.
    inside = [part for part in model.modules() if isinstance(part, Whose) and part is not model.whose]
    counts = [(part, dict(part._unknown)) for part in inside]
    try:
        with undisturbed(model), torch.no_grad():
            yield
    finally:
        for whose, before in counts:
            whose._unknown = before


def _with(
    model: EnhancedModel,
    levels: list[str],
    who: dict[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[Any, int]:
    """The model's result with only some levels switched on, and the number of rows."""
    places = {level: model.recipe.placement[level] for level in levels}
    recipe = model.recipe.model_copy(update={"placement": places})
    branches = {level: model.branches[level] for level in levels}
    who = {level: who[level] for level in levels}
    tap = Tap.parse(recipe.tap)
    module = tap.find(model.backbone)
    listen(tap, module, model)
    with TapCall(tap, module, at_tap(recipe, branches, who)) as call:
        result = model.backbone(*args, **kwargs)
    seen = call.seen()
    return at_output(recipe, Output.parse(recipe.output), branches, result, seen, who), len(seen)


def _row(row: object, rows: int) -> int:
    place = _whole(row)
    if not 0 <= place < rows:
        raise EnhanceError(f"row is {row!r} in a batch of {rows} rows; allowed: 0 to {rows - 1}.")
    return place


def _whole(value: object) -> int:
    """A whole number of Python, numpy or torch; -1 for anything else."""
    try:
        return -1 if isinstance(value, bool) else as_index(cast("Any", value))
    except TypeError:
        return -1


def _task(task: object, scores: list[Tensor], written: tuple[str, ...]) -> tuple[int, str, str]:
    """Column among all scores, how it is written, and whether it is a logit or a probability."""
    columns: list[tuple[str, str]] = []
    for one, score in zip(written, scores, strict=True):
        kind = one.partition("[")[0]
        several = score.shape[1] > 1
        columns += [(f"{one}[:,{at}]" if several else one, kind) for at in range(score.shape[1])]
    names = [name for name, _ in columns]
    if task is None and len(names) == 1:
        task = 0
    if isinstance(task, str):
        short = [name.rpartition("[")[2].rstrip("]") for name in names]
        fits = [at for at, name in enumerate(names) if task == name] or [
            at for at, name in enumerate(short) if task == name
        ]
        if len(fits) == 1:
            task = fits[0]
    number = _whole(task)
    if 0 <= number < len(names):
        return number, *columns[number]
    if task is None:
        raise EnhanceError(
            f"The model has {len(names)} scores a row ({', '.join(names)}); write task=0, or a name."
        )
    raise EnhanceError(not_one_of("task", task, [*names, *range(len(names))]))


def _logit(score: Tensor, kind: str, row: int) -> float:
    value = float(score)
    if kind == "probability" and 0 <= value <= 1:
        limits = torch.finfo(score.dtype)
        # Kept from 0 and 1 in its own type, then exact: the difference of two rounded ones would not be.
        return float(as_logit(score.clamp(limits.tiny, 1 - limits.eps / 2).cpu().double()))
    if kind == "probability" or not math.isfinite(value):
        allowed = "0 to 1" if kind == "probability" else "finite numbers"
        raise EnhanceError(
            f"The {kind} of row {row} is {value:g}; allowed: {allowed}. Look for what makes it so in the "
            "model, or write another output= in enhance()."
        )
    return value


def _sigmoid(logit: float) -> float:
    small = math.exp(-abs(logit))
    return (1.0 if logit >= 0 else small) / (1 + small)
