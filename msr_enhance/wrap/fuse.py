"""Where knowledge meets a backbone: bottom branches change its embedding, parallel ones its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.output import Output, as_logit, shifted_probability
from msr_enhance.wrap.recipe import LEVELS, Recipe

_SCALED = ""
"""Where the scaled embedding stands beside the levels, from the tap to the output."""


class Fusing(Protocol):
    """A branch, trained or frozen: `(x, keys)` gives an embedding, `(x, keys, logits)` mixed logits."""

    def __call__(
        self, x: Tensor, keys: Tensor, logits: Tensor | None = None, scaled: Tensor | None = None
    ) -> Tensor:
        """See above; without logits what is to be added to them, unless the form is the paper's."""

    def scaled(self, x: Tensor) -> Tensor:
        """The embedding as its layers read it: the same for every branch."""


def at_tap(
    recipe: Recipe, branches: Mapping[str, Fusing], who: dict[str, Tensor], *, single: bool = False
) -> Callable[[Tensor], Tensor]:
    """What happens to the flattened embedding `[batch, width]` at the tap.

    Args:
        recipe: Places and width.
        branches: By level.
        who: Whose rows they are, by level; moved to the embedding's device.
        single: One key may stand for the whole batch.
    """

    def change(flat: Tensor) -> Tensor:
        if flat.shape[1] != recipe.width:
            raise EnhanceError(
                f"Tap {recipe.tap!r} gives width {flat.shape[1]}, and it was {recipe.width} when the layers "
                "were made; allowed: a tap of one width. Name one after pooling."
            )
        for level in branches:
            who[level] = who[level].to(flat.device)
            if who[level].shape[0] != flat.shape[0] and not (single and who[level].shape[0] == 1):
                raise EnhanceError(
                    f"{who[level].shape[0]} {level} keys for a batch of {flat.shape[0]} rows at tap "
                    f"{recipe.tap!r}; allowed: one key a row."
                )
        # Every branch that reads the embedding itself reads it scaled: it is scaled once.
        scaled: Tensor | None = next(iter(branches.values())).scaled(flat)
        if "parallel" in recipe.placement.values():
            who[_SCALED] = cast("Tensor", scaled)
        for level in LEVELS:
            if recipe.placement.get(level) == "bottom":
                flat = branches[level](flat, who[level], None, scaled)
                scaled = None
        return flat

    return change


def at_output(
    recipe: Recipe,
    output: Output,
    branches: Mapping[str, Fusing],
    result: Any,
    embedding: Tensor,
    who: Mapping[str, Tensor],
) -> Any:
    """The backbone's result with the parallel branches mixed in, in logit space, whatever its form.

    Raises:
        EnhanceError: The scores are not where, or not as many as, they were.
    """
    parallel = [level for level in reversed(LEVELS) if recipe.placement.get(level) == "parallel"]
    if not parallel:
        return result
    scores = output.scores(result, embedding.shape[0])
    kinds, sizes = [kind for kind, _ in output.parts], [score.shape[1] for score in scores]
    if sum(sizes) != recipe.tasks:
        raise EnhanceError(
            f"The backbone returned {sum(sizes)} scores a row, and it was {recipe.tasks} when the layers "
            "were made; pass example=BATCH to enhance(), which counts them."
        )
    for level in parallel:
        if recipe.meta.fidelity == "paper":
            pairs = zip(kinds, scores, strict=True)
            logits = [as_logit(score) if kind == "probability" else score for kind, score in pairs]
            mixed = torch.split(
                branches[level](embedding, who[level], torch.cat(logits, dim=1), who.get(_SCALED)),
                sizes,
                dim=1,
            )
            scores = [
                torch.sigmoid(logit) if kind == "probability" else logit
                for kind, logit in zip(kinds, mixed, strict=True)
            ]
        else:
            shift = branches[level](embedding, who[level], None, who.get(_SCALED))
            shifts = (shift,) if len(sizes) == 1 else torch.split(shift, sizes, dim=1)
            scores = [_shifted(*each) for each in zip(kinds, scores, shifts, strict=True)]
    return output.replaced(result, scores)


def _shifted(kind: str, score: Tensor, shift: Tensor) -> Tensor:
    shift = shift.to(score.dtype)
    return shifted_probability(score, shift) if kind == "probability" else score + shift
