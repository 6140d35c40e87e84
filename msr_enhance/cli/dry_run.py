"""`extract --dry-run`: what would be asked, how long it takes and what it fills; no weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from msr_enhance import machine
from msr_enhance.cli.job import ExtractJob
from msr_enhance.cli.output import emit, say, show
from msr_enhance.cli.prompt_sample import PromptSample
from msr_enhance.cli.read_log import divide, read_log
from msr_enhance.cli.reader_outline import ReaderOutline
from msr_enhance.cli.run_costs import costs
from msr_enhance.extract.draft import Draft
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import highest_version

MOST = 2_000
"""Prompts that are written and counted; where there are more, as many evenly spaced ones."""

_BARS, _LINES, _LINE = 10, 12, 160
_QUANTILES = {"min": 0, "10%": 10, "50%": 50, "90%": 90, "99%": 99, "max": 100}


def run(job: ExtractJob, as_json: bool) -> None:
    """Print what `extract` would do.

    Args:
        job: The options of `extract`.
        as_json: One JSON object on stdout and nothing else.

    Raises:
        MsrEnhanceError: As the extraction itself would, as far as log, templates, configuration and
            tokenizer are concerned.
    """
    job.check()
    table = read_log(job.data, job.column, job.items)
    split = divide(table, job.split, job.protocol, job.cutoff)
    reader = ReaderOutline.of(job, table)
    sample = PromptSample.of(job, table, split, reader.llm, MOST)
    data: dict[str, Any] = {
        "dry_run": True,
        "model": reader.facts,
        "prompts": {"scenario": sample.scenarios, "user": sample.users, "without_history": sample.silent},
        "written": {"scenario": len(sample.of_scenarios), "user": len(sample.of_users)},
        "tokens": _tokens(reader, sample),
        "done_already": _done(job),
        **costs(job, reader, sample),
        "unknown": reader.unknown,
        "first_prompts": [
            {"id": draft.id, "status": draft.status, "tokens": _count(reader, draft), "prompt": draft.prompt}
            for draft in sample.first
        ],
    }
    if job.refresh or job.retry_failed:
        say("note: the estimate is for reading everything; --refresh and --retry-failed read less")
    if as_json:
        emit(data)
    else:
        _tell(data)


def _count(reader: ReaderOutline, draft: Draft) -> int | None:
    if reader.tokens is None or draft.prompt is None:
        return None
    return reader.tokens.count_tokens([draft.prompt])[0]


def _tokens(reader: ReaderOutline, sample: PromptSample) -> dict[str, Any] | None:
    """Lengths of the user prompts as they would be sent, and how many were shortened for it."""
    counts = [count for draft in sample.of_users if (count := _count(reader, draft)) is not None]
    if not counts:
        return None
    tall, edges = np.histogram(counts, bins=_BARS, range=(min(counts), max(counts) + 1))
    states = [draft.status for draft in sample.of_users]
    return {
        "counted": len(counts),
        "mean": round(float(np.mean(counts)), 1),
        "quantiles": {name: int(np.percentile(counts, at)) for name, at in _QUANTILES.items()},
        "histogram": [
            {"from": int(np.ceil(low)), "below": int(np.ceil(high)), "prompts": int(count)}
            for low, high, count in zip(edges, edges[1:], tall, strict=False)
        ],
        "shortened": states.count("truncated"),
        "refused": states.count("failed"),
    }


def _done(job: ExtractJob) -> int | None:
    """Users that the store at `--out` holds already; None without one."""
    if not job.out.is_dir() or not highest_version(job.out):
        return None
    store = KnowledgeStore.load(job.out, verify=False)
    return len(store.ids("user")) if "user" in store.levels else 0


def _tell(data: dict[str, Any]) -> None:
    counts, written = data["prompts"], data["written"]["user"]
    show(
        "model: " + ", ".join(f"{name} {value}" for name, value in data["model"].items() if value is not None)
    )
    show(
        f"prompts: {counts['scenario']:,} of scenarios, {counts['user']:,} of users; "
        f"{counts['without_history']:,} users without a history are not asked about"
    )
    if data["done_already"] is not None:
        show(f"out: holds {data['done_already']:,} users already; the figures here are for all")
    if written < counts["user"]:
        show(f"sample: {written:,} of {counts['user']:,} user prompts, evenly spaced, stand for all")
    if (tokens := data["tokens"]) is not None:
        said = ", ".join(f"{name} {value:,}" for name, value in tokens["quantiles"].items())
        show(f"tokens of a user prompt: mean {tokens['mean']:,}, {said}")
        show("\n".join(_bars(tokens["histogram"])))
        show(
            f"over the window of the model: {tokens['shortened']:,} of {tokens['counted']:,} lose old "
            f"interactions, {tokens['refused']:,} cannot be sent"
        )
    if (time := data["time"]) is not None:
        low, high = (machine.time_text(seconds) for seconds in time["seconds"])
        speed = time["speed"]
        show(
            f"time: {low} if every answer ends at once, {high} if every answer has full length; an estimate, "
            f"within a factor of {time['within_factor']:g}, from {speed['flops'] / 1e9:,.0f} GFLOP/s and "
            f"{speed['bandwidth'] / 1e9:,.0f} GB/s just measured ({speed['device']}, {speed['dtype']}); "
            f"{time['batches']:,} batches of one worker; loading the model comes on top"
        )
    if (memory := data["memory"]) is not None:
        free = "unknown" if memory["free"] is None else machine.size_text(memory["free"])
        verdict = "" if memory["fits"] is not False else ": does not fit"
        show(
            f"memory: about {machine.size_text(memory['bytes'])} ({machine.size_text(memory['weights'])} of "
            f"weights), {free} free{verdict}"
        )
    if (disk := data["disk"]) is not None:
        low, high = (machine.size_text(size) for size in disk["bytes"])
        said = low if low == high else f"{low} without answers, {high} with full-length ones"
        free = "unknown" if disk["free"] is None else machine.size_text(disk["free"])
        show(f"disk: about {said}; {free} free")
    for unknown in data["unknown"]:
        show(f"unknown: {unknown}")
    for first in data["first_prompts"]:
        size = "" if first["tokens"] is None else f", {first['tokens']:,} tokens"
        show(f"\nprompt of user {first['id']}{size}:\n{_start(str(first['prompt']))}")
    say("dry run: nothing was read by a model and nothing was written")


def _bars(histogram: Sequence[dict[str, int]]) -> list[str]:
    tallest = max(bar["prompts"] for bar in histogram)
    width = len(f"{histogram[-1]['below']:,}")
    return [
        f"  {bar['from']:>{width},} to {max(bar['from'], bar['below'] - 1):>{width},}  "
        f"{'#' * -(-40 * bar['prompts'] // tallest):<40}  {bar['prompts']:,}"
        for bar in histogram
    ]


def _start(prompt: str) -> str:
    lines = prompt.split("\n")
    cut = [line if len(line) <= _LINE else f"{line[:_LINE]} ... ({len(line):,} characters)" for line in lines]
    more = [f"... ({len(lines) - _LINES:,} more lines)"] if len(lines) > _LINES else []
    return "\n".join([*cut[:_LINES], *more])
