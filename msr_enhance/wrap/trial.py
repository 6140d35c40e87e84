"""One call of a backbone with an example batch: what `enhance()` has to know, and mistakes it can see."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.branch import Place
from msr_enhance.wrap.arguments import as_call
from msr_enhance.wrap.flow import floats_of
from msr_enhance.wrap.output import Output
from msr_enhance.wrap.quiet import undisturbed
from msr_enhance.wrap.tap import Tap, TapCall, leave, listen


def tried(
    backbone: nn.Module, tap: Tap, output: Output, places: Mapping[str, Place], example: Any
) -> tuple[int, int]:
    """Width at the tap, and number of scores of a row, for the example.

    Raises:
        EnhanceError: The tap cannot be used, or the scores are not where they are said to be.
    """
    module, call = tap.find(backbone), as_call(backbone, example)
    probes: list[Tensor] = []

    def change(flat: Tensor) -> Tensor:
        probes.append(torch.zeros_like(flat, requires_grad=True))
        return flat.detach() + probes[0]

    listen(tap, module, change)
    try:
        with undisturbed(backbone), torch.enable_grad(), TapCall(tap, module, change) as seen:
            result = backbone(*call[0], **call[1])
        rows = len(seen.seen())
    finally:
        leave(tap, module, change)
    width, bottom, scored = probes[0].shape[1], "bottom" in places.values(), "parallel" in places.values()
    try:
        scores = output.scores(result, rows)
    except EnhanceError:
        if scored:
            raise
        scores = []  # user layers alone need no score; then any part of the result may be one
    if not torch.is_inference_mode_enabled():
        named = [members.get(result) for _, members in output.parts] if scores else []
        floats = floats_of(result)
        if bottom:
            _check_read(tap, probes[0], named or [leaf for _, leaf in floats])
        if scored:
            _warn_of_derived(output, named, result)
    return width, sum(score.shape[1] for score in scores) if scores else len(output.parts)


def _check_read(tap: Tap, probe: Tensor, scores: list[Tensor]) -> None:
    """Refuse a tap whose embedding no gradient comes back to: user layers there would never learn."""
    if not any(_depends(score, probe) for score in scores):
        raise EnhanceError(
            f"No gradient of the scores comes back to tap {str(tap)!r}: the backbone does not read it, or "
            "reads it under torch.no_grad() or detached. Allowed: a tap after that, for example the input of "
            "the first layer that trains (tap='NAME:input')."
        )


def _warn_of_derived(output: Output, scores: list[Tensor], result: Any) -> None:
    """Warn where the backbone makes another part of its result from a score that layers then change."""
    kept = {id(score) for score in scores}
    for path, leaf in floats_of(result):
        if any(score is not leaf and _depends(leaf, score) for score in scores):
            more = "leave it out of output=" if id(leaf) in kept else "make it again from the result"
            warnings.warn(
                f"The backbone computes result{path} (a loss, a probability, a product) from the score that "
                f"output={output.written} names, before parallel layers are added: it will not see them. "
                f"Compute it outside: {more}. Or place levels at the bottom.",
                UserWarning,
                stacklevel=4,
            )


def _depends(later: Tensor, earlier: Tensor) -> bool:
    """Whether a gradient of one tensor reaches another: by the graph, which every backward pass walks."""
    if not (later.requires_grad and earlier.requires_grad):
        return False
    # An output number goes with a node: the parts of one split do not come of each other.
    edge = torch.autograd.graph.get_gradient_edge
    goal: Any = tuple(edge(earlier)[:2])
    waiting: list[Any] = [tuple(edge(later)[:2])]
    seen: set[Any] = set()
    while waiting:
        here = waiting.pop()
        if here == goal:
            return True
        if here[0] is None or here in seen:
            continue
        seen.add(here)
        waiting += here[0].next_functions
    return False
