"""Rows scaled to size 1: the numbers and gradients of torch's own function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from msr_enhance.meta.rms import scaled_rows


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_as_torchs_own(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(rows, 5) * torch.logspace(-4, 3, 7)[:rows, None]).to(dtype)
    if rows == 7:
        x[3] = 0
    weights = torch.randn(rows, 5).to(dtype)
    found: list[list[Tensor]] = []
    for scale in (scaled_rows, lambda x: functional.rms_norm(x, x.shape[1:], eps=1e-6)):
        leaf = x.clone().requires_grad_()
        made = scale(leaf)
        made.backward(weights)
        assert leaf.grad is not None
        found.append([made.detach(), leaf.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scaled_rows(x), found[1][0], rtol=1e-4, atol=1e-6)


def test_its_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(scaled_rows, (x,))
