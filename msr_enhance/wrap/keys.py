"""Which user and which scenario each row of a call belongs to."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError, not_one_of

KeySource = str | Callable[..., Any]


def find_key(source: KeySource, forward: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The key values of one call.

    A name is looked up among the keyword arguments, the named positional arguments, and the members
    of mappings and dataclasses among them. A callable receives the call's `(*args, **kwargs)`.

    Raises:
        EnhanceError: The name is nowhere; lists the names that are there.
    """
    if callable(source):
        return source(*args, **kwargs)
    named = _named_arguments(forward, args, kwargs)
    seen: list[str] = []
    for name, value in named.items():
        if name == source:
            return value
        seen.append(name)
    for value in named.values():
        members: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            members = value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if source in members:
            return members[source]
        seen.extend(str(name) for name in members)
    raise EnhanceError(
        not_one_of(
            "key", source, seen, "Write keys={'user': NAME, ...}, or a callable of the call's arguments."
        )
    )


def _named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(module.forward)
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError:
        return {f"argument {place}": value for place, value in enumerate(args)} | dict(kwargs)
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            named.update({f"{name}[{place}]": one for place, one in enumerate(value)})
        else:
            named[name] = value
    return named


class KeyIndex(nn.Module):
    """From key values to rows of the vector table.

    With a vocabulary, integer keys are positions in it (what an embedding layer takes). Without one,
    the keys are the store's own ids, integers or strings.

    Args:
        level: ``user`` or ``scenario``, for messages.
        ids: The id of each table row.
        positions: Whether integer keys are positions in `ids`.
        unknown: ``zero`` reads an unknown key as zero knowledge (row -1); ``error`` refuses it.
    """

    sorted_ids: Tensor
    order: Tensor

    def __init__(
        self, level: str, ids: Sequence[int] | Sequence[str], *, positions: bool, unknown: str
    ) -> None:
        super().__init__()
        self.level, self.unknown, self.size = level, unknown, len(ids)
        plain = [name.item() if isinstance(name, np.generic) else name for name in ids]
        self._names = {name: row for row, name in enumerate(plain)}
        self._integers = all(isinstance(name, int) for name in plain)
        self.positions = positions
        if self._integers and not positions:
            numbers = torch.tensor(plain, dtype=torch.int64)
            order = torch.argsort(numbers)
            self.register_buffer("sorted_ids", numbers[order], persistent=False)
            self.register_buffer("order", order, persistent=False)

    def forward(self, values: Any) -> Tensor:
        """Table rows `[batch]` int64 of key values `[batch]`.

        Raises:
            UnknownIdError: An unknown key where the policy is ``error``, or a position out of range.
            EnhanceError: Keys of the wrong type or shape.
        """
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
            values = torch.from_numpy(values.astype(np.int64))
        if not isinstance(values, Tensor):
            if self.positions and all(isinstance(value, int) for value in values):
                return self._in_range(torch.tensor(values, dtype=torch.int64))
            names = [value.item() if isinstance(value, np.generic) else value for value in values]
            rows = torch.tensor([self._names.get(name, -1) for name in names], dtype=torch.int64)
            return self._checked(rows, names)
        if values.is_floating_point() or values.dtype is torch.bool:
            raise EnhanceError(
                f"{self.level} keys are {values.dtype}; allowed: integer tensors, or lists of ids. "
                "Write keys={...: lambda batch: batch[NAME].long()} if they are whole numbers."
            )
        values = values.long()
        if values.dim() != 1:
            raise EnhanceError(f"{self.level} keys have shape {tuple(values.shape)}; allowed: [batch].")
        if self.positions:
            return self._in_range(values)
        if not self._integers:
            raise EnhanceError(
                f"{self.level} keys are integers but the store's ids are strings; "
                f"pass vocabulary={{{self.level!r}: [id of 0, id of 1, ...]}} to enhance()."
            )
        place = torch.searchsorted(self.sorted_ids, values).clamp(max=self.size - 1)
        found = self.sorted_ids[place] == values
        return self._checked(torch.where(found, self.order[place], -1), values)

    def _in_range(self, values: Tensor) -> Tensor:
        if values.device.type == "cpu" and values.numel() and not torch.compiler.is_compiling():
            low, high = int(values.min()), int(values.max())
            if low < -1 or high >= self.size or (low < 0 and self.unknown == "error"):
                seen = low if low < 0 else high
                raise UnknownIdError(
                    f"{self.level} key {seen} is no position in a vocabulary of {self.size}; "
                    f"allowed: 0 to {self.size - 1}"
                    + (", or -1 for unknown." if self.unknown == "zero" else ".")
                )
        return values

    def _checked(self, rows: Tensor, values: Any) -> Tensor:
        if self.unknown == "error" and bool((rows < 0).any()):
            missing = [values[int(place)] for place in (rows < 0).nonzero()[:5, 0]]
            shown = [one.item() if isinstance(one, Tensor) else one for one in missing]
            raise UnknownIdError(not_one_of(self.level, shown[0], self._names, f"Unknown here: {shown}."))
        return rows
