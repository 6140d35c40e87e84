"""Two processes on a CPU equal one: replicated (DDP) and sharded (FSDP2)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from parallel_runs import ROWS, WORLD, model_of, replicated, sharded, step
from safetensors.torch import load_file
from torch import Tensor
from zoo import BOTTOM, PARALLEL
from zoo_case import raw

# One process takes seconds to import torch, so each test looks at much.
runs = [("a dict", PARALLEL), ("the network's input", BOTTOM)]


def together(work: Any, folder: Path, name: str, placement: Any) -> list[dict[str, Tensor]]:
    """What each process found. Once in many runs gloo's processes wait for each other at the end."""
    for turn in range(2):
        place = folder / str(turn)
        place.mkdir()
        running = mp.spawn(work, (str(place), name, placement), nprocs=WORLD, join=False)
        ends = time.monotonic() + 90
        while time.monotonic() < ends:
            if running.join(timeout=5):
                return [load_file(place / f"{rank}.safetensors") for rank in range(WORLD)]
        for process in running.processes:
            process.kill()
    raise TimeoutError("two processes did not end in 90 seconds, twice")


def alone(name: str, placement: Any) -> dict[str, Tensor]:
    model = model_of(name, placement)
    step(model, raw(ROWS))
    grads = {key: weight.grad.clone() for key, weight in model.named_parameters()}
    torch.optim.SGD(model.parameter_groups(0.1)).step()
    with torch.no_grad():
        return grads | {"scores after a step": model(raw(ROWS))}


@pytest.mark.parametrize(("work", "name", "placement"), [(replicated, *runs[0]), (sharded, *runs[1])])
def test_two_processes_have_the_gradients_of_one(
    tmp_path: Path, work: Any, name: str, placement: Any
) -> None:
    expected = alone(name, placement)
    found = together(work, tmp_path, name, placement)
    assert set(found[0]) >= {key for key in expected if key != "scores after a step"}
    assert any("meta." in key and bool(value.ne(0).any()) for key, value in found[0].items())
    for rank in range(WORLD):
        for key, value in found[rank].items():
            torch.testing.assert_close(
                value, expected[key], rtol=1e-4, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )
