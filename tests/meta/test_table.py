from __future__ import annotations

import copy

import torch

from msr_enhance.meta.statistics import RawVectors, Statistics, span
from msr_enhance.meta.table import VectorTable


def statistics(
    vectors: torch.Tensor, training: list[bool] | None = None, keep: int | None = None
) -> Statistics:
    among = torch.tensor(training or [True] * len(vectors))
    return Statistics.of(RawVectors.of(vectors), among, keep)


def table(
    vectors: torch.Tensor, training: list[bool] | None = None, keep: int | None = None, **more
) -> VectorTable:
    return VectorTable(RawVectors.of(vectors), statistics(vectors, training, keep), **more)


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
    vectors[1] = 0
    made = table(vectors)
    torch.testing.assert_close(made.mean, vectors[[0, 2, 3]].mean(0))
    assert torch.equal(made(torch.tensor([1, -1])), torch.zeros(2, 3))
    assert made.absent.tolist() == [False, True, False, False, True]


def test_a_single_key_is_not_centred() -> None:
    made = table(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(made(torch.tensor([0])), torch.tensor([[0.6, 0.8]]))


def test_a_zero_norm_stays_zero() -> None:
    made = table(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), keep=2)
    assert torch.equal(made(torch.tensor([0, 1])), torch.zeros(2, 2))


def test_directions_are_those_of_an_svd_in_order() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 6) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1, 0.1])
    rows = table(vectors)(torch.arange(50))
    reference = torch.linalg.svd(rows, full_matrices=False).Vh[:2].T
    ours = statistics(vectors, keep=2).basis
    torch.testing.assert_close((ours.T @ reference).abs(), torch.eye(2), atol=1e-4, rtol=0)


def test_directions_of_a_wide_table() -> None:
    torch.manual_seed(0)
    wide = torch.randn(600, 3) @ torch.randn(3, 1000) + 0.01 * torch.randn(600, 1000)
    rows = table(wide)(torch.arange(600))
    ours = statistics(wide, keep=3).basis
    assert ours.shape == (1000, 3)
    torch.testing.assert_close(ours.T @ ours, torch.eye(3), atol=1e-5, rtol=0)
    assert ((rows @ ours).square().sum() / rows.square().sum()).item() > 0.99
    full = statistics(wide, keep=700).basis  # more than there are rows
    assert full.shape == (1000, 700)
    torch.testing.assert_close(full.T @ full, torch.eye(700), atol=1e-4, rtol=0)


def test_all_directions_keep_every_product() -> None:
    vectors = torch.randn(20, 8) + 1
    whole, turned = table(vectors)(torch.arange(20)), table(vectors, keep=8)(torch.arange(20))
    torch.testing.assert_close(turned @ turned.T, whole @ whole.T, atol=1e-5, rtol=1e-4)


def test_a_few_keys_span_one_direction_less_than_they_are() -> None:
    vectors = torch.randn(4, 300)
    among = torch.ones(4, dtype=torch.bool)
    assert span(RawVectors.of(vectors), among) == 3
    assert span(RawVectors.of(vectors[:1]), among[:1]) == 1
    assert span(RawVectors.of(torch.cat([vectors[:2], vectors[:2]])), among) == 1
    whole, turned = table(vectors)(torch.arange(4)), table(vectors, keep=3)(torch.arange(4))
    torch.testing.assert_close(turned @ turned.T, whole @ whole.T)


def test_blocks_of_a_large_table_are_those_of_a_small_one(monkeypatch) -> None:
    vectors = torch.randn(103, 12) + 2
    whole = table(vectors, keep=5)
    monkeypatch.setattr("msr_enhance.meta.statistics._BLOCK", 10)
    parts = table(vectors, keep=5)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts(torch.arange(103)), whole(torch.arange(103)), atol=1e-4, rtol=1e-3)


def test_raw_vectors_of_a_batch_read_like_rows_of_the_table() -> None:
    vectors = torch.randn(9, 6) + 3
    vectors[4] = 0
    for unknown in ("zero", "learned"):
        made = table(vectors, keep=4, unknown=unknown)
        if made.stranger is not None:
            torch.nn.init.normal_(made.stranger)
        keys = torch.tensor([3, 4, 0, -1])
        raw = torch.cat([vectors[[3, 4, 0]], torch.zeros(1, 6)])
        torch.testing.assert_close(made(raw), made(keys))
        assert bool((made(keys)[[1, 3]] == 0).all()) == (unknown == "zero")


def test_a_checkpoint_holds_the_statistics_and_not_the_store() -> None:
    assert set(table(torch.randn(5, 3)).state_dict()) == {"mean"}
    assert set(table(torch.randn(5, 3), keep=2).state_dict()) == {"mean", "basis"}
    assert set(table(torch.randn(5, 3), learned=True, unknown="learned").state_dict()) == {
        "mean",
        "trained",
        "stranger",
    }


def test_loading_statistics_reads_the_vectors_through_them() -> None:
    vectors = torch.randn(30, 8) + 2
    trained = table(vectors, training=[True] * 10 + [False] * 20, keep=4)
    other = table(vectors, keep=4)
    assert not torch.allclose(other(torch.arange(30)), trained(torch.arange(30)))
    twin = copy.deepcopy(other)
    other.load_state_dict(trained.state_dict())
    torch.testing.assert_close(other(torch.arange(30)), trained(torch.arange(30)))
    assert not torch.allclose(twin(torch.arange(30)), trained(torch.arange(30)))


def test_statistics_stay_exact_when_the_rest_is_turned_to_a_smaller_type() -> None:
    vectors = torch.randn(30, 8) + 2
    made = table(vectors, keep=4, unknown="learned")
    rows, mean = made(torch.arange(30)), made.mean.clone()
    made.to(torch.bfloat16)
    assert (made.mean.dtype, made.basis.dtype, made.rows.dtype) == (
        torch.float32,
        torch.float32,
        torch.bfloat16,
    )
    assert torch.equal(made.mean, mean)
    made._fill()
    assert torch.equal(made.rows[:-1], rows.to(torch.bfloat16))
    assert made.stranger.dtype == torch.bfloat16
