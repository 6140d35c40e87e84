from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from msr_enhance.errors import TrainingError
from msr_enhance.train.blocks import UserBlocks


def log(rows: int = 997, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(40, size=rows), draw.integers(3, size=rows)


def runs(users: np.ndarray, scenarios: np.ndarray) -> list[tuple[int, int, int]]:
    """Neighbouring rows of one user and scenario: who, where, how many."""
    found: list[list[int]] = []
    for user, scenario in zip(users.tolist(), scenarios.tolist(), strict=True):
        if found and found[-1][:2] == [user, scenario]:
            found[-1][2] += 1
        else:
            found.append([user, scenario, 1])
    return [tuple(run) for run in found]


@pytest.mark.parametrize("block", [1, 8, None])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_in_batches_of_the_size(block: int | None, shuffle: bool) -> None:
    users, scenarios = log()
    sampler = UserBlocks(users, scenarios, batch_size=64, block=block, shuffle=shuffle)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [64] * 15 + [37]
    assert len(sampler) == 16
    assert sorted(row for batch in batches for row in batch) == list(range(997))


def test_a_block_is_one_user_in_one_scenario_and_full_where_it_can_be() -> None:
    users, scenarios = log(3000)
    order = np.concatenate(list(UserBlocks(users, scenarios, batch_size=64, block=8)))
    found = runs(users[order], scenarios[order])
    pairs = dict.fromkeys(zip(users, scenarios, strict=True), 0)
    assert len(found) < 3000 / 4  # 25 rows a pair: three blocks of 8 and one of 1, some of them neighbours
    for user, scenario, rows in found:
        pairs[user, scenario] += rows
    assert all(rows == ((users == u) & (scenarios == s)).sum() for (u, s), rows in pairs.items())
    rho = np.mean(
        [64 / len(set(users[batch])) for batch in UserBlocks(users, scenarios, batch_size=64, block=8)]
    )
    shuffled = np.mean(
        [64 / len(set(users[b])) for b in UserBlocks(users, scenarios, batch_size=64, block=1)]
    )
    assert rho > 3 * shuffled


def test_each_pass_draws_another_order_and_a_seed_repeats_it() -> None:
    users, scenarios = log()
    one, twin = (UserBlocks(users, scenarios, batch_size=64, block=8, seed=3) for _ in range(2))
    first, second = list(one), list(one)
    assert first != second
    assert list(twin) == first
    assert list(UserBlocks(users, scenarios, batch_size=64, block=8, seed=4)) != first


def test_sorted_rows_come_by_scenario_and_user() -> None:
    users, scenarios = log()
    order = np.concatenate(list(UserBlocks(users, scenarios, batch_size=64, shuffle=False)))
    assert (np.diff(scenarios[order] * 1000 + users[order]) >= 0).all()


def test_it_is_the_batch_sampler_of_a_loader() -> None:
    users, scenarios = log(100)
    loader = DataLoader(
        TensorDataset(torch.arange(100)),
        batch_sampler=UserBlocks(torch.from_numpy(users), scenarios, batch_size=32, block=4),
    )
    rows = torch.cat([batch[0] for batch in loader])
    assert sorted(rows.tolist()) == list(range(100))


def test_no_rows_and_mistakes() -> None:
    assert list(UserBlocks([], batch_size=4)) == []
    with pytest.raises(TrainingError, match="one of each a row"):
        UserBlocks([1, 2], [1], batch_size=4)
    with pytest.raises(TrainingError, match="block=0"):
        UserBlocks([1, 2], batch_size=4, block=0)
