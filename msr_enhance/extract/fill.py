"""Fill a level of a store: batch by batch, each one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from msr_enhance.errors import ModelError, Stopped
from msr_enhance.extract.draft import Draft
from msr_enhance.extract.trial import Trial
from msr_enhance.llm.protocol import Answer, FrozenLLM, PlansBatches
from msr_enhance.progress import progress
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.store.numbers import fits
from msr_enhance.store.record import Level, Record
from msr_enhance.store.writer import StoreWriter

Stop = Callable[[], bool]


def fill(
    writer: StoreWriter,
    llm: FrozenLLM,
    level: Level,
    chunks: Iterable[Sequence[Draft]],
    trial: Trial,
    *,
    total: int,
    done: int,
    stop: Stop | None = None,
) -> None:
    """Ask about everything that the store lacks.

    Batches are planned for a whole chunk, what is done included, so that a resumed run has the batches of
    one that was never interrupted. A batch is one commit; rows of a chunk that are not asked about are
    part of its first. Until the reader's first answer failed rows wait in the trial.

    Args:
        writer: The store.
        llm: The reader.
        level: ``user`` or ``scenario``.
        chunks: The drafts, chunk by chunk; chunks that are wholly done may be left out.
        trial: Commits the rows; one for all levels of a run, ended by the caller.
        total: Rows the level is to have.
        done: Those it has.
        stop: Asked before each batch; a true answer ends the run between two commits.

    Raises:
        ModelError: The first users failed, all of them and enough to tell that something is wrong with the
            model or its settings; none was stored. Or the reader breaks its protocol.
        Stopped: `stop` said so.
    """
    known = writer.done(level)
    with progress(f"{level} prompts", total, unit=f"{level}s", done=done) as advance:
        for chunk in chunks:
            for batch in planned(llm, chunk):
                todo = [draft for draft in batch if draft.id not in known]
                if not todo:
                    continue
                if stop is not None and stop():
                    kept = done - trial.waiting(level)
                    raise Stopped(f"stopped with {kept:,} of {total:,} {level}s done; all of them are kept.")
                records = _asked(llm, todo, writer.dtype)
                trial.add(level, records)
                done += len(todo)
                advance(len(todo), sum(record.prompt_tokens + record.answer_tokens for record in records))
            trial.judge(level)


def planned(llm: FrozenLLM, chunk: Sequence[Draft]) -> list[list[Draft]]:
    """The batches of a chunk.

    Args:
        llm: The reader; one that does not plan takes the chunk as one batch.
        chunk: Drafts.

    Returns:
        Every draft once; those that are not asked about are in the first batch. A batch keeps the order
        of the chunk.

    Raises:
        ModelError: The reader's plan does not hold every prompt once.
    """
    asked = [at for at, draft in enumerate(chunk) if draft.asks]
    batches = [asked]
    if asked and isinstance(llm, PlansBatches):
        plan = llm.batches(_prompts([chunk[at] for at in asked]))
        if sorted(place for batch in plan for place in batch) != list(range(len(asked))):
            raise ModelError(f"{type(llm).__name__}.batches must name each of the {len(asked)} prompts once.")
        batches = [[asked[place] for place in batch] for batch in plan if batch]
    batches[0] = batches[0] + [at for at, draft in enumerate(chunk) if not draft.asks]
    return [[chunk[at] for at in sorted(batch)] for batch in batches]


def _asked(llm: FrozenLLM, drafts: Sequence[Draft], dtype: str) -> list[Record]:
    prompts = _prompts([draft for draft in drafts if draft.asks])
    answers = llm.answer(prompts) if prompts else []
    if len(answers) != len(prompts):
        raise ModelError(
            f"{type(llm).__name__}.answer gave {len(answers)} answers to {len(prompts)} prompts; "
            "it must give one for each, in their order."
        )
    waiting = iter(answers)
    return [_record(llm, draft, next(waiting) if draft.asks else None, dtype) for draft in drafts]


def _prompts(drafts: Sequence[Draft]) -> list[Prompt]:
    return [draft.prompt for draft in drafts if draft.prompt is not None]


def _record(llm: FrozenLLM, draft: Draft, answer: Answer | None, dtype: str) -> Record:
    status, facts = draft.status, {} if draft.prompt is None else dict(draft.prompt.facts)
    vector = np.zeros(llm.shape, np.float32)
    if answer is None:
        answer = Answer("", vector)
        reason = draft.refused or "no positive in the rows a prompt may see"
    elif answer.status == "failed":
        status, reason = "failed", answer.reason
    elif np.shape(answer.vector) != tuple(llm.shape):
        raise ModelError(
            f"{type(llm).__name__} gave a vector of shape {np.shape(answer.vector)}; "
            f"its shape says {tuple(llm.shape)}."
        )
    elif not np.isfinite(answer.vector).all():
        status, reason = "failed", "the vector holds NaN or infinity"
    elif not fits(answer.vector, dtype):
        status, reason = "failed", f"the vector holds numbers too large for {dtype}"
    else:
        vector, reason = answer.vector, answer.reason
    return Record(
        id=draft.id,
        status=status,
        prompt=str(draft.prompt or ""),
        text=_unicode(answer.text),
        facts={**facts, "reason": _unicode(reason)},
        prompt_tokens=answer.prompt_tokens,
        answer_tokens=answer.answer_tokens,
        vector=vector,
    )


def _unicode(text: str) -> str:
    """Text that a file can hold: a reader's lone surrogates become question marks."""
    return text.encode(errors="replace").decode()
