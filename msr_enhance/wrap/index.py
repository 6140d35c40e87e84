"""From key values to rows of the vector table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.meta.held import Held, tracing


class KeyIndex(Held):
    """From key values to rows of the vector table; what is not known is row -1.

    With a vocabulary, integer keys are positions in it (what an embedding layer takes), and -1 is nobody.
    Without one, the keys are the store's own ids, integers or strings.

    Args:
        level: ``user`` or ``scenario``, for messages.
        ids: The id of each table row.
        positions: Whether integer keys are positions in `ids`.
    """

    held: ClassVar[tuple[str, ...]] = ("sorted_ids", "order")
    sorted_ids: Tensor
    order: Tensor

    def __init__(self, level: str, ids: Sequence[int] | Sequence[str], *, positions: bool) -> None:
        super().__init__()
        self.level, self.size, self.positions = level, len(ids), positions
        plain = [name.item() if isinstance(name, np.generic) else name for name in ids]
        self.names = {name: row for row, name in enumerate(plain)}
        self.integers = all(isinstance(name, int) for name in plain)
        numbers = torch.tensor(
            plain if self.integers and not positions else [], dtype=torch.int64, device="cpu"
        )
        self.order = torch.argsort(numbers)
        self.sorted_ids = numbers[self.order]

    def forward(self, values: Any) -> Tensor:
        """Table rows `[batch]` int64 of key values `[batch]` or `[batch, 1]`.

        Raises:
            UnknownIdError: A position out of range (checked on the CPU only, and not while compiling).
            EnhanceError: Keys of the wrong type or shape.
        """
        if not isinstance(values, Tensor):
            plain = [value.item() if hasattr(value, "item") else value for value in values]
            if not plain or not all(type(value) is int for value in plain):
                return self._named(plain)
            values = torch.tensor(plain, dtype=torch.int64)
        if values.is_floating_point() or values.dtype is torch.bool:
            raise EnhanceError(
                f"{self.level} keys are {values.dtype}; allowed: integer tensors, or lists of ids. "
                "Write keys={...: lambda batch: batch[NAME].long()} if they are whole numbers."
            )
        values = values.long()
        if values.dim() == 2 and values.shape[1] == 1:
            values = values.squeeze(1)
        if values.dim() != 1:
            raise EnhanceError(f"{self.level} keys have shape {tuple(values.shape)}; allowed: [batch].")
        if self.positions:
            return self._in_range(values)
        if not self.integers:
            raise self._otherwise("integers")
        ids, order = self.here("sorted_ids", values), self.here("order", values)
        place = torch.searchsorted(ids, values.contiguous()).clamp(max=self.size - 1)
        return torch.where(ids[place] == values, order[place], -1)

    def _named(self, values: Sequence[Any]) -> Tensor:
        """Rows of ids in a list; None is nobody."""
        kind = int if self.integers else str
        for value in values:
            if value is not None and type(value) is not kind:
                raise self._otherwise(f"{type(value).__name__} ({value!r})")
        return torch.tensor([self.names.get(value, -1) for value in values], dtype=torch.int64)

    def _otherwise(self, seen: str) -> EnhanceError:
        ids = "integers" if self.integers else "strings"
        return EnhanceError(
            f"{self.level} keys are {seen} but the store's ids are {ids}; allowed: keys of the same type, or "
            f"positions with vocabulary={{{self.level!r}: [id of 0, id of 1, ...]}} in enhance()."
        )

    def _in_range(self, values: Tensor) -> Tensor:
        if tracing():
            # Nobody can look: what is no position is nobody, or -2 would be somebody.
            return torch.where((values < 0) | (values >= self.size), -1, values)
        if values.device.type == "cpu" and values.numel():
            low, high = (int(value) for value in values.aminmax())
            if low < -1 or high >= self.size:
                raise UnknownIdError(
                    f"{self.level} key {low if low < -1 else high} is no position in a vocabulary of "
                    f"{self.size}; allowed: 0 to {self.size - 1}, or -1 for nobody."
                )
        return values
