"""One generated layer: every row goes through the weights that its own knowledge vector generates.

With a condition z of r numbers, the generated weights are `W(z) = A_0 + sum_k z_k A_k` and
`b(z) = b_0 + sum_k z_k b_k`: one fully connected layer from z to all weights (equations 4 and 5).
Exact ways to the same result, none of which makes weights for a row:

- `mixed`: `x W(z)` is expanded, so x meets the r + 1 basis matrices and only outputs are mixed;
- `grouped`: weights are made once for each *distinct* key and applied to that key's rows together;
- `picked`: the weights of a few keys are all made, all applied in one product, and each row takes its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msr_enhance.meta.gen import gen
from msr_enhance.meta.groups import Groups
from msr_enhance.meta.mix import mix


class GeneratedLayer(nn.Module):
    """`x W(z) + b(z)` with weights generated from a condition.

    Under autocast every factor is cast to its type, and sums are made in float32.

    Args:
        condition: r, numbers in a condition.
        inputs: Width of x.
        outputs: Width of the result.
        size: Length of a condition, which the start makes up for.
    """

    def __init__(self, condition: int, inputs: int, outputs: int, size: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(condition + 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(condition + 1, outputs))
        # Basis layer 0 and the others together each give half of He's variance 2 / inputs.
        nn.init.normal_(self.weight, std=inputs**-0.5)
        with torch.no_grad():
            self.weight[1:] /= size

    def zero(self) -> None:
        """Generate zero weights and biases for every condition, so that the layer's result is 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def mixed(self, x: Tensor, z: Tensor) -> Tensor:
        """Result `[batch, outputs]` for x `[batch, inputs]` and conditions z `[batch, r]`."""
        x, z, weight, bias = _autocast(x, z, self.weight, self.bias)
        with _no_autocast(x):
            return mix(x, _with_one(z), weight, bias)

    def grouped(self, x: Tensor, z: Tensor, groups: Groups) -> Tensor:
        """Result `[batch, outputs]` for rows that stand group by group, one condition a key.

        Under `torch.compile` this is `mixed`: the sizes of a batch's groups are Python numbers, and a graph
        would be compiled for every batch.

        Args:
            x: `[batch, inputs]`, from `groups.sort`.
            z: `[distinct, r]`, the condition of each key.
            groups: The keys of the rows.

        Returns:
            Rows in the order of x; `groups.restore` puts them back.

        Raises:
            ValueError: x or z has another length than the groups say.
        """
        if torch.compiler.is_compiling():
            return self.mixed(x, z[groups.of_row[groups.order]])
        x, z, weight, bias = _autocast(x, z, self.weight, self.bias)
        with _no_autocast(x):
            return gen(x, _with_one(z), weight, bias, groups)

    def picked(self, x: Tensor, z: Tensor, rows: Tensor) -> Tensor:
        """Result `[batch, outputs]` where few conditions serve all rows: no sorting, no wait for a GPU.

        Args:
            x: `[batch, inputs]`.
            z: `[conditions, r]`.
            rows: `[batch]` int, the row of z that each row of x takes; any other number gives zeros.
        """
        x, z, weight, bias = _autocast(x, z, self.weight, self.bias)
        with _no_autocast(x):
            made, biases = _make(z, weight, bias)
            one_of = rows[:, None] == torch.arange(z.shape[0], device=rows.device)
            return mix(x, one_of.to(x.dtype), made, biases)

    def made(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[conditions, inputs, outputs]` and biases `[conditions, outputs]` for serving.

        Args:
            z: `[conditions, r]`.
        """
        return _make(z, self.weight, self.bias)


def _with_one(z: Tensor) -> Tensor:
    """Conditions with the leading one that takes the basis layer 0 whole."""
    # Not len(): the exporter would take it for a number and fix the batch size.
    return torch.cat([z.new_ones(z.shape[0], 1), z], dim=1)


def _make(z: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    coefficients = _with_one(z)
    made = (coefficients @ weight.flatten(1)).view(z.shape[0], *weight.shape[1:])
    return made, coefficients @ bias


def _autocast(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """The factors in autocast's type, where it is on; like autocast itself, float64 stays."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x, *rest
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), *(each.to(dtype) for each in rest)


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)
