"""Generated layers against a slow loop that makes every row's weights by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from by_hand import by_hand
from torch import Tensor

from msr_enhance.meta.groups import Groups
from msr_enhance.meta.layer import GeneratedLayer

Path = Callable[[GeneratedLayer, Tensor, Tensor, Tensor], Tensor]


def mixed(layer: GeneratedLayer, x: Tensor, table: Tensor, keys: Tensor) -> Tensor:
    return layer.mixed(x, table[keys])


def grouped(layer: GeneratedLayer, x: Tensor, table: Tensor, keys: Tensor) -> Tensor:
    groups = Groups(keys)
    return groups.restore(layer.grouped(groups.sort(x), table[groups.distinct], groups))


def picked(layer: GeneratedLayer, x: Tensor, table: Tensor, keys: Tensor) -> Tensor:
    return layer.picked(x, table, keys)


PATHS: list[Path] = [mixed, grouped, picked]
every_path = pytest.mark.parametrize("path", PATHS)


def made_layer(
    condition: int, inputs: int, outputs: int, dtype: torch.dtype = torch.float32
) -> GeneratedLayer:
    torch.manual_seed(condition * 10_000 + inputs * 100 + outputs)
    layer = GeneratedLayer(condition, inputs, outputs).to(dtype)
    torch.nn.init.normal_(layer.bias)
    return layer


def grads(result: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    # Rows and columns weigh differently, so that a transposed or misplaced gradient cannot pass.
    weights = torch.linspace(-1, 1, result.numel(), dtype=torch.double).view_as(result).to(result.dtype)
    return torch.autograd.grad((result * weights).sum() + 0 * sum(w.sum() for w in wanted), wanted)


@every_path
@pytest.mark.parametrize("rows", [0, 1, 9, 150])
@pytest.mark.parametrize(
    ("inputs", "outputs", "condition"), [(3, 5, 2), (40, 3, 4), (4, 1, 1), (1, 4, 3), (6, 6, 2), (40, 33, 16)]
)
def test_result_and_every_gradient_equal_the_loop(
    path: Path, rows: int, inputs: int, outputs: int, condition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("mix", "gen"):  # several chunks even for few rows
        monkeypatch.setattr(f"msr_enhance.meta.{module}._CPU_NUMBERS", 2000)
    layer = made_layer(condition, inputs, outputs)
    table = (torch.randn(rows + 2, condition) / condition**0.5).requires_grad_()
    keys = torch.randint(0, max(1, rows // 3), (rows,))
    x = torch.randn(rows, inputs, requires_grad=True)
    wanted = [layer.weight, layer.bias, table, x]
    result = path(layer, x, table, keys)
    slow = by_hand(layer.double(), x.double(), table.double()[keys])
    torch.testing.assert_close(result.double(), slow, rtol=1e-5, atol=1e-5)
    layer.float()
    for one, other in zip(grads(result, wanted), grads(slow, wanted), strict=True):
        scale = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        torch.testing.assert_close(one / scale, other / scale, rtol=1e-5, atol=1e-5)


@every_path
@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_gradients_equal_finite_differences(path: Path, sizes: tuple[int, int]) -> None:
    layer = made_layer(2, *sizes, torch.double)
    keys = torch.tensor([1, 0, 1, 3])

    def run(x: Tensor, table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        for name, value in (("weight", weight), ("bias", bias)):
            delattr(layer, name)
            setattr(layer, name, value)
        return path(layer, x, table, keys)

    inputs = [torch.randn(4, sizes[0]), torch.randn(4, 2), layer.weight.detach(), layer.bias.detach()]
    layer.register_parameter("weight", None)
    layer.register_parameter("bias", None)
    assert torch.autograd.gradcheck(run, [each.double().requires_grad_() for each in inputs])


@every_path
def test_a_zeroed_layer_gives_exact_zeros(path: Path) -> None:
    layer = made_layer(2, 5, 4)
    layer.zero()
    result = path(layer, torch.randn(6, 5), torch.randn(3, 2), torch.tensor([0, 1, 1, 0, 2, 2]))
    assert torch.equal(result, torch.zeros(6, 4))


def test_picked_gives_zeros_for_a_row_that_takes_no_condition() -> None:
    layer = made_layer(2, 5, 4)
    result = layer.picked(torch.randn(3, 5), torch.randn(2, 2), torch.tensor([0, -1, 2]))
    assert result[0].abs().sum() > 0
    assert torch.equal(result[1:], torch.zeros(2, 4))


def test_made_weights_are_those_of_the_loop() -> None:
    layer = made_layer(3, 4, 5)
    z = torch.randn(6, 3)
    weight, bias = layer.made(z)
    assert (weight.shape, bias.shape) == ((6, 4, 5), (6, 5))
    x = torch.randn(6, 4)
    torch.testing.assert_close(torch.einsum("ni,nij->nj", x, weight) + bias, by_hand(layer, x, z))


def test_weights_start_at_he_size() -> None:
    torch.manual_seed(0)
    layer = GeneratedLayer(16, 128, 64)
    z = torch.nn.functional.normalize(torch.randn(50, 16), dim=1)
    assert layer.made(z)[0].std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


@every_path
def test_only_the_wanted_gradients_are_given(path: Path) -> None:
    """A gradient nobody wants stays None, and does not change the others."""
    layer = made_layer(3, 6, 4)
    table, keys = torch.randn(4, 3), torch.tensor([3, 0, 0, 1, 3])
    x = torch.randn(5, 6, requires_grad=True)
    full = torch.autograd.grad(path(layer, x, table.requires_grad_(), keys).square().sum(), x)[0]
    layer.requires_grad_(False)
    alone = torch.autograd.grad(path(layer, x, table.detach(), keys).square().sum(), x)[0]
    torch.testing.assert_close(alone, full)
    layer.requires_grad_(True)
    path(layer, x.detach(), table.detach(), keys).square().sum().backward()
    assert layer.weight.grad is not None
    assert x.grad is None
    assert table.grad is None


@every_path
def test_rows_may_lie_anyhow_in_memory(path: Path) -> None:
    layer = made_layer(3, 6, 4)
    keys, table = torch.tensor([0, 0, 1, 3, 3]), torch.randn(4, 3)
    columns = torch.randn(6, 5, requires_grad=True)
    found, wanted = path(layer, columns.t(), table, keys), path(layer, columns.t().contiguous(), table, keys)
    torch.testing.assert_close(found, wanted)
    grown = [torch.autograd.grad(each.square().sum(), columns)[0] for each in (found, wanted)]
    torch.testing.assert_close(*grown)


@every_path
def test_the_same_call_gives_the_same_bits(path: Path) -> None:
    layer = made_layer(4, 33, 20)
    keys = torch.randint(0, 40, (900,))
    table, x = torch.randn(40, 4, requires_grad=True), torch.randn(900, 33, requires_grad=True)
    wanted = [layer.weight, layer.bias, table, x]
    runs = [path(layer, x, table, keys) for _ in range(2)]
    assert torch.equal(*runs)
    for one, other in zip(*(grads(run, wanted) for run in runs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("condition", [4, 16])
@every_path
def test_no_weights_are_kept_per_row(path: Path, condition: int) -> None:
    """What is kept for the backward pass is far below rows x weights, and below rows x basis x width."""
    rows, width, distinct = 1024, 64, 8
    layer = GeneratedLayer(condition, width, width)
    kept: dict[int, int] = {}
    keys = torch.arange(rows) % distinct
    x = torch.randn(rows, width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.__setitem__(t.untyped_storage().data_ptr(), t.numel()) or t, lambda t: t
    ):
        path(layer, x, torch.randn(distinct, condition, requires_grad=True), keys).sum()
    factors = rows * (width + condition + 1) + layer.weight.numel()
    made_for_keys = distinct * width * width
    assert sum(kept.values()) <= 1.2 * (factors + made_for_keys) + 4 * rows
    assert sum(kept.values()) < rows * width * width / 20


@pytest.mark.parametrize(("x_rows", "z_rows"), [(3, 2), (4, 3)])
def test_grouped_refuses_other_lengths_than_the_groups_have(x_rows: int, z_rows: int) -> None:
    groups = Groups(torch.tensor([1, 1, 2, 2]))
    with pytest.raises(ValueError, match=r"allowed: the 4 rows.*2 distinct"):
        GeneratedLayer(2, 3, 4).grouped(torch.randn(x_rows, 3), torch.randn(z_rows, 2), groups)
