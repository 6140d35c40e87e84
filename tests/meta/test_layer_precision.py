"""Generated layers in bfloat16, under autocast, and through the compiler and the exporter."""

from __future__ import annotations

import pytest
import torch
from test_layer import Path, every_path, made_layer, mixed, picked
from torch import Tensor, nn

from msr_enhance.meta.groups import Groups
from msr_enhance.meta.layer import GeneratedLayer


@every_path
@pytest.mark.parametrize(("inputs", "outputs"), [(24, 12), (12, 24)])
def test_autocast_computes_in_bfloat16_and_keeps_float32_gradients(
    path: Path, inputs: int, outputs: int
) -> None:
    layer = made_layer(4, inputs, outputs)
    keys = torch.randint(0, 20, (200,))
    table = (torch.randn(20, 4) / 2).requires_grad_()
    x = torch.randn(200, inputs, requires_grad=True)
    wanted = [layer.weight, layer.bias, table, x]
    exact = path(layer, x, table, keys)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = path(layer, x, table, keys)
    assert result.dtype == torch.bfloat16
    close(result, exact)
    found = torch.autograd.grad(result.float().square().sum(), wanted)
    for one, other in zip(found, torch.autograd.grad(exact.square().sum(), wanted), strict=True):
        assert one.dtype == torch.float32
        close(one, other)


@every_path
def test_a_bfloat16_module_works(path: Path) -> None:
    layer = made_layer(4, 24, 12)
    keys, table, x = torch.randint(0, 20, (200,)), torch.randn(20, 4), torch.randn(200, 24)
    exact = path(layer, x, table, keys)
    exact.square().sum().backward()
    assert layer.weight.grad is not None
    slopes = layer.weight.grad.clone()
    layer.zero_grad()
    half = layer.bfloat16()
    result = path(half, x.bfloat16(), table.bfloat16(), keys)
    result.float().square().sum().backward()
    assert result.dtype == half.weight.grad.dtype == torch.bfloat16
    close(result, exact)
    close(half.weight.grad, slopes)


@every_path
def test_autocast_leaves_float64_alone(path: Path) -> None:
    layer = made_layer(3, 5, 4, torch.double)
    keys, table, x = torch.tensor([0, 1, 1]), torch.randn(2, 3).double(), torch.randn(3, 5).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = path(layer, x, table, keys)
    assert torch.equal(result, path(layer, x, table, keys))


class Through(nn.Module):
    """A layer as a module of three tensors, for the exporter."""

    def __init__(self, layer: GeneratedLayer, path: Path) -> None:
        super().__init__()
        self.layer, self.path = layer, path

    def forward(self, x: Tensor, table: Tensor, keys: Tensor) -> Tensor:
        return self.path(self.layer, x, table, keys)


@pytest.mark.parametrize("path", [mixed, picked])
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 4), (4, 6)])
def test_compiles_as_one_graph_with_any_batch(path: Path, inputs: int, outputs: int) -> None:
    module = Through(made_layer(3, inputs, outputs), path)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    table = torch.randn(5, 3)
    for rows in (7, 40, 3):
        x, keys = torch.randn(rows, inputs, requires_grad=True), torch.arange(rows) % 5
        eager, traced = module(x, table, keys), compiled(x, table, keys)
        torch.testing.assert_close(traced, eager)
        for one, other in zip(
            *(torch.autograd.grad(y.square().sum(), [x, module.layer.weight]) for y in (traced, eager)),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
    assert len(graphs) == 1


def test_grouped_compiles_once_for_groups_of_any_sizes() -> None:
    layer = made_layer(3, 6, 4)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(layer.grouped, backend=backend, fullgraph=True, dynamic=True)
    for rows in (7, 40, 23):
        groups = Groups(torch.arange(rows) ** 2 % 11)
        x, z = torch.randn(rows, 6), torch.randn(len(groups), 3)
        torch.testing.assert_close(compiled(x, z, groups), layer.grouped(x, z, groups))
    assert len(graphs) == 1


@pytest.mark.parametrize("path", [mixed, picked])
def test_exports_with_a_dynamic_batch(path: Path) -> None:
    module = Through(made_layer(3, 6, 4), path).eval()
    batch = torch.export.Dim("batch", min=2, max=4096)
    table = torch.randn(5, 3)
    example = (torch.randn(8, 6), table, torch.arange(8) % 5)
    exported = torch.export.export(
        module, example, dynamic_shapes={"x": {0: batch}, "table": None, "keys": {0: batch}}
    )
    x, keys = torch.randn(31, 6), torch.arange(31) % 5
    torch.testing.assert_close(exported.module()(x, table, keys), module(x, table, keys))


def close(found: Tensor, exact: Tensor) -> None:
    """bfloat16 keeps 8 bits; a sum of many may be off by a few of the last."""
    assert (found.float() - exact).norm() < 0.02 * exact.norm()
