"""The parts of the backbones against slow ways written row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from msr_enhance.backbones.parts import MLP, FieldEmbedding, PartitionedNorm, ScenarioRows, StarLinear, Tower


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomise(module: nn.Module, seed: int) -> None:
    """Give every parameter a value of its own, so that a dropped or swapped one shows."""
    generator = draw(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def test_field_embedding_reads_each_field_from_its_own_vectors() -> None:
    embedding = FieldEmbedding([2, 3], dim=4)
    out = embedding(torch.tensor([[0, 0], [1, 2], [1, 0]]))
    assert embedding.width == 8
    assert out.shape == (3, 8)
    assert torch.equal(out[0, 4:], out[2, 4:])
    assert torch.equal(out[1, :4], out[2, :4])
    vectors = torch.cat([out[:2, :4], out[:2, 4:]])
    assert len(vectors.unique(dim=0)) == 4


def test_field_embedding_starts_small_and_saves_only_its_table() -> None:
    embedding = FieldEmbedding([500, 500], dim=8)
    (table,) = embedding.state_dict().values()
    assert table.shape == (1000, 8)
    assert 0.045 < float(table.std()) < 0.055


@pytest.mark.parametrize("value", [-1, 3])
def test_field_embedding_refuses_an_index_of_another_field(value: int) -> None:
    fields = torch.tensor([[0, 0], [0, value]])
    with pytest.raises(ValueError, match=rf"fields\[1, 1\] is {value}; field 1 has size 3, allowed 0 to 2"):
        FieldEmbedding([2, 3], dim=4)(fields)


def test_field_embedding_refuses_another_number_of_fields() -> None:
    with pytest.raises(ValueError, match=r"shape \[4, 3\]; write \[batch, 2\]"):
        FieldEmbedding([2, 3], dim=4)(torch.zeros(4, 3, dtype=torch.long))


@pytest.mark.parametrize("sizes", [[], [3, 0]])
def test_field_embedding_refuses_sizes_without_values(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="at least 1 for each field"):
        FieldEmbedding(sizes, dim=4)


def test_mlp_and_tower_have_the_stated_shapes() -> None:
    assert MLP(5, (7, 3), dropout=0.0)(torch.ones(2, 5)).shape == (2, 3)
    assert MLP(5, (), dropout=0.5).width == 5
    assert Tower(5, (), dropout=0.0)(torch.ones(1, 5)).shape == (1,)


@pytest.mark.parametrize("scenario", [[2, 0, 1, 0, 2], [1, 1], [0], []])
def test_rows_are_sorted_counted_and_restored(scenario: list[int]) -> None:
    index = torch.tensor(scenario, dtype=torch.long)
    rows = ScenarioRows(index, n_scenarios=4)
    x = torch.arange(len(scenario))
    assert rows.counts == [scenario.count(p) for p in range(4)]
    assert torch.equal(index[rows.sort(x)], rows.scenario)
    assert rows.scenario.tolist() == sorted(scenario)
    assert torch.equal(rows.restore(rows.sort(x)), x)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (torch.tensor([0, 3]), r"scenario\[1\] is 3; allowed 0 to 2"),
        (torch.tensor([-1, 0]), r"scenario\[0\] is -1; allowed 0 to 2"),
        (torch.tensor([0.0]), "torch.float32"),
        (torch.tensor([[0], [1]]), r"shape \[2, 1\]"),
    ],
)
def test_rows_refuse_a_scenario_that_is_not_there(scenario: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScenarioRows(scenario, n_scenarios=3)


def test_rows_refuse_another_number_of_rows() -> None:
    with pytest.raises(ValueError, match="fields has 3 rows and scenario 2"):
        ScenarioRows(torch.tensor([0, 1]), n_scenarios=2).sort(torch.ones(3, 1))


def slow_norm(norm: PartitionedNorm, x: Tensor, scenario: Tensor, train: bool) -> Tensor:
    """Row by row from the definition."""
    out = []
    for row, p in zip(x, scenario.tolist(), strict=True):
        own = x[scenario == p]
        if train and len(own) > 1:
            mean, var = own.mean(0), own.var(0, correction=0)
        else:
            mean, var = norm.running_mean[p], norm.running_var[p]
        out.append(
            norm.gamma * norm.gamma_p[p] * (row - mean) / torch.sqrt(var + norm.eps)
            + norm.beta
            + norm.beta_p[p]
        )
    return torch.stack(out)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_norm_equals_the_slow_way_with_gradients(seed: int, train: bool) -> None:
    generator = draw(seed)
    n, width, batch = seed + 1, 2 * seed + 1, 5 * seed + 1
    x = (3 * torch.randn(batch, width, generator=generator) + 1).double().requires_grad_()
    scenario = torch.randint(n, (batch,), generator=generator)
    norm = PartitionedNorm(width, n).double()
    randomise(norm, seed)
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2.0, generator=generator)
    norm.train(train)
    upstream = torch.randn(batch, width, generator=generator).double()
    inputs = [x, *norm.parameters()]

    slow = slow_norm(norm, x, scenario, train)
    slow_gradients = torch.autograd.grad((slow * upstream).sum(), inputs)
    rows = ScenarioRows(scenario, n)
    fast = rows.restore(norm(rows.sort(x), rows))
    gradients = torch.autograd.grad((fast * upstream).sum(), inputs)

    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradients, slow_gradients)


def test_norm_averages_each_scenario_over_the_batches_that_hold_it() -> None:
    norm = PartitionedNorm(1, n_scenarios=3, momentum=0.25)
    batches = [torch.tensor([[b], [b + 2.0]]) for b in range(8)]
    for x in batches:
        norm(x, ScenarioRows(torch.tensor([1, 1]), 3))
    single = torch.tensor([[100.0], [9.0], [11.0]])
    norm(single, ScenarioRows(torch.tensor([0, 2, 2]), 3))

    plain = sum(b + 1.0 for b in range(4)) / 4
    for b in range(4, 8):
        plain = 0.75 * plain + 0.25 * (b + 1.0)
    torch.testing.assert_close(norm.running_mean.squeeze(1), torch.tensor([0.0, plain, 10.0]))
    torch.testing.assert_close(norm.running_var.squeeze(1), torch.tensor([1.0, 2.0, 2.0]))


def test_norm_leaves_its_averages_alone_in_evaluation() -> None:
    norm = PartitionedNorm(2, n_scenarios=1).eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(torch.ones(4, 2), ScenarioRows(torch.zeros(4, dtype=torch.long), 1))
    assert {"running_mean", "running_var"} < set(before)
    torch.testing.assert_close(dict(norm.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(6))
def test_star_linear_equals_the_slow_way_with_gradients(seed: int) -> None:
    generator = draw(seed)
    n, width, out, batch = seed + 1, seed + 2, 3, 4 * seed + 1
    layer = StarLinear(width, out, n).double()
    randomise(layer, seed)
    x = torch.randn(batch, width, generator=generator).double().requires_grad_()
    scenario = torch.randint(n, (batch,), generator=generator)
    upstream = torch.randn(batch, out, generator=generator).double()
    inputs = [x, *layer.parameters()]

    slow = torch.stack(
        [
            (layer.weight * layer.weight_p[p]) @ row + layer.bias + layer.bias_p[p]
            for row, p in zip(x, scenario.tolist(), strict=True)
        ]
    )
    slow_gradients = torch.autograd.grad((slow * upstream).sum(), inputs)
    rows = ScenarioRows(scenario, n)
    fast = rows.restore(layer(rows.sort(x), rows))
    gradients = torch.autograd.grad((fast * upstream).sum(), inputs)

    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradients, slow_gradients)


def test_star_linear_starts_as_the_shared_layer() -> None:
    layer = StarLinear(6, 4, n_scenarios=3)
    x = torch.randn(9, 6, generator=draw(0))
    rows = ScenarioRows(torch.arange(3).repeat_interleave(3), 3)
    torch.testing.assert_close(layer(x, rows), x @ layer.weight.T)
    assert layer.weight.ne(0).all()
