from __future__ import annotations

import torch

from msr_enhance.meta.table import VectorTable


def table(
    vectors: torch.Tensor, known: list[bool] | None = None, training: list[bool] | None = None
) -> VectorTable:
    every = [True] * len(vectors)
    return VectorTable(vectors, torch.tensor(known or every), torch.tensor(training or every))


def test_centred_over_training_keys_and_scaled_to_norm_one() -> None:
    vectors = torch.randn(6, 4) + 5
    made = table(vectors, training=[True, True, True, False, False, False])
    torch.testing.assert_close(made.mean, vectors[:3].mean(0))
    rows = made(torch.arange(6))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(
        rows[4], torch.nn.functional.normalize(vectors[4] - vectors[:3].mean(0), dim=0)
    )


def test_unknown_rows_and_minus_one_are_zero_and_do_not_move_the_mean() -> None:
    vectors = torch.randn(4, 3)
    made = table(vectors, known=[True, False, True, True])
    torch.testing.assert_close(made.mean, vectors[[0, 2, 3]].mean(0))
    assert torch.equal(made(torch.tensor([1, -1])), torch.zeros(2, 3))


def test_a_single_key_is_not_centred() -> None:
    made = table(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(made(torch.tensor([0])), torch.tensor([[0.6, 0.8]]))


def test_a_zero_norm_stays_zero() -> None:
    made = table(torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    assert torch.equal(made(torch.tensor([0, 1])), torch.zeros(2, 2))
    assert torch.isfinite(made.leading(2)).all()


def test_leading_directions_are_those_of_an_svd() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 6) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1, 0.1])
    made = table(vectors)
    rows = made(torch.arange(50))
    reference = torch.linalg.svd(rows, full_matrices=False).Vh[:2].T
    ours = made.leading(2)
    torch.testing.assert_close((ours.T @ reference).abs(), torch.eye(2), atol=1e-4, rtol=0)


def test_leading_directions_of_a_wide_table() -> None:
    torch.manual_seed(0)
    wide = torch.randn(300, 3) @ torch.randn(3, 1000) + 0.01 * torch.randn(300, 1000)
    made = table(wide)
    rows = made(torch.arange(300))
    ours = made.leading(3)
    assert ours.shape == (1000, 3)
    torch.testing.assert_close(ours.T @ ours, torch.eye(3), atol=1e-5, rtol=0)
    assert ((rows @ ours).square().sum() / rows.square().sum()).item() > 0.99
    full = made.leading(400)
    assert full.shape == (1000, 400)
    torch.testing.assert_close(full.T @ full, torch.eye(400), atol=1e-4, rtol=0)


def test_a_checkpoint_does_not_hold_the_store() -> None:
    assert set(table(torch.randn(5, 3)).state_dict()) == {"mean"}
