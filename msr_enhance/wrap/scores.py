"""The scores in a backbone's result: which members they are, and how `output=` is written for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msr_enhance.wrap.flow import (
    Edge,
    columns_of,
    edge_of,
    floats_of,
    identity,
    made_of,
    operation,
    reached,
    same_numbers,
)
from msr_enhance.wrap.kind import is_share, kind_of, rounding
from msr_enhance.wrap.path import leads, quoted

_MANY = 8


@dataclass(frozen=True)
class Scores:
    """What is known of a result.

    Attributes:
        tensors: Members that hold scores, those that follow from others among them.
        output: As it is written in the code.
        notes: What is to be said about it.
    """

    tensors: list[Tensor]
    output: str
    notes: list[str]


@dataclass(frozen=True, eq=False)
class _Part:
    """One score: a member of one number a row, or one column of a wider one."""

    member: str
    column: int | None
    values: Tensor
    edge: Edge | None
    place: int = 0  # the column of what the edge gives

    @property
    def path(self) -> str:
        """As it is written."""
        return self.member if self.column is None else f"{self.member}[:,{self.column}]"


def scores_of(result: Any, embeddings: set[int]) -> Scores:
    """The scores: members of one number a row that depend on embeddings, else the first wider one.

    Args:
        result: Of the backbone.
        embeddings: From `traced`.
    """
    every = [(path, one) for path, one in floats_of(result) if one.dim() in (1, 2) and len(one)]
    found = [(path, one) for path, one in every if leads(f"result{path}", {"result": result}, one)]
    fed = [(path, one) for path, one in found if one.grad_fn and reached([one.grad_fn], embeddings)] or found
    narrow = [(path, one) for path, one in fed if one.dim() == 1 or one.shape[1] == 1]
    every_part = _fed([part for path, one in narrow or fed for part in _parts(path, one)], embeddings)
    derived, partly = _derived(every_part, embeddings)
    terms = _terms(derived, embeddings)
    parts = [part for part in every_part if part not in derived and part not in terms]
    if not narrow:
        parts = [part for part in parts if part.member == parts[0].member]
    tensors = [one for path, one in narrow or fed if narrow or (parts and path == parts[0].member)]
    said = _alone({part: of for part, of in derived.items() if part not in terms}, every_part, embeddings)
    if terms:
        named = _all(terms, every_part)
        said.append(f"Its {named} are terms of a sum that is a score, and no tasks: left out below.")
    for part, others in partly.items():
        if narrow or {one.member for one in others} == {part.member}:
            named = _all(others, every_part)
            said.append(
                f"Its {part.path} is computed from {named} and more, and stays a task of its own: what "
                f"knowledge adds to {named} does not pass on to it."
            )
    hidden = [path for path, _ in every if path not in dict(found)]
    if hidden:
        said.append(
            f"Its {_joined(hidden)} cannot be written as output: a name with brackets or quotes, or none of "
            "text. Return it under a plain name."
        )
    if not every:
        said.append(
            "That it is a logit is a guess: no member has a number for each of several rows. Check it."
        )
        return Scores([], '"logit"', said)
    tensors = tensors or [one for _, one in every]
    classes = _classes([part.values for part in parts])
    if classes:
        pair = len(parts) == 2 and classes == "softmax"
        named = _all(parts, []) if len(parts) < 4 else "columns"
        said.append(
            f"Its {named} are a {classes} over classes (together 1 in each row) and cannot be mixed one by "
            f"one. Return the numbers before it with output='logit', and take the {classes} of what the "
            "enhanced model returns."
            + (f" Or, as below, mix {parts[1].path} alone, and take 1 - that for the other." if pair else "")
        )
        parts = parts[1:] if pair else []
    written, guesses = _written(parts, embeddings, dict(fed))
    return Scores(tensors, written, said + guesses)


def _parts(path: str, one: Tensor) -> list[_Part]:
    edge = edge_of(one)
    if one.dim() == 1 or one.shape[1] == 1:
        return [_Part(path, None, one.detach().flatten(), edge)]
    made = columns_of(edge, *one.shape) if edge else [(None, place) for place in range(one.shape[1])]
    columns = enumerate(zip(made, one.detach().unbind(1), strict=True))
    return [_Part(path, number, values, *of) for number, (of, values) in columns]


def _fed(parts: list[_Part], embeddings: set[int]) -> list[_Part]:
    """Those that depend on embeddings, or all where none does: a column may be a constant."""
    fed = {edge: bool(reached([edge[0]], embeddings)) for edge in {part.edge for part in parts} if edge}
    return [part for part in parts if part.edge and fed[part.edge]] or parts


def _terms(derived: dict[_Part, list[_Part]], embeddings: set[int]) -> list[_Part]:
    """Logits whose sum is a member, too: the sum is the score. Such sums are taken out of `derived`."""
    terms: list[_Part] = []
    for part, others in list(derived.items()):
        surely = {kind_of(one.edge, one.values, embeddings) for one in (part, *others)}
        added = part.edge is not None and operation(same_numbers(part.edge)[0]) in ("Add", "Sum")
        if added and len(others) > 1 and surely == {("logit", False)}:
            terms += [one for one in others if one not in terms]
            del derived[part]
    return terms


def _derived(
    parts: list[_Part], embeddings: set[int]
) -> tuple[dict[_Part, list[_Part]], dict[_Part, list[_Part]]]:
    """Parts that are made of others alone, and parts that are made of others and more; each with those."""
    known = {part: identity(part.edge) for part in parts if part.edge}
    gates = frozenset(known.values())
    made = {name: made_of(part.edge, gates - {name}, embeddings) for part, name in known.items() if part.edge}
    first: dict[tuple[object, int], _Part] = {}
    derived: dict[_Part, list[_Part]] = {}
    partly: dict[_Part, list[_Part]] = {}
    for part, name in known.items():
        met, own = made[name]
        twin = first.setdefault((name, part.place), part)
        if twin is not part:
            derived[part] = [twin]
        elif met:
            (partly if own else derived)[part] = [one for one, other in known.items() if other in met]
    return derived, partly


def _alone(derived: dict[_Part, list[_Part]], every: list[_Part], embeddings: set[int]) -> list[str]:
    """What is to be said of parts that are made of others alone; of a member at once where all of it is."""
    notes = []
    for member in dict.fromkeys(part.member for part in derived):
        mine = [part for part in derived if part.member == member]
        named = _all(mine, every)
        others = list(dict.fromkeys(one for part in mine for one in derived[part]))
        kind, _ = kind_of(mine[0].edge, mine[0].values, embeddings)
        path = member if len(mine) == sum(part.member == member for part in every) else mine[0].path
        notes.append(
            f"Its {named} is computed from {_all(others, every)} alone: no task of its own, and left out "
            "below. It stays as the plain backbone made it; compute it again from what the enhanced model "
            f"returns, or write output={quoted(kind + path)} instead if you read only that."
        )
    return notes


def _classes(columns: list[Tensor]) -> str:
    """Name of what makes shares of each row, if the columns are such shares."""
    if len(columns) < 2 or len({len(column) for column in columns}) != 1:
        return ""
    matrix = torch.stack([column.float() for column in columns], 1)
    slack = max(rounding(column) for column in columns)
    for name, shares in (("softmax", matrix), ("log_softmax", matrix.exp())):
        if is_share(shares) and bool(((shares.sum(1) - 1).abs() <= slack).all()):
            return name
    return ""


def _written(parts: list[_Part], embeddings: set[int], members: dict[str, Tensor]) -> tuple[str, list[str]]:
    """The output as it is written, and a sentence for each guess: a member whole where it is of one kind."""
    written: list[str] = []
    notes: list[str] = []
    for member in dict.fromkeys(part.member for part in parts):
        mine = [part for part in parts if part.member == member]
        kinds = [kind_of(part.edge, part.values, embeddings) for part in mine]
        if len(mine) > _MANY and len({part.edge for part in mine}) == 1 and kinds[0][1]:
            # A vector rather than tasks: not a guess for each of its numbers.
            shares = all(kind == "probability" for kind, _ in kinds)
            kinds = [("probability" if shares else "logit", True)] * len(kinds)
        whole = members[member].dim() == 1 or len(mine) == members[member].shape[1]
        if whole and len(set(kinds)) == 1:
            said = [(member, *kinds[0])]
        else:
            said = [(part.path, *kind) for part, kind in zip(mine, kinds, strict=True)]
        written += [quoted(kind + path) for path, kind, _ in said]
        notes += [
            f"That {f'its {path}' if path else 'it'} is a {kind} is a guess from the values of this example "
            f"({'all' if kind == 'probability' else 'not all'} of 0 to 1), not from how it is made: check it."
            for path, kind, guessed in said
            if guessed
        ]
    if not written:
        return '"NAME"', notes
    return written[0] if len(written) == 1 else f"[{', '.join(written)}]", notes


def _all(parts: list[_Part], every: list[_Part]) -> str:
    """Parts by name; a member whose parts all are among them by its own."""
    paths: list[str] = []
    for part in parts:
        whole = part.member and all(one in parts for one in every if one.member == part.member)
        paths.append(part.member if whole and every else part.path)
    return _joined(paths)


def _joined(paths: list[str]) -> str:
    """Names in a row, the first few."""
    some = list(dict.fromkeys(paths))
    if len(some) > 6:
        return f"{', '.join(some[:6])}, ..."
    return " and ".join(filter(None, [", ".join(some[:-1]), some[-1]]))
