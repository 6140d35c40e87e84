"""How embeddings flow through a backbone, on the autograd graph of one call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.wrap.path import members_of

Node = Any  # torch.autograd.graph.Node: its attributes depend on its kind
Edge = tuple[Node, int]  # and which of its results

_LOOKUPS = ("Embedding", "Index", "Gather")
_WHOLE = frozenset(("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Alias"))
_CUT = ("dim", "index", "start", "end", "step")


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


def edge_of(value: Tensor) -> Edge | None:
    """Where a tensor stands in the graph."""
    return None if value.grad_fn is None else (value.grad_fn, value.output_nr)


def operation(node: Node) -> str:
    """What a node did, without the number of its variant: ``Addmm``, ``Sigmoid``."""
    return re.sub(r"Backward\d*$", "", node.name())


def same_numbers(edge: Edge) -> Edge:
    """The first edge that has the same numbers, before views and copies of the whole."""
    node, place = edge
    while operation(node) in _WHOLE and node.next_functions[0][0] is not None:
        node, place = node.next_functions[0]
    return node, place


def identity(edge: Edge) -> object:
    """Equal for edges that have the same numbers; two selections of the same part are equal, too."""
    node, place = same_numbers(edge)
    if operation(node) in ("Select", "Slice") and node.next_functions[0][0] is not None:
        saved = tuple(getattr(node, f"_saved_{name}", None) for name in _CUT)
        return operation(node), identity(node.next_functions[0]), saved
    return node, place


def made_of(end: Edge, gates: frozenset[object], embeddings: set[int]) -> tuple[set[object], bool]:
    """The gates that a value is computed from, and whether weights or embeddings come in behind none of them.

    One number alone, as a temperature, is no weight here.

    Args:
        end: Edge of the value.
        gates: Identities of others; what lies behind them is not seen.
        embeddings: From `traced`.
    """
    seen: set[Edge] = set()
    met: set[object] = set()
    own, waiting = False, [end]
    while waiting:
        edge = waiting.pop()
        if edge in seen:
            continue
        seen.add(edge)
        known = identity(edge)
        if known in gates:
            met.add(known)
            continue
        leaf = getattr(edge[0], "variable", None)
        own = own or (leaf is not None and (leaf.numel() > 1 or id(leaf) in embeddings))
        waiting.extend(parent for parent in edge[0].next_functions if parent[0] is not None)
    return met, own


def columns_of(edge: Edge, rows: int, width: int) -> list[tuple[Edge | None, int]]:
    """Of which edge, and of which column of it, each column of a matrix `[rows, width]` is made.

    Looks through `cat` and `stack`; a matrix made otherwise is its own edge.
    """
    itself: list[tuple[Edge | None, int]] = [(edge, place) for place in range(width)]
    node, _ = same_numbers(edge)
    name = operation(node)
    if name not in ("Cat", "Stack"):
        return itself
    widths: list[int | None] = []
    for parent, place in node.next_functions:
        known = () if parent is None else getattr(parent, "_input_metadata", ())
        shape = tuple(known[place].shape) if place < len(known) else None
        if name == "Stack":
            if shape not in (None, (rows,), (rows, 1)):
                return itself
            widths.append(1)
        elif shape is not None and (len(shape) != 2 or shape[0] != rows):
            return itself
        else:
            widths.append(None if shape is None else shape[1])
    if widths.count(None) == 1:  # a constant; the graph does not know it
        widths[widths.index(None)] = width - sum(one for one in widths if one is not None)
    if None in widths or sum(one for one in widths if one is not None) != width:
        return itself
    return [
        (None if parent is None else (parent, place), column)
        for (parent, place), one in zip(node.next_functions, widths, strict=True)
        for column in range(one or 0)
    ]


def floats_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every floating tensor in a value, with the members that lead to it."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value
        return
    for name, member in members_of(value).items():
        yield from floats_of(member, f"{path}[{name}]")
