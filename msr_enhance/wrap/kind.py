"""Whether a score is a logit or a probability: from how it was made; where that does not say, from values."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from msr_enhance.wrap.flow import Edge, Node, operation
from msr_enhance.wrap.output import Kind

# Data comes from outside the graph; a weight is a parameter that was not looked up in.
Seen = Literal["logit", "probability", "weight", "data", "unclear"]

_DEPTH = 60
_PROBABILITIES = ("Sigmoid", "Softmax", "SafeSoftmax", "Hardsigmoid")
_LINEAR = ("Addmm", "Mm", "Addmv", "Mv", "Bmm", "Baddbmm", "Linear", "MkldnnLinear", "Convolution")
# Their results are among the numbers they are given, or between them.
_AMONG = frozenset(
    (
        *("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Split", "Chunk"),
        *("Unbind", "Stack", "Cat", "Transpose", "T", "Permute", "Expand", "Clone", "ToCopy", "AsStrided"),
        *("Alias", "Gather", "Index", "IndexSelect", "MaskedSelect", "Where", "Mean", "Amax", "Amin"),
        *("Max", "Min", "Maximum", "Minimum", "Repeat"),
    )
)


def kind_of(edge: Edge | None, values: Tensor, embeddings: set[int]) -> tuple[Kind, bool]:
    """Whether a score is a logit or a probability, and whether that is a guess from its values.

    Args:
        edge: Of the score in the graph.
        values: `[batch]`.
        embeddings: From `traced`.
    """
    seen = "unclear" if edge is None else _seen(edge[0], embeddings, {}, 0)
    if seen == "logit" or seen == "probability":
        return seen, False
    return ("probability" if is_share(values) else "logit"), True


def is_share(values: Tensor) -> bool:
    """Whether there are values and all are between 0 and 1, but for rounding."""
    slack = rounding(values)
    return values.numel() > 0 and bool(((values >= -slack) & (values <= 1 + slack)).all())


def rounding(values: Tensor) -> float:
    """How far a sum of shares may be from 1 in the type of the values."""
    return 8 * torch.finfo(values.dtype).eps


def _seen(node: Node, embeddings: set[int], known: dict[Node, Seen], depth: int) -> Seen:
    """What the result of a node is; only what is sure."""
    if node is None:
        return "data"
    if node not in known:
        known[node] = "unclear" if depth > _DEPTH else _made(node, embeddings, known, depth)
    return known[node]


def _made(node: Node, embeddings: set[int], known: dict[Node, Seen], depth: int) -> Seen:
    leaf: Any = getattr(node, "variable", None)
    if leaf is not None:
        return "unclear" if id(leaf) in embeddings else "weight"
    name = operation(node)
    if name in _PROBABILITIES:
        return "probability"
    parts = [_seen(parent, embeddings, known, depth + 1) for parent, _ in node.next_functions]
    kinds = set(parts)
    if name in _LINEAR:
        return "logit" if "weight" in parts[-2:] else "unclear"
    if kinds <= {"weight", "data"}:
        # Numbers looked up in a weight are embeddings.
        views = name in _AMONG and not name.startswith(("Index", "Gather"))
        return "weight" if views and kinds == {"weight"} else "unclear"
    if name in _AMONG:
        return kinds.pop() if len(kinds) == 1 else "unclear"
    if name in ("Add", "Sub", "Rsub", "Neg", "Sum", "MaskedFill"):
        return "logit" if "logit" in kinds else "unclear"
    if name == "Mul" and kinds == {"probability"} and len(parts) == 2:
        return "probability"
    if name == "Mul" and parts.count("logit") == 1 and kinds <= {"logit", "probability", "data", "weight"}:
        return "logit"
    if name == "Div" and parts[0] == "logit" and parts[1] in ("data", "weight"):
        return "logit"
    if name.startswith("Clamp") and (kinds == {"probability"} or (kinds == {"logit"} and _below_zero(node))):
        return parts[0]
    return "unclear"


def _below_zero(node: Node) -> bool:
    """Whether a clamp lets numbers below 0 pass: what it gives is no probability."""
    low = getattr(node, "_saved_min", None)
    return low is None or (isinstance(low, (int, float)) and low < 0)
