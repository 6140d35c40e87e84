"""Which user and which scenario each row of a call belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.held import tracing
from msr_enhance.wrap.arguments import named_arguments
from msr_enhance.wrap.path import Column, Members, members_of, parse

KeySource = str | int | Callable[..., Any]
_WITHOUT_KEYS = (str, int, float, list, tuple, Mapping, type(None))  # their attributes are methods


def find_key(source: KeySource, forward: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The key values of one call.

    A name is looked up among the arguments, then among the members of mappings and dataclasses among them,
    then among the attributes of other objects; a number is a positional argument. Members may follow:
    ``batch[user]``, ``x[:,0]``. A callable receives the call's `(*args, **kwargs)`.

    Raises:
        EnhanceError: The name is nowhere; lists the names that are there.
    """
    if callable(source):
        return source(*args, **kwargs)
    name, members = (source, Members()) if isinstance(source, int) else parse(source)
    value = members.get(_named(name, forward, args, kwargs))
    whole_column = bool(members.steps) and isinstance(members.steps[-1], Column)
    if whole_column and isinstance(value, Tensor) and value.is_floating_point():
        return _whole(value, source)
    return value


def _whole(column: Tensor, source: object) -> Tensor:
    """Ids that stand beside measurements in one matrix, as whole numbers.

    Raises:
        EnhanceError: They are none, or too large to be exact in the matrix' type (checked on the CPU only).
    """
    if column.device.type == "cpu" and not tracing() and column.numel():
        most = 2.0 ** {torch.float64: 53, torch.float32: 24, torch.float16: 11}.get(column.dtype, 8)
        if bool((column != column.round()).any()) or float(column.abs().max()) > most:
            raise EnhanceError(
                f"key {source!r} is a column of {column.dtype} up to {float(column.abs().max()):g}; "
                f"allowed: whole numbers up to {most:.0f}, above which that type skips some. Pass larger ids "
                "in an integer tensor of their own."
            )
    return column.long()


def _named(name: str | int, forward: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    named = named_arguments(forward, args, kwargs)
    if name in named:
        return named[name]
    if isinstance(name, str) and name.isdecimal() and int(name) in named:
        return named[int(name)]
    values = [*args, *kwargs.values()]
    inner = [members_of(value) for value in values]
    for members in inner:
        if name in members:
            return members[name]
    for value in values:  # a batch class of its own, of which nothing is known but attributes
        if not isinstance(value, (Tensor, *_WITHOUT_KEYS)) and hasattr(value, str(name)):
            return getattr(value, str(name))
    seen = [str(one) for one in named if isinstance(one, str)]
    seen += [str(one) for members in inner for one in members]
    raise EnhanceError(
        not_one_of(
            "key",
            name,
            dict.fromkeys(seen),
            "Write keys={'user': NAME, ...}, NAME[member], NAME[:,0], the number of a positional argument, "
            "or a callable of the call's arguments.",
        )
    )
