"""A branch as it serves: scenario weights are constants, user weights are made from a small vector."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from msr_enhance.meta.branch import Branch
from msr_enhance.meta.layer import GeneratedLayer
from msr_enhance.meta.mix import mix
from msr_enhance.meta.table import VectorTable
from msr_enhance.wrap.cache import WeightCache

Weights = list[tuple[Tensor, Tensor]]
"""Weight `[inputs, outputs]` and bias `[outputs]` of each layer, for one key."""


class Conditions(nn.Module):
    """Every key's condition, projected once; row -1 is that of an unknown key.

    Shape:
        keys `[batch]` int → `[batch, rank]`.
    """

    rows: Tensor
    absent: Tensor

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        keys, parts = branch.table.keys, []
        self.dim = branch.table.dim
        for start in range(0, keys + 1, 65_536):
            some = torch.arange(start, min(start + 65_536, keys + 1), device=branch.table.absent.device)
            parts.append(branch.condition(torch.where(some == keys, -1, some)))
        self.register_buffer("rows", torch.cat(parts))
        self.register_buffer("absent", branch.table.absent.clone())

    @property
    def keys(self) -> int:
        """Number of keys."""
        return len(self.absent) - 1

    def forward(self, keys: Tensor) -> Tensor:
        """See Shape."""
        return self.rows[keys]


class FrozenBranch(nn.Module):
    """What a trained branch computes in eval mode, with as little as possible left to do.

    Args:
        branch: The trained one; its weights are copied.
        cache: Keeps made weights of users; None makes them for every request.

    Shape:
        As `Branch`: x `[batch, width]`, keys `[batch]`, logits `[batch, tasks]`. Keys `[1]` are one user's
        for all rows.
    """

    def __init__(self, branch: Branch, cache: WeightCache[Weights] | None) -> None:
        super().__init__()
        self.cache, self._count = cache, len(branch.layers)
        self._last_relu = branch.config.fidelity == "paper"
        self._added = branch.place == "bottom" and not self._last_relu
        with torch.no_grad():
            resident = branch.table.keys > 0
            table = Conditions(branch) if resident else copy.deepcopy(branch.table)
            # The table may be large, and of it only the conditions are kept.
            self.inner: Branch = copy.deepcopy(branch, {id(branch.table): table})
            if resident:
                self.inner.projection = None
            if branch.few:
                for number, layer in enumerate(self.inner.generated):
                    weight, bias = layer.made(table.rows)
                    self.register_buffer(f"weight_{number}", weight)
                    self.register_buffer(f"bias_{number}", bias)
        self.eval().requires_grad_(False)
        # Now, and not while the first request waits.
        self._digested = None if cache is None else self._digest()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._digested = None
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._digested = None

    @property
    def version(self) -> str:
        """SHA-256 of everything that made weights depend on."""
        if self._digested is None:
            self._digested = self._digest()
        return self._digested

    @property
    def table(self) -> Conditions | VectorTable:
        """What is known of the keys."""
        return cast("Conditions | VectorTable", self.inner.table)

    def forward(
        self, x: Tensor, keys: Tensor, logits: Tensor | None = None, scaled: Tensor | None = None
    ) -> Tensor:
        """As `Branch.forward`."""
        made = self._generate(self.scaled(x) if scaled is None else scaled, keys)
        if self._added and made.dtype == x.dtype:
            return made.add_(x)
        return self.inner.joined(x, made, logits)

    def scaled(self, x: Tensor) -> Tensor:
        """As `Branch.scaled`."""
        return self.inner.scaled(x)

    def _generate(self, scaled: Tensor, keys: Tensor) -> Tensor:
        rows, few = not keys.is_floating_point(), self.inner.few
        eager = rows and scaled.device.type == "cpu" and not torch.compiler.is_compiling()
        if keys.shape[0] == 1:
            return self._run(scaled, self._of(int(keys)) if eager else self._weights(keys))
        if eager and keys.numel():
            low, high = keys.aminmax()
            if (key := int(low)) == int(high):
                return self._run(scaled, self._of(key))
        if not rows or not few:
            return self.inner.generate(scaled, keys, scaled)
        return self._split(scaled, keys) if eager else self._picked(scaled, keys)

    def _weights(self, keys: Tensor) -> Weights:
        """Those of one key `[1]`."""
        if self.inner.few:
            return [(weight[keys].squeeze(0), bias[keys].squeeze(0)) for weight, bias in self._constants()]
        z = self.inner.condition(keys)
        made = [layer.made(z) for layer in self.inner.generated]
        return [(weight.squeeze(0), bias.squeeze(0)) for weight, bias in made]

    def _of(self, key: int) -> Weights:
        """Those of one key: constant, cached or made; never rounded to autocast's type."""
        if self.inner.few:
            return [(weight.select(0, key), bias.select(0, key)) for weight, bias in self._constants()]
        if self.cache is None:
            return self._made(key)
        return self.cache.get((self.version, key), lambda: self._made(key))

    def _made(self, key: int) -> Weights:
        """Weights that any later call may use, whatever mode this one is in."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._weights(torch.tensor([key], device="cpu"))

    def _constants(self) -> Weights:
        """Of each layer, weights `[keys + 1, inputs, outputs]` and biases `[keys + 1, outputs]`."""
        held = cast("dict[str, Tensor]", self._buffers)
        return [(held[f"weight_{number}"], held[f"bias_{number}"]) for number in range(self._count)]

    def _run(self, x: Tensor, weights: Weights) -> Tensor:
        """Rows `[batch, width]` through one key's layers."""
        for number, (weight, bias) in enumerate(weights, start=1):
            x = torch.addmm(bias, x, weight)
            if number < self._count or self._last_relu:
                x = x.relu_()
        return x

    def _split(self, x: Tensor, keys: Tensor) -> Tensor:
        """Each key's scaled rows through its own constant weights."""
        ordered, order = torch.sort(keys, stable=True)
        found, sizes = torch.unique_consecutive(ordered, return_counts=True)
        rows = torch.split(x.index_select(0, order), sizes.tolist())
        parts = [self._run(part, self._of(key)) for key, part in zip(found.tolist(), rows, strict=True)]
        made = torch.cat(parts) if parts else self._picked(x, keys)
        return torch.empty_like(made).index_copy(0, order, made)

    def _picked(self, x: Tensor, keys: Tensor) -> Tensor:
        """All keys' weights on every row, and the row's own result: shapes do not depend on the data.

        Keys beyond the table, which only an exported program can be given, get zeros, as in
        `GeneratedLayer.picked`.
        """
        every = self.table.keys + 1
        rows = torch.where(keys < 0, every - 1, keys)
        one_of = rows[:, None] == torch.arange(every, device=keys.device)
        waiting = iter(self._constants())

        def apply(_: GeneratedLayer, x: Tensor) -> Tensor:
            weight, bias = next(waiting)
            return mix(x, one_of.to(x.dtype), weight, bias)

        return self.inner.through(x, apply)

    def _digest(self) -> str:
        digest = hashlib.sha256(self.inner.config.model_dump_json().encode())
        for name, held in [*sorted(self.inner.state_dict().items()), ("", self.table.rows)]:
            digest.update(f"{name} {held.dtype} {tuple(held.shape)}".encode())
            digest.update(memoryview(held.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
        return digest.hexdigest()


@contextmanager
def plainly(branches: Mapping[str, Branch]) -> Iterator[None]:
    """No autocast on the devices of these branches."""
    with ExitStack() as stack:
        for kind in {weight.device.type for branch in branches.values() for weight in branch.parameters()}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
