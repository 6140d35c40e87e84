"""How embeddings flow through a backbone, on the autograd graph of one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from msr_enhance.wrap.path import members_of

Node = Any  # torch.autograd.graph.Node: its attributes depend on its kind
Seen = Literal["logit", "probability", "mixed", "unclear"]

_LOOKUPS = ("Embedding", "Index", "Gather")
_SHAPES = frozenset(
    (
        *("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Split", "Chunk"),
        *("Unbind", "Stack", "Cat", "Transpose", "T", "Permute", "Expand", "Clone", "ToCopy", "AsStrided"),
        *("Alias", "Clamp"),
    )
)


@contextmanager
def traced(module: nn.Module) -> Iterator[set[int]]:
    """Every weight is part of the graph for the time of the block; gives the ids of looked-up embeddings.

    An embedding is a source of its own whether its table is trained, frozen or read under `no_grad`.
    """
    sources: dict[int, Tensor] = {}
    frozen = [one for one in module.parameters() if one.is_floating_point() and not one.requires_grad]

    def begin(_: nn.Module, __: Any, found: Any) -> Any:
        if not isinstance(found, Tensor):
            return found
        leaf = found.detach().requires_grad_()
        sources[id(leaf)] = leaf
        ids.add(id(leaf))
        torch.set_grad_enabled(True)  # to the end of a no_grad block, whose end puts back what was before it
        return leaf.clone()  # the backbone may change it in place, which a leaf forbids

    ids: set[int] = set()
    tables = [part for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
    hooks = [table.register_forward_hook(begin) for table in tables]
    try:
        for weight in frozen:
            weight.requires_grad_()
        with torch.enable_grad():
            yield ids
    finally:
        for hook in hooks:
            hook.remove()
        for weight in frozen:
            weight.requires_grad_(False)


def reached(ends: Iterable[Node], embeddings: set[int], gates: frozenset[Node] = frozenset()) -> set[Node]:
    """The nodes of embeddings (or of lookups in plain parameters) from which a value comes, gates shut.

    Args:
        ends: Nodes of the value.
        embeddings: From `traced`.
        gates: Nodes that are not passed.
    """
    seen, found = set(gates), set()
    waiting = [end for end in ends if end not in gates]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        looks_up = node.name().startswith(_LOOKUPS) and any(hasattr(one, "variable") for one in parents)
        if looks_up or id(getattr(node, "variable", None)) in embeddings:
            found.add(node)
        waiting.extend(parents)
    return found


def kind_of(score: Tensor) -> Seen:
    """Whether a score was made by a sigmoid; values decide where the graph does not say."""
    seen = _kind(score.grad_fn, 0)
    if seen != "unclear":
        return seen
    inside = score.numel() > 0 and bool(((score >= 0) & (score <= 1)).all())
    return "probability" if inside else "logit"


def _kind(node: Node, depth: int) -> Seen:
    if node is None or depth > 50:
        return "unclear"
    name = node.name().removesuffix("0").removesuffix("1").removesuffix("Backward")
    if name in ("Sigmoid", "Softmax"):
        return "probability"
    if name in _SHAPES or name == "Mul":
        kinds = {_kind(parent, depth + 1) for parent, _ in node.next_functions}
        if len(kinds) == 1:
            return kinds.pop()
        return "logit" if name == "Mul" and "logit" in kinds else "unclear" if name == "Mul" else "mixed"
    return "logit"


def floats_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every floating tensor in a value, with the members that lead to it."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value
        return
    for name, member in members_of(value).items():
        yield from floats_of(member, f"{path}[{name}]")
