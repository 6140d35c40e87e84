"""The enhanced model: the user's backbone, untouched, with generated layers around it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.branch import Branch
from msr_enhance.wrap.keys import KeyIndex, KeySource, find_key
from msr_enhance.wrap.tap import TapCall, find_tap, leave, listen

# Two levels at the bottom run scenario first, then user (`notes/mission.md`, ambiguity 13).
LEVELS = ("scenario", "user")
Output = Literal["logit", "probability"]
_disabled = threading.local()


class EnhancedModel(nn.Module):
    """A backbone with generated layers; made by `enhance()`, called exactly like the backbone.

    Attributes:
        backbone: The module that was given, with its own state_dict keys.
        meta: The branches, by level.
    """

    def __init__(
        self,
        backbone: nn.Module,
        branches: Mapping[str, Branch],
        indexes: Mapping[str, KeyIndex],
        keys: Mapping[str, KeySource],
        tap: str,
        output: Output,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.meta = nn.ModuleDict(dict(branches))
        self.index = nn.ModuleDict(dict(indexes))
        self.tap, self.output = tap, output
        self._keys = dict(keys)
        listen(find_tap(backbone, tap))

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches of `meta`, typed."""
        return cast("dict[str, Branch]", dict(self.meta.items()))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The backbone's output for the same arguments, in the same form, with knowledge fused in.

        Raises:
            EnhanceError: The tap did not fire, or a key is not among the arguments.
            UnknownIdError: An unknown scenario.
        """
        if id(self) in getattr(_disabled, "models", ()):
            return self.backbone(*args, **kwargs)
        branches = self.branches
        rows: dict[str, Tensor] = {
            level: self.index[level](find_key(self._keys[level], self.backbone, args, kwargs))
            for level in branches
        }

        def change(flat: Tensor) -> Tensor:
            for level in branches:
                rows[level] = rows[level].to(flat.device)
                if len(rows[level]) != len(flat):
                    raise EnhanceError(
                        f"{len(rows[level])} {level} keys for a batch of {len(flat)} rows at tap "
                        f"{self.tap!r}; allowed: one key a row."
                    )
            for level in LEVELS:
                if level in branches and branches[level].place == "bottom":
                    flat = branches[level].reshape(flat, rows[level])
            return flat

        with TapCall(self.tap, self.backbone.get_submodule(self.tap), change) as call:
            result = self.backbone(*args, **kwargs)
        embedding = call.seen()
        for level in reversed(LEVELS):
            if level in branches and branches[level].place == "parallel":
                result = self._mix(branches[level], result, embedding, rows[level])
        return result

    def _mix(self, branch: Branch, result: Any, embedding: Tensor, rows: Tensor) -> Tensor:
        """Add one parallel branch, in logit space, whatever the backbone returns."""
        if not isinstance(result, Tensor) or result.numel() != len(rows):
            what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise EnhanceError(
                f"The backbone returned {what} for {len(rows)} rows; allowed: [batch] or [batch, 1]. "
                "Wrap it so that forward returns one number a row."
            )
        flat = result.reshape(-1)
        if self.output == "logit":
            return branch.mix(flat, embedding, rows).reshape(result.shape)
        if branch.config.fidelity == "paper":
            logit = torch.logit(flat, eps=torch.finfo(flat.dtype).eps)
            return torch.sigmoid(branch.mix(logit, embedding, rows)).reshape(result.shape)
        shift = branch.mix(torch.zeros_like(flat), embedding, rows)
        return shifted_probability(flat, shift).reshape(result.shape)

    @contextmanager
    def disabled(self) -> Iterator[EnhancedModel]:
        """The plain backbone's output, for the time of the block, in this thread."""
        before = getattr(_disabled, "models", ())
        _disabled.models = (*before, id(self))
        try:
            yield self
        finally:
            _disabled.models = before

    def unwrap(self) -> nn.Module:
        """The backbone as it was given (with the weights it has learned since), without our hook."""
        leave(find_tap(self.backbone, self.tap))
        return self.backbone

    def alphas(self) -> dict[str, float]:
        """The mixing weight of each parallel branch, by level."""
        found = {level: branch.alpha for level, branch in self.branches.items()}
        return {level: alpha.detach().item() for level, alpha in found.items() if alpha is not None}

    def parameter_groups(
        self, lr: float, meta_factor: float = 0.3, weight_decay: float = 0.0
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: backbone, generated layers, alpha.

        Args:
            lr: Learning rate of the backbone.
            meta_factor: The generated layers learn at `lr * meta_factor` (0.3 to 1 measured best).
            weight_decay: Of backbone and generated layers; never of alpha, which it would pull to 0.
        """
        alphas = [branch.alpha for branch in self.branches.values() if branch.alpha is not None]
        taken = {id(alpha) for alpha in alphas}
        layers = [weight for weight in self.meta.parameters() if id(weight) not in taken]
        return [
            {"params": list(self.backbone.parameters()), "lr": lr, "weight_decay": weight_decay},
            {"params": layers, "lr": lr * meta_factor, "weight_decay": weight_decay},
            {"params": alphas, "lr": lr, "weight_decay": 0.0},
        ]


def shifted_probability(probability: Tensor, shift: Tensor) -> Tensor:
    """`sigmoid(logit(p) + shift)` without the logit: exact at p = 0 and 1, and equal to p for shift 0.

    Clipping p back to a logit would lose the gradient of saturated rows.
    """
    small = torch.exp(-shift.abs()).clamp(min=torch.finfo(shift.dtype).tiny)
    up = probability / (probability + (1 - probability) * small)
    down = probability * small / (probability * small + (1 - probability))
    return torch.where(shift >= 0, up, down)
