"""From key values to rows of the vector table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError


class KeyIndex(nn.Module):
    """From key values to rows of the vector table; what is not known is row -1.

    With a vocabulary, integer keys are positions in it (what an embedding layer takes), and -1 is nobody.
    Without one, the keys are the store's own ids, integers or strings.

    Args:
        level: ``user`` or ``scenario``, for messages.
        ids: The id of each table row.
        positions: Whether integer keys are positions in `ids`.
    """

    sorted_ids: Tensor
    order: Tensor

    def __init__(self, level: str, ids: Sequence[int] | Sequence[str], *, positions: bool) -> None:
        super().__init__()
        self.level, self.size, self.positions = level, len(ids), positions
        plain = [name.item() if isinstance(name, np.generic) else name for name in ids]
        self.names = {name: row for row, name in enumerate(plain)}
        self.integers = all(isinstance(name, int) for name in plain)
        if self.integers and not positions:
            numbers = torch.tensor(plain, dtype=torch.int64)
            order = torch.argsort(numbers)
            self.register_buffer("sorted_ids", numbers[order], persistent=False)
            self.register_buffer("order", order, persistent=False)

    def forward(self, values: Any) -> Tensor:
        """Table rows `[batch]` int64 of key values `[batch]` or `[batch, 1]`.

        Raises:
            UnknownIdError: A position out of range (checked on the CPU only).
            EnhanceError: Keys of the wrong type or shape.
        """
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
            values = torch.from_numpy(values.astype(np.int64))
        if not isinstance(values, Tensor):
            if self.positions and all(isinstance(value, int) for value in values):
                return self._in_range(torch.tensor(values, dtype=torch.int64))
            names = [value.item() if isinstance(value, np.generic) else value for value in values]
            return torch.tensor([self.names.get(name, -1) for name in names], dtype=torch.int64)
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
            raise EnhanceError(
                f"{self.level} keys are integers but the store's ids are strings; "
                f"pass vocabulary={{{self.level!r}: [id of 0, id of 1, ...]}} to enhance()."
            )
        place = torch.searchsorted(self.sorted_ids, values.contiguous()).clamp(max=self.size - 1)
        return torch.where(self.sorted_ids[place] == values, self.order[place], -1)

    def _in_range(self, values: Tensor) -> Tensor:
        if values.device.type == "cpu" and values.numel() and not torch.compiler.is_compiling():
            low, high = int(values.min()), int(values.max())
            if low < -1 or high >= self.size:
                raise UnknownIdError(
                    f"{self.level} key {low if low < -1 else high} is no position in a vocabulary of "
                    f"{self.size}; allowed: 0 to {self.size - 1}, or -1 for nobody."
                )
        return values
