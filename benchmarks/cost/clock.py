"""Two ways take turns on the same work, and what counts is the median of the ratios of neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Way = Callable[[int], Any]


def paired(ways: Mapping[str, Way], pairs: int, repeat: int, device: str) -> dict[str, list[float]]:
    """Seconds of each way in each round, all ways in each round, in turning order.

    CPU time of this process (one thread); elapsed time of a GPU, waited for.

    Args:
        ways: What is timed; called with the number of the batch.
        pairs: Rounds.
        repeat: Calls of one timing, on batches that follow each other.
        device: Where it runs.
    """
    for way in ways.values():
        for number in range(2):
            way(number)
    names, seconds = list(ways), {name: [] for name in ways}  # type: dict[str, list[float]]
    for turn in range(pairs):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            seconds[name].append(timed(ways[name], turn, repeat, device))
    return seconds


def timed(way: Way, turn: int, repeat: int, device: str) -> float:
    """Seconds of one call."""
    if device == "cpu":
        start = time.process_time()
        for number in range(repeat):
            way(turn * repeat + number)
        return (time.process_time() - start) / repeat
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for number in range(repeat):
        way(turn * repeat + number)
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / repeat


def quartiles(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of paired ratios."""
    low, middle, high = np.quantile(np.array(above) / np.array(below), [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def peak_memory(work: Callable[[], Any], device: str) -> int:
    """Bytes that torch held at most during some work, more than before it.

    On a CPU from the allocations and frees that `torch.profiler` records (`profile_memory=True`).
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(max(np.cumsum([event.nbytes() for event in events]), default=0))
