"""One generated layer: every row goes through the weights that its own knowledge vector generates.

With a condition z of r numbers, the generated weights are `W(z) = A_0 + sum_k z_k A_k` and
`b(z) = b_0 + sum_k z_k b_k`: one fully connected layer from z to all weights (equations 4 and 5).
Two exact ways to the same result, neither of which makes weights for a row:

- `mixed`: `x W(z)` is expanded, so x meets the r + 1 basis matrices and only outputs are mixed;
- `grouped`: weights are made once for each *distinct* key and applied to that key's rows together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GeneratedLayer(nn.Module):
    """`x W(z) + b(z)` with weights generated from a condition.

    Args:
        condition: r, numbers in a condition.
        inputs: Width of x.
        outputs: Width of the result.
    """

    def __init__(self, condition: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(condition + 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(condition + 1, outputs))
        # For a condition of norm 1, each of the two terms gives half of He's variance 2 / inputs.
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def zero(self) -> None:
        """Generate zero weights and biases for every condition, so that the layer's result is 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def mixed(self, x: Tensor, z: Tensor) -> Tensor:
        """Result `[batch, outputs]` for x `[batch, inputs]` and conditions z `[batch, r]`."""
        basis, inputs, outputs = self.weight.shape
        z = torch.cat([z.new_ones(len(z), 1), z], dim=1)
        if inputs <= outputs:  # the narrower side is the one that is held r + 1 times
            spread = (z[:, :, None] * x[:, None, :]).reshape(len(x), basis * inputs)
            mixed = spread @ self.weight.reshape(basis * inputs, outputs)
        else:
            each = (x @ self.weight.transpose(0, 1).reshape(inputs, basis * outputs)).view(-1, basis, outputs)
            mixed = (z[:, None, :] @ each).squeeze(1)
        return mixed + z @ self.bias

    def grouped(self, x: Tensor, z: Tensor, groups: Groups) -> Tensor:
        """Result `[batch, outputs]` for x `[batch, inputs]`; z `[distinct, r]` is one row a group."""
        z = torch.cat([z.new_ones(len(z), 1), z], dim=1)
        weight = (z @ self.weight.flatten(1)).view(len(z), *self.weight.shape[1:])
        return groups.multiply(x, weight) + (z @ self.bias)[groups.of_row]


class Groups:
    """Rows of a batch grouped by key.

    Args:
        keys: `[batch]`, the key of each row.

    Attributes:
        distinct: `[distinct]`, the keys, ascending.
        of_row: `[batch]`, each row's place in `distinct`.
    """

    def __init__(self, keys: Tensor) -> None:
        self.distinct, self.of_row, sizes = torch.unique(keys, return_inverse=True, return_counts=True)
        order = torch.argsort(self.of_row, stable=True)
        starts = sizes.cumsum(0) - sizes
        # Groups of similar size (2^k to 2^(k+1) rows) share one padded product: at most half is padding.
        octave = torch.log2(sizes.double()).floor().long()
        self._buckets: list[tuple[Tensor, Tensor, Tensor]] = []
        for size in torch.unique(octave).tolist():
            members = (octave == size).nonzero().squeeze(1)
            place = torch.arange(int(sizes[members].max()), device=keys.device)
            real = place[None] < sizes[members, None]
            rows = order[(starts[members, None] + place).clamp(max=len(order) - 1)]
            self._buckets.append((members, rows, real))

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x W` `[batch, outputs]` with each row's group's own weight `[distinct, inputs, outputs]`."""
        results, places = [x.new_zeros(0, weight.shape[2])], [x.new_zeros(0, dtype=torch.long)]
        for members, rows, real in self._buckets:
            product = torch.bmm(x[rows], weight[members])
            results.append(product[real])
            places.append(rows[real])
        back = torch.argsort(torch.cat(places))
        return torch.cat(results)[back]
