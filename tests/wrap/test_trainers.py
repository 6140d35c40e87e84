"""Training loops that others wrote: Lightning's and accelerate's, unchanged."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from zoo import NAMED
from zoo_case import raw

from msr_enhance.wrap.model import EnhancedModel

CASE = NAMED["batch norm"]


def rows(count: int = 96) -> list[dict[str, Tensor]]:
    data = raw(count)
    return [
        {name: value[row] for name, value in data.items()} | {"label": (data["user"][row] % 2).float()}
        for row in range(count)
    ]


def loader() -> DataLoader[Any]:
    return DataLoader(rows(), batch_size=32, shuffle=False)  # type: ignore[arg-type]


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch), batch["label"])


def learned(model: EnhancedModel, before: dict[str, Tensor]) -> bool:
    """Whether backbone and generated layers have both moved."""
    after = model.state_dict()
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    return any(n.startswith("backbone.users") for n in moved) and any(
        n.startswith("meta.user.layers") for n in moved
    )


@pytest.mark.filterwarnings("ignore")  # Lightning's own, of many kinds
def test_lightning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = CASE.enhanced(CASE.backbone())
            self.losses: list[float] = []

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            loss = loss_of(self.model, batch)
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.model.parameter_groups(0.03, weight_decay=0.01))

    task = Task()
    before = copy.deepcopy(task.model.state_dict())
    trainer = lightning.Trainer(
        max_epochs=6, accelerator="cpu", devices=1, logger=False, enable_checkpointing=True,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, loader())
    assert sum(task.losses[-3:]) < sum(task.losses[:3]) - 0.1
    assert learned(task.model, before)
    saved = tmp_path / "weights.ckpt"
    trainer.save_checkpoint(saved, weights_only=True)
    state = torch.load(saved, weights_only=True)["state_dict"]
    other = Task()
    other.load_state_dict(state)
    assert torch.equal(other.model.eval()(raw()), task.model.eval()(raw()))


@pytest.mark.filterwarnings("ignore")  # accelerate's own
def test_accelerate(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, mixed_precision="no")
    torch.manual_seed(0)
    made = CASE.enhanced(CASE.backbone())
    before = copy.deepcopy(made.state_dict())
    model, optimizer, data = accelerator.prepare(
        made, torch.optim.Adam(made.parameter_groups(0.03)), loader()
    )
    losses = []
    for _ in range(6):
        for batch in data:
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.1
    trained = accelerator.unwrap_model(model)
    assert trained is made
    assert learned(trained, before)
    accelerator.save_model(model, tmp_path, safe_serialization=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
