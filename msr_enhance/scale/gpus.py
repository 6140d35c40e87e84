"""The GPUs that this process may deal out to its workers."""

from __future__ import annotations

import os


def visible_gpus() -> list[str]:
    """Every GPU as ``CUDA_VISIBLE_DEVICES`` names it; empty without one.

    A list that Slurm or the user has set is kept to: its entries are dealt out as they stand.
    """
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return named[:count] if any(named) else [str(number) for number in range(count)]
