"""Generated layers against a slow loop that makes every row's weights by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msr_enhance.meta.layer import GeneratedLayer, Groups


def by_hand(layer: GeneratedLayer, x: Tensor, z: Tensor) -> Tensor:
    """One row at a time: generate its weight matrix and bias number by number, then multiply."""
    rows = []
    for row in range(len(x)):
        weight = layer.weight[0].clone()
        bias = layer.bias[0].clone()
        for k in range(z.shape[1]):
            weight = weight + z[row, k] * layer.weight[k + 1]
            bias = bias + z[row, k] * layer.bias[k + 1]
        rows.append(
            torch.stack(
                [sum(x[row, i] * weight[i, j] for i in range(x.shape[1])) + bias[j] for j in range(len(bias))]
            )
        )
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("inputs", "outputs", "condition"), [(3, 5, 2), (5, 3, 4), (4, 1, 1), (1, 4, 3), (6, 6, 2)]
)
def test_mixed_equals_the_loop(inputs: int, outputs: int, condition: int) -> None:
    torch.manual_seed(inputs * 100 + outputs)
    layer = GeneratedLayer(condition, inputs, outputs).double()
    torch.nn.init.normal_(layer.bias)
    x, z = torch.randn(7, inputs, dtype=torch.double), torch.randn(7, condition, dtype=torch.double)
    torch.testing.assert_close(layer.mixed(x, z), by_hand(layer, x, z))


@pytest.mark.parametrize(
    "keys", [[0], [2, 2, 2], [3, 1, 3, 0, -1, 1, 1, 1, 3, -1], list(range(9)), [5] * 30 + [1, 2, 2]]
)
def test_grouped_equals_the_loop_for_any_grouping(keys: list[int]) -> None:
    torch.manual_seed(0)
    layer = GeneratedLayer(3, 4, 5).double()
    torch.nn.init.normal_(layer.bias)
    table = torch.randn(11, 3, dtype=torch.double)
    of_row = torch.tensor(keys)
    x = torch.randn(len(keys), 4, dtype=torch.double)
    groups = Groups(of_row)
    result = layer.grouped(x, table[groups.distinct], groups)
    torch.testing.assert_close(result, by_hand(layer, x, table[of_row]))
    assert torch.equal(groups.distinct[groups.of_row], of_row)


def test_both_ways_have_the_same_gradients() -> None:
    torch.manual_seed(1)
    layer = GeneratedLayer(3, 4, 5).double()
    table = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    keys = torch.tensor([0, 5, 5, 2, 0, 5, 1])
    x = torch.randn(7, 4, dtype=torch.double, requires_grad=True)
    wanted = [layer.weight, layer.bias, table, x]
    groups = Groups(keys)
    mixed = torch.autograd.grad(layer.mixed(x, table[keys]).square().sum(), wanted)
    grouped = torch.autograd.grad(layer.grouped(x, table[groups.distinct], groups).square().sum(), wanted)
    for one, other in zip(mixed, grouped, strict=True):
        torch.testing.assert_close(one, other)


def test_a_zeroed_layer_gives_exact_zeros() -> None:
    layer = GeneratedLayer(2, 3, 4)
    layer.zero()
    assert torch.equal(layer.mixed(torch.randn(5, 3), torch.randn(5, 2)), torch.zeros(5, 4))


def test_weights_start_at_he_size() -> None:
    torch.manual_seed(0)
    layer = GeneratedLayer(16, 128, 64)
    z = torch.nn.functional.normalize(torch.randn(50, 16), dim=1)
    made = torch.einsum("nk,kij->nij", torch.cat([torch.ones(50, 1), z], 1), layer.weight)
    assert made.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


def test_no_weights_are_made_per_row() -> None:
    """The largest tensor saved for the backward pass is far below rows x weights."""
    layer = GeneratedLayer(4, 64, 64)
    rows = 512
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        layer.mixed(torch.randn(rows, 64, requires_grad=True), torch.randn(rows, 4)).sum()
        keys = torch.arange(rows) % 8
        groups = Groups(keys)
        layer.grouped(torch.randn(rows, 64, requires_grad=True), torch.randn(8, 4), groups).sum()
    assert max(sizes) <= rows * 64 * 5
    assert max(sizes) < rows * 64 * 64 / 8
