"""Where a value stands inside others: ``batch[user][id]``, ``x[:,0]``, ``[0][logit]``."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from msr_enhance.errors import EnhanceError, not_one_of

_MEMBER = re.compile(r"\[\s*(:\s*,\s*)?([^\[\]]+?)\s*\]")
NOT_PACKED = (
    "its data has no batch dimension: the steps of all rows stand in one. Allowed: what has a row for each "
    "row of the batch. Tap after the pooling (tap='NAME:input' of the layer that reads the pooled tensor), "
    "or pad it before (torch.nn.utils.rnn.pad_packed_sequence)."
)
_WHOLE = re.compile(r"(?P<name>[^\[\]]*)(?P<members>(?:\[[^\[\]]+\])*)")


@dataclass(frozen=True)
class Column:
    """One column of a tensor `[batch, columns]`."""

    number: int

    def __str__(self) -> str:
        return f":,{self.number}"


@dataclass(frozen=True)
class Members:
    """Steps into containers, outermost first: a name, a number, or (last) a column of a tensor."""

    steps: tuple[str | int | Column, ...] = ()

    def __str__(self) -> str:
        return "".join(f"[{step}]" for step in self.steps)

    def get(self, value: Any) -> Any:
        """The value that the steps lead to.

        Raises:
            EnhanceError: A step leads nowhere; lists what is there.
        """
        for step in self.steps:
            value = _member(value, step)
        return value

    def put(self, value: Any, new: Any) -> Any:
        """A copy of the outermost value with `new` where the steps lead; what does not change is shared."""
        if not self.steps:
            return new
        step, rest = self.steps[0], Members(self.steps[1:])
        return _replaced(value, step, rest.put(_member(value, step), new))


def parse(text: str) -> tuple[str, Members]:
    """``name[a][0][:,2]`` as name and members.

    Raises:
        EnhanceError: It is not of that form.
    """
    found = _WHOLE.fullmatch(text.strip())
    if found is None:
        raise EnhanceError(
            f"{text!r} names nothing; allowed: NAME, NAME[member], NAME[0], NAME[:,0], several in a row."
        )
    steps: list[str | int | Column] = []
    for column, member in _MEMBER.findall(found["members"]):
        whole = re.fullmatch(r"-?\d+", member) is not None
        if column and not whole:
            raise EnhanceError(f"{text!r}: a column is a number; write for example [:,0].")
        steps.append(Column(int(member)) if column else int(member) if whole else member.strip("'\""))
    if any(isinstance(step, Column) for step in steps[:-1]):
        raise EnhanceError(f"{text!r}: a column has no members; write [:,NUMBER] last.")
    return found["name"].strip(), Members(tuple(steps))


def leads(written: str, roots: Mapping[str, Any], value: Any) -> bool:
    """Whether a place, as it is written, is read as it was meant: names may hold what the form does not."""
    try:
        name, members = parse(written)
        found = members.get(roots[name])
    except (EnhanceError, KeyError):
        return False
    if isinstance(found, Tensor) and isinstance(value, Tensor):  # a keyed tensor makes its members anew
        return found.shape == value.shape and found.data_ptr() == value.data_ptr()
    return found is value


def quoted(text: str) -> str:
    """A string as it is written in code."""
    return repr(text) if set(text) & {'"', "\\", "\n"} else f'"{text}"'


def members_of(value: Any) -> dict[str | int, Any]:
    """Members of a mapping, a sequence, a dataclass or a keyed tensor (torchrec's); none of anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, PackedSequence):  # its data is not of one batch
        return {}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if is_keyed_tensor(value):
        parts = value.values().split(list(value.length_per_key()), dim=1)
        return dict(zip(value.keys(), parts, strict=True))
    return {}


def is_keyed_tensor(value: Any) -> bool:
    """Whether a value looks like torchrec's KeyedTensor: several named embeddings in one `[batch, width]`."""
    return not isinstance(value, (Tensor, Mapping, tuple, list)) and all(
        callable(getattr(value, name, None)) for name in ("keys", "values", "length_per_key")
    )


def _member(value: Any, step: str | int | Column) -> Any:
    if isinstance(step, Column):
        if (
            not isinstance(value, Tensor)
            or value.dim() != 2
            or not -value.shape[1] <= step.number < value.shape[1]
        ):
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise EnhanceError(
                f"[:,{step.number}] of {what}; allowed: a column of a tensor [batch, columns]."
            )
        return value[:, step.number]
    if isinstance(value, PackedSequence):
        raise EnhanceError(f"[{step}] of a PackedSequence: {NOT_PACKED}")
    if isinstance(value, (tuple, list)) and isinstance(step, int) and -len(value) <= step < len(value):
        return value[step]
    members = members_of(value)
    for name in (step, str(step)):
        if name in members:
            return members[name]
    if isinstance(step, str) and not isinstance(value, (Mapping, Tensor)) and hasattr(value, step):
        return getattr(value, step)
    raise EnhanceError(
        not_one_of("member", step, [str(name) for name in members] or [f"none, of {type(value).__name__}"])
    )


def _replaced(value: Any, step: str | int | Column, new: Any) -> Any:
    """A copy of a container with one member changed."""
    if isinstance(step, Column):
        place = step.number % value.shape[1]
        return torch.cat([value[:, :place], new.unsqueeze(1).to(value.dtype), value[:, place + 1 :]], dim=1)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        name = step if isinstance(step, str) and step in value._fields else value._fields[int(step)]
        return cast("Any", value)._replace(**{name: new})
    if isinstance(value, tuple):
        place = range(len(value))[int(str(step))]
        return (*value[:place], new, *value[place + 1 :])
    if is_keyed_tensor(value):
        return rebuilt(value, [new if name == step else part for name, part in members_of(value).items()])
    if isinstance(value, Mapping):
        return _mapping_with(value, step if step in value else str(step), new)
    # copy.copy() of the plainest is what torch.compile cannot follow.
    changed: Any = list(value) if type(value) is list else copy.copy(value)
    if isinstance(value, list):
        changed[cast("int", step)] = new
    elif isinstance(step, str) and hasattr(value, step):
        object.__setattr__(changed, step, new)  # a frozen dataclass lets only this change its copy
    else:
        raise EnhanceError(
            f"{type(value).__name__} has no member {step} that could be changed; write a tap beside it."
        )
    return changed


def _mapping_with(value: Mapping[Any, Any], name: Any, new: Any) -> Any:
    """A copy of a mapping with one member changed; of its type, which may be one that cannot be changed."""
    if isinstance(value, dict):
        changed: Any = dict(value) if type(value) is dict else copy.copy(value)
        changed[name] = new
        return changed
    old, changed = value[name], None
    try:
        changed = copy.copy(cast("Any", value))
        changed[name] = new
    except Exception:  # somebody else's type may refuse with anything
        changed = None
    if changed is not None and value[name] is not new:
        return changed
    if changed is not None:  # the copy shares what it holds with the original
        changed[name] = old
    try:
        made = cast("Any", type(value))({**value, name: new})
        right = list(made) == list(value) and made[name] is new
    except Exception:
        right = False
    if not right:
        raise EnhanceError(
            f"A {type(value).__name__} cannot be put back with a changed member: it is read-only, and "
            f"{type(value).__name__}(DICT) does not make another. Allowed: dict, a mapping that is made from "
            "a dict, tuple, list, dataclass. Return one of those, or tap what reads its tensors: "
            "tap='NAME:input' of the next layer."
        )
    return made


def rebuilt(value: Any, members: Iterable[Any]) -> Any:
    """A copy of a container with all its members changed, in the order of `members_of`."""
    new = list(members)
    if is_keyed_tensor(value):
        return type(value)(list(value.keys()), list(value.length_per_key()), torch.cat(new, dim=1))
    for name, one in zip(members_of(value), new, strict=True):
        value = _replaced(value, name, one)
    return value
