"""What an extraction takes: time, memory and disk, as far as they can be known without weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msr_enhance import machine
from msr_enhance.cli.job import ExtractJob
from msr_enhance.cli.prompt_sample import AT_ONCE, PromptSample
from msr_enhance.cli.reader_outline import ReaderOutline
from msr_enhance.llm import builtin
from msr_enhance.llm.estimate import WITHIN, Forecast, ModelSize, forecast, tokens_at_once
from msr_enhance.llm.hardware import Hardware, default_device, default_dtype, measure
from msr_enhance.llm.outline import Outline
from msr_enhance.llm.token_budget import planned
from msr_enhance.llm.weightless import Weightless

_PREFILL = {"cpu": 2_048, "cuda": 32_768}  # tokens that go through the layers at once


def costs(job: ExtractJob, reader: ReaderOutline, sample: PromptSample) -> dict[str, Any]:
    """Estimate a run.

    Args:
        job: The options of `extract`.
        reader: What is known of the reader.
        sample: Written prompts; they stand for all.

    Returns:
        ``time``, ``memory`` and ``disk`` as plain JSON; None where unknown.

    Raises:
        ModelError: The device cannot be used.
    """
    found: dict[str, Any] = {"time": None, "memory": None, "disk": None}
    if reader.known is not None and reader.tokens is not None and job.server is None:
        found |= _of_model(job, reader.known, reader.tokens, sample)
    if reader.shape is not None:
        answer = 0.0 if reader.tokens is None else _answer_bytes(reader.tokens, sample)
        disk = machine.free_disk(job.out)
        found["disk"] = {
            "bytes": [sample.store_bytes(reader.shape, 0.0), sample.store_bytes(reader.shape, answer)],
            "free": disk and disk[1],
        }
    return found


def _of_model(job: ExtractJob, known: Outline, tokens: Weightless, sample: PromptSample) -> dict[str, Any]:
    """Time and memory on the device that would be used, measured now."""
    size = ModelSize.of(known.config, known.parameters())
    device = default_device(job.device)
    own = None if known.name == builtin.NAME else getattr(known.config, "dtype", None)
    dtype = default_dtype(job.dtype, device, own)
    speed = measure(device, dtype, width=size.hidden)
    memory = machine.memory_of(device)
    budget = job.tokens_per_batch or tokens_at_once(size, dtype, device, memory and memory[0])
    run, largest = _time(tokens, sample, size, speed, budget)
    needs = size.memory_bytes(dtype, largest, min(largest, _PREFILL.get(device.partition(":")[0], 2_048)))
    found: dict[str, Any] = {
        "memory": {
            "bytes": needs,
            "weights": size.weight_bytes(dtype),
            "free": memory and memory[1],
            "fits": None if memory is None else needs <= memory[1],
        }
    }
    if job.state != "token-mean":
        found["time"] = {
            "seconds": [run.ending_at_once, run.full_length],
            "within_factor": WITHIN,
            "batches": run.batches,
            "speed": vars(speed),
        }
    return found


def _time(
    tokens: Weightless, sample: PromptSample, size: ModelSize, speed: Hardware, budget: int
) -> tuple[Forecast, int]:
    """Time of all prompts, and the tokens of the largest batch; batches are planned as in the run."""
    from msr_enhance.llm.cache import common_prefix

    least = most = 0.0
    batches = largest = 0
    for count, drafts in ((sample.scenarios, sample.of_scenarios), (sample.users, sample.of_users)):
        encoded = [tokens.ids(draft.prompt) for draft in drafts if draft.asks and draft.prompt is not None]
        plan: list[Sequence[int]] = []
        for start in range(0, len(encoded), AT_ONCE):
            lengths = [len(ids) for ids in encoded[start : start + AT_ONCE]]
            plan += [[lengths[at] for at in rows] for rows in planned(lengths, tokens.new_tokens, budget)]
        if not plan:
            continue
        largest = max(largest, *(len(rows) * (max(rows) + tokens.new_tokens) for rows in plan))
        part = forecast(
            size,
            speed,
            plan,
            new_tokens=tokens.new_tokens,
            scale=count / len(drafts),
            shared_tokens=len(common_prefix(encoded)),
        )
        least, most = least + part.ending_at_once, most + part.full_length
        batches += part.batches
    return Forecast(least, most, batches), largest


def _answer_bytes(tokens: Weightless, sample: PromptSample) -> float:
    """Bytes of a full-length answer, if its tokens are as long as those of the prompts."""
    prompts = [draft.prompt for draft in sample.of_users if draft.prompt is not None]
    counted = sum(tokens.count_tokens(prompts))
    written = sum(len(prompt.encode("utf-8", "replace")) for prompt in prompts)
    return tokens.new_tokens * written / counted if counted else 0.0
