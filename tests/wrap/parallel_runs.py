"""What each of two processes does in the distributed tests: a module that spawn can find."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from zoo import NAMED, shaken
from zoo_case import raw

from msr_enhance.wrap.model import EnhancedModel

ROWS, WORLD = 32, 2


def model_of(name: str, placement: dict[str, Any] | None = None) -> EnhancedModel:
    case = NAMED[name]
    return shaken(case.enhanced(case.backbone(), placement=placement)).eval()


def step(model: nn.Module, data: dict[str, Tensor]) -> Tensor:
    """A step; the loss is a mean, so that the mean over equal halves is that of the whole."""
    loss = nn.functional.binary_cross_entropy_with_logits(model(data), (data["user"] % 2).float())
    loss.backward()
    return loss


def half(rank: int) -> dict[str, Tensor]:
    size = ROWS // WORLD
    return {name: value[rank * size : (rank + 1) * size] for name, value in raw(ROWS).items()}


def joined(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )


def replicated(rank: int, folder: str, name: str, placement: dict[str, Any] | None) -> None:
    from torch.nn.parallel import DistributedDataParallel

    joined(rank, folder)
    try:
        model = model_of(name, placement)
        wrapped = DistributedDataParallel(model)
        sent = {id(buffer) for buffer in wrapped.modules_buffers}
        known = [name for name, buffer in model.named_buffers() if id(buffer) in sent]
        if any(not name.startswith("backbone.") for name in known):
            raise AssertionError(f"knowledge is sent at every step: {known}")
        for _ in range(2):  # the second finds out if a parameter was not used in the first
            wrapped.zero_grad()
            step(wrapped, half(rank))
        grads = {key: weight.grad.to_dense().contiguous() for key, weight in model.named_parameters()}
        save_file(grads, Path(folder, f"{rank}.safetensors"))
        dist.barrier()  # or one may leave while the other still needs it
    finally:
        dist.destroy_process_group()


def sharded(rank: int, folder: str, name: str, placement: dict[str, Any] | None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    joined(rank, folder)
    try:
        model, mesh = model_of(name, placement), init_device_mesh("cpu", (WORLD,))
        for branch in model.meta.children():
            fully_shard(branch, mesh=mesh)
        fully_shard(model.backbone.deep, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.SGD(model.parameter_groups(0.1))
        step(model, half(rank))
        grads = {key: weight.grad.full_tensor() for key, weight in model.named_parameters()}
        optimizer.step()
        with torch.no_grad():
            after = {"scores after a step": model(raw(ROWS))}
        save_file(
            {k: v.contiguous() for k, v in (grads | after).items()}, Path(folder, f"{rank}.safetensors")
        )
        dist.barrier()
    finally:
        dist.destroy_process_group()
