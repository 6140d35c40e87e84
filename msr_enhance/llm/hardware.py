"""How fast a device is in one dtype: products, memory and the start of an operation, measured in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from msr_enhance.errors import ModelError, not_one_of

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LARGEST = {"cpu": 2048, "cuda": 8192}
_COPIED = {"cpu": 1 << 26, "cuda": 1 << 30}  # more than a cache holds


@dataclass(frozen=True)
class Hardware:
    """Measured speed of one device in one dtype.

    Attributes:
        device: For example ``cpu`` or ``cuda``.
        dtype: What the products were measured in.
        flops: Floating-point operations a second of a dense product (a multiply-add counts as two).
        bandwidth: Bytes a second of device memory, read and written bytes both counted.
        launch: Seconds that starting one small operation takes, however little it computes.
    """

    device: str
    dtype: str
    flops: float
    bandwidth: float
    launch: float


def default_device(device: str | None) -> str:
    """The device a reader runs on: the one asked for, else a GPU when there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def usable_device(device: str | None) -> torch.device:
    """The device a reader runs on, proven usable before gigabytes are read for it.

    Raises:
        ModelError: The device cannot be used.
    """
    name = default_device(device)
    try:
        place = torch.device(name)
        torch.zeros(1, device=place)
        return place
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"Cannot use device {name!r}: {str(error).splitlines()[0]} "
            "Write --device cpu, or cuda where there is one."
        ) from error


def default_dtype(dtype: str | None, device: str, own: object = None) -> str:
    """The dtype a reader runs in: the one asked for, else float32 on a CPU and the model's own on a GPU.

    Args:
        dtype: What was asked for.
        device: Where the model runs.
        own: The dtype that the model's configuration names.

    Raises:
        ModelError: The dtype is not known, or is float16 on a CPU.
    """
    if dtype is not None and dtype not in BYTES:
        raise ModelError(not_one_of("dtype", dtype, BYTES, "Write --dtype float32."))
    if dtype == "float16" and device.startswith("cpu"):
        raise ModelError(
            "float16 on a CPU is many times slower than float32 and overflows; write --dtype float32, "
            "or bfloat16 to halve the memory."
        )
    if dtype is not None:
        return dtype
    named = str(own or "float32").removeprefix("torch.")
    return "float32" if device.startswith("cpu") or named not in BYTES else named


def measure(device: str = "cpu", dtype: str = "float32", *, width: int = 2048) -> Hardware:
    """Measure a device, in under a second on most machines.

    Of several runs the best counts. On a busy machine two measurements may still differ by a factor of 2.

    Args:
        device: A torch device.
        dtype: One of `BYTES`.
        width: Inner size of the product, a model's hidden size; narrow products are slower.

    Returns:
        The speeds; on a CPU those of torch's present number of threads.

    Raises:
        ModelError: The device cannot be used.
    """
    place = usable_device(device)
    with torch.inference_mode():
        return Hardware(
            device=device,
            dtype=dtype,
            flops=_flops(place, getattr(torch, dtype), width),
            bandwidth=_bandwidth(place),
            launch=_launch(place),
        )


def _flops(place: torch.device, dtype: torch.dtype, width: int, patience: float = 0.05) -> float:
    """Rate of the largest product that takes less than `patience` or is as large as a model's.

    A large product outlasts the slices in which a system gives a core to others: on a busy machine it
    shows the rate that a long run will get.
    """
    rate, side = 0.0, 64
    largest = _LARGEST.get(place.type, 2048)
    # Some dtypes are a hundred times slower on some devices: begin small, so that it is seen in time.
    while side <= largest:
        inner = min(side, width)
        left = torch.full((side, inner), 0.5, dtype=dtype, device=place)
        right = torch.full((min(side, 4 * width), inner), 0.5, dtype=dtype, device=place)
        taken = _best(partial(torch.nn.functional.linear, left, right), place, patience)
        rate = 2 * left.shape[0] * right.shape[0] * inner / taken
        if taken > patience / 2:
            break
        side *= 2
    return rate


def _bandwidth(place: torch.device) -> float:
    size = _COPIED.get(place.type, 1 << 28)
    while True:
        try:
            source = torch.ones(size, dtype=torch.uint8, device=place)
            target = torch.empty_like(source)
            break
        except RuntimeError:  # little memory is free; a smaller copy still says something
            size //= 4
            if size < 1 << 20:
                raise
    return 2 * size / _best(lambda: target.copy_(source), place, 0.08)


def _launch(place: torch.device) -> float:
    norm = torch.nn.RMSNorm(16, device=place)
    row = torch.ones(1, 16, device=place)

    def several() -> None:
        for _ in range(50):
            norm(row + row)

    return _best(several, place, 0.03) / 100


def _best(work: Callable[[], object], place: torch.device, patience: float) -> float:
    """Seconds of the fastest run; runs for about `patience` seconds, twice at least."""

    def once() -> float:
        started = time.perf_counter()
        work()
        if place.type != "cpu":
            torch.accelerator.synchronize(place)
        return time.perf_counter() - started

    fastest, spent, runs = once(), 0.0, 0  # the first run also warms up, yet a very slow one may be the only
    while runs < 2 or spent < patience:
        if runs and spent + fastest > 4 * patience:
            break
        taken = once()
        fastest, spent, runs = min(fastest, taken), spent + taken, runs + 1
        if taken > 4 * patience:
            break
    return max(fastest, 1e-9)
