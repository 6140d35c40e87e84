"""Rows grouped by key: every grouping comes back in order and covers every row once."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch
from by_hand import by_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_enhance.meta.gen import crossover
from msr_enhance.meta.groups import Groups
from msr_enhance.meta.layer import GeneratedLayer

any_keys = st.lists(st.integers(-1, 30), max_size=60)


@given(any_keys)
def test_what_groups_say_about_the_rows(keys: list[int]) -> None:
    given_keys = torch.tensor(keys, dtype=torch.long)
    groups = Groups(given_keys)
    assert groups.distinct.tolist() == sorted(set(keys))
    assert groups.sizes.tolist() == [keys.count(key) for key in sorted(set(keys))]
    assert torch.equal(groups.distinct[groups.of_row], given_keys)
    held = [[row for row in groups.order.tolist() if keys[row] == key] for key in sorted(set(keys))]
    assert held == [[row for row, own in enumerate(keys) if own == key] for key in sorted(set(keys))]
    assert len(list(groupby(given_keys[groups.order].tolist()))) == len(set(keys))
    assert groups.rho == (len(keys) / len(set(keys)) if keys else 0)
    assert (groups.rows, len(groups)) == (len(keys), len(set(keys)))


@given(any_keys)
def test_sort_and_restore_are_each_others_inverse(keys: list[int]) -> None:
    given_keys = torch.tensor(keys, dtype=torch.long)
    groups = Groups(given_keys)
    assert torch.equal(groups.sort(given_keys), given_keys[groups.order])
    x = torch.arange(len(keys) * 2.0).view(-1, 2).requires_grad_()
    back = groups.restore(groups.sort(x))
    assert torch.equal(back, x)
    weights = torch.arange(len(keys) * 2.0).view(-1, 2) + 1
    assert torch.equal(torch.autograd.grad((groups.sort(x) * groups.sort(weights)).sum(), x)[0], weights)


def test_sorted_rows_are_not_copied() -> None:
    groups, x = Groups(torch.tensor([1, 1, 4, 9])), torch.randn(4, 2)
    assert groups.sort(x) is x
    assert groups.restore(x) is x


@settings(max_examples=40, deadline=None)
@given(any_keys, st.integers(0, 4), st.integers(1, 9), st.integers(1, 9))
def test_grouped_and_mixed_are_one_function(
    keys: list[int], condition: int, inputs: int, outputs: int
) -> None:
    torch.manual_seed(len(keys))
    layer = GeneratedLayer(condition, inputs, outputs).double()
    torch.nn.init.normal_(layer.bias)
    table = torch.randn(32, condition, dtype=torch.double, requires_grad=True)
    x = torch.randn(len(keys), inputs, dtype=torch.double, requires_grad=True)
    of_row = torch.tensor(keys, dtype=torch.long)
    groups = Groups(of_row)
    grouped = groups.restore(layer.grouped(groups.sort(x), table[groups.distinct], groups))
    mixed = layer.mixed(x, table[of_row])
    torch.testing.assert_close(grouped, by_hand(layer, x, table[of_row]))
    wanted = [layer.weight, layer.bias, table, x]
    for one, other in zip(
        *(torch.autograd.grad(y.square().sum(), wanted) for y in (grouped, mixed)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("spread", ["one group", "all different", "equal", "one large", "many sizes"])
def test_grouped_at_sizes_that_take_several_chunks(spread: str) -> None:
    sizes = {
        "one group": [500],
        "all different": [1] * 300,
        "equal": [7] * 90,
        "one large": [400, *[1] * 60],
        "many sizes": [1 + (13 * n) % 29 for n in range(120)],
    }[spread]
    keys = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    keys = keys[torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))]
    torch.manual_seed(0)
    layer = GeneratedLayer(5, 96, 64).double()  # 42 weight sets a chunk
    table = torch.randn(len(sizes), 5, dtype=torch.double, requires_grad=True)
    x = torch.randn(len(keys), 96, dtype=torch.double, requires_grad=True)
    groups = Groups(keys)
    grouped = groups.restore(layer.grouped(groups.sort(x), table[groups.distinct], groups))
    slow = by_hand(layer, x, table[keys])
    torch.testing.assert_close(grouped, slow)
    wanted = [layer.weight, layer.bias, table, x]
    for one, other in zip(
        *(torch.autograd.grad(y.square().sum(), wanted) for y in (grouped, slow)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_weights_too_many_to_keep_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, z = GeneratedLayer(3, 6, 4), torch.randn(5, 3)
    x, groups = torch.randn(10, 6, requires_grad=True), Groups(torch.arange(10) // 2)
    kept: list[int] = []
    results = []
    for most in (2**23, 0):
        monkeypatch.setattr("msr_enhance.meta.gen._KEPT_NUMBERS", most)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.__setitem__(-1, kept[-1] + t.numel()) or t, lambda t: t
        ):
            y = layer.grouped(x, z, groups)
        results.append(torch.autograd.grad(y.square().sum(), [x, layer.weight]))
    assert kept[0] - kept[1] == 5 * 6 * 4
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_mixing_where_few_rows_share_a_key_and_making_where_many_do() -> None:
    assert not crossover(1.15, 16)
    assert not crossover(1.15, 64)
    assert not crossover(4, 4)
    assert not crossover(500, 0)
    assert crossover(4, 16)
    assert crossover(32, 4)
    assert crossover(2.3, 64)
