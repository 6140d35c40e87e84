"""Fit any module on rows in memory; knows nothing of language models."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from msr_enhance.errors import TrainingError
from msr_enhance.train.metrics import ScenarioScore, mean_auc, scenario_scores

ParameterGroups = Callable[[nn.Module, float], list[dict[str, Any]]]
Mixing = Callable[[], Mapping[str, float | list[float]]]


@dataclass(frozen=True)
class Rows:
    """Rows of one part as tensors.

    Attributes:
        inputs: What the model is called with; every tensor is `[rows, ...]`.
        labels: `[rows]` float32, 0 or 1.
        scenario: `[rows]`, position of each row's scenario in `names`.
        names: Scenario names.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    scenario: npt.NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Inputs and labels of `size` rows at a time, in the given order."""
        for start in range(0, len(self), size):
            pick: Any = slice(start, start + size) if order is None else order[start : start + size]
            yield {name: values[pick] for name, values in self.inputs.items()}, self.labels[pick]


@dataclass(frozen=True)
class Settings:
    """How a model is trained; the same for every arm of a comparison.

    Attributes:
        epochs: At most so many passes over the rows.
        patience: Stop after so many epochs without a better validation AUC.
        batch_size: Rows of a step.
        weight_decay: Of AdamW.
        meta_factor: Learning rate of generated layers, as a share of the backbone's.
    """

    epochs: int = 20
    patience: int = 4
    batch_size: int = 1024
    weight_decay: float = 0.1
    meta_factor: float = 0.3


@dataclass
class Fit:
    """What came of a fit: the model is left with its best epoch's weights.

    Attributes:
        validation_auc: Best mean-of-scenarios AUC on the validation rows.
        epoch: The epoch it was reached in; 0 is the model before training.
        seconds: Wall time.
        history: Validation AUC after each epoch, the start first.
        alphas: level → mixing weight after each epoch, the start first; of one task.
    """

    validation_auc: float
    epoch: int
    seconds: float
    history: list[float] = field(default_factory=list)
    alphas: dict[str, list[float]] = field(default_factory=dict)

    def watch(self, auc: float, alphas: Mixing | None) -> None:
        """Note what an epoch left behind."""
        self.history.append(auc)
        for level, alpha in (alphas() if alphas else {}).items():
            if isinstance(alpha, float):
                self.alphas.setdefault(level, []).append(alpha)


def fit(
    model: nn.Module,
    train: Rows,
    validation: Rows,
    *,
    lr: float,
    seed: int,
    settings: Settings,
    groups: ParameterGroups | None = None,
    alphas: Mixing | None = None,
) -> Fit:
    """Train with AdamW and binary cross-entropy; keep the epoch with the best validation AUC.

    Epochs are chosen on validation rows only. Random numbers come from `seed`; the caller's generator
    is put back. Where `alphas` is given, the mixing weights that it returns are noted after each epoch.

    Raises:
        TrainingError: The loss is not finite; names the epoch.
    """
    started = time.perf_counter()
    parameters: Any = groups(model, lr) if groups else [{"params": list(model.parameters()), "lr": lr}]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=settings.weight_decay, fused=True)
    best = Fit(mean_auc(evaluate(model, validation)), 0, 0.0)
    best.watch(best.validation_auc, alphas)
    weights = copy.deepcopy(model.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        for epoch in range(1, settings.epochs + 1):
            _epoch(model, train, optimizer, settings.batch_size, epoch)
            auc = mean_auc(evaluate(model, validation))
            best.watch(auc, alphas)
            if auc > best.validation_auc:
                best.validation_auc, best.epoch = auc, epoch
                weights = copy.deepcopy(model.state_dict())
            elif epoch - best.epoch >= settings.patience:
                break
    model.load_state_dict(weights)
    best.seconds = time.perf_counter() - started
    return best


def _epoch(
    model: nn.Module, rows: Rows, optimizer: torch.optim.Optimizer, batch_size: int, epoch: int
) -> None:
    mode = model.training
    model.train()
    try:
        for inputs, labels in rows.batches(batch_size, torch.randperm(len(rows))):
            loss = functional.binary_cross_entropy_with_logits(model(inputs), labels)
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(
                    f"The loss is {float(loss.detach())} in epoch {epoch}; allowed: finite numbers. "
                    "Write a lower learning rate, or look for NaN among the features."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    finally:
        model.train(mode)


@torch.no_grad()
def logits(model: nn.Module, rows: Rows, batch_size: int = 8192) -> npt.NDArray[np.float32]:
    """Logits `[rows]` in eval mode; the model's mode is put back."""
    mode = model.training
    model.eval()
    try:
        parts = [model(inputs).float().cpu() for inputs, _ in rows.batches(batch_size)]
    finally:
        model.train(mode)
    return torch.cat(parts).numpy()


def evaluate(model: nn.Module, rows: Rows) -> dict[str, ScenarioScore]:
    """AUC and log-loss of each scenario, with counts."""
    return scenario_scores(rows.labels.numpy(), logits(model, rows), rows.scenario, rows.names)
