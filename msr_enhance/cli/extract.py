"""The `extract` command: a dry run, one process, one shard, or many workers; stops and goes on cleanly."""

from __future__ import annotations

import signal
from pathlib import Path

import typer

from msr_enhance.cli.counting import counted
from msr_enhance.cli.job import ExtractJob
from msr_enhance.cli.output import say
from msr_enhance.cli.part_work import LookThrough, PartWork
from msr_enhance.cli.read_log import divide, read_log
from msr_enhance.cli.report import Report, asked_in, safe_rows
from msr_enhance.cli.signals import StopRequest, stoppable, this_command
from msr_enhance.data.split import Split
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, MsrEnhanceError, StoreError, not_one_of
from msr_enhance.llm import builtin
from msr_enhance.scale.engine import ENGINES, run_parts
from msr_enhance.scale.gpus import visible_gpus
from msr_enhance.scale.part import Part
from msr_enhance.scale.parts_folder import PartsFolder
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.opening import check_writable
from msr_enhance.store.versions import highest_version, latest_manifest

_PARTS_A_WORKER = 4
_PARTS_OF_A_CLUSTER = 64  # how many workers it has is known only when it answers


def run(
    job: ExtractJob,
    *,
    engine: str,
    workers: int | None,
    parts: int | None,
    shard: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Extract a store, or one shard of it, and say what it holds.

    Raises:
        typer.Exit: With 128 + the signal, if a signal ended the run.
    """
    _check(job, engine, workers, parts, shard)
    job.check()
    if dry_run:
        from msr_enhance.cli import dry_run as estimate

        estimate.run(job, as_json)
        return
    folder = PartsFolder(job.out, job.key())
    part = None if shard is None else Part.parse(shard)
    check_writable(job.out if part is None else folder.store(part))
    with stoppable() as stop:
        try:
            report = Report(_continued(job, folder, engine, part))
            loaded = _read(job)
            if part is not None:
                store = _one_shard(job, folder, part, loaded, report, stop)
            elif engine == "local":
                store = _local(job, folder, loaded, report, stop)
            else:
                del loaded  # the workers read the log themselves
                store = _parts(job, folder, engine, workers, parts, report, stop)
            report.show(store, as_json)
            if part is not None:
                _say_what_is_left(job.out, folder, part)
        except MsrEnhanceError:
            raise
        except Exception:  # nobody declared it, such as a lost GPU; its traceback follows
            _say_what_is_safe("broken off", job, folder)
            raise
        except KeyboardInterrupt as error:
            _say_what_is_safe("stopped", job, folder)
            raise typer.Exit(128 + (stop.number or signal.SIGINT)) from error


def _check(job: ExtractJob, engine: str, workers: int | None, parts: int | None, shard: str | None) -> None:
    names = ("local", *ENGINES)
    if engine not in names:
        raise DataError(not_one_of("engine", engine, names, "Write --engine processes."))
    if engine == "local" and (workers is not None or parts is not None):
        raise DataError("--workers and --parts need --engine processes or --engine ray; local is one worker.")
    if engine != "local" and shard is not None:
        raise DataError(
            f"--shard makes one part in this process, --engine {engine} makes all of them; write one of them."
        )
    if engine == "processes" and job.device and ":" in job.device:
        raise DataError(
            f"--device {job.device} names one GPU, and --engine processes gives each worker its own. "
            "Write --device cuda, and CUDA_VISIBLE_DEVICES for a choice of GPUs."
        )


def _say_what_is_safe(how: str, job: ExtractJob, folder: PartsFolder) -> None:
    rows = sum(safe_rows([job.out, *folder.stores()]).values())
    say(f"{how}; {rows:,} rows are safe in {job.out}. To go on, run:\n  {this_command()}")


def _continued(job: ExtractJob, folder: PartsFolder, engine: str, part: Part | None) -> list[Path]:
    """The stores that a run goes on with."""
    if part is not None:
        return [folder.store(part)]
    return [job.out] if engine == "local" else [job.out, *folder.stores()]


def _read(job: ExtractJob) -> tuple[InteractionTable, Split]:
    """Log, split and templates; what is wrong with them is said before a model is loaded."""
    table = read_log(job.data, job.column, job.items)
    split = divide(table, job.split, job.protocol, job.cutoff)
    if split.protocol == "paper":
        say("warning: protocol=paper writes prompts from the training rows, whose labels they then show")
    job.templates()
    notes = job.notes()
    if notes is not None:
        notes.covering(table.scenarios)
    if job.model == builtin.NAME and job.encoder is None:
        say(f"model: {builtin.NAME}, {builtin.DESCRIPTION}")
    return table, split


def _local(
    job: ExtractJob,
    folder: PartsFolder,
    loaded: tuple[InteractionTable, Split],
    report: Report,
    stop: StopRequest,
) -> KnowledgeStore:
    if folder.counts():
        say(
            f"note: {folder.path} holds parts that are not in {job.out} yet, and this run reads their users "
            "again; --engine processes goes on with them"
        )
    return _extract(job, loaded, job.out, None, report, stop)


def _one_shard(
    job: ExtractJob,
    folder: PartsFolder,
    part: Part,
    loaded: tuple[InteractionTable, Split],
    report: Report,
    stop: StopRequest,
) -> KnowledgeStore:
    if highest_version(job.out) and latest_manifest(job.out)[0].shards:
        raise StoreError(
            f"{job.out} is a store already, and --shard makes the parts of a new one. Add to it with "
            "--engine local or --engine processes, or write another --out."
        )
    folder.check_count(part.count)
    say(f"shard {part.index} of {part.count}: {folder.store(part)}")
    if folder.finished(part):
        return KnowledgeStore.load(folder.store(part), verify=False)
    store = _extract(job, loaded, folder.store(part), part, report, stop)
    folder.finish(part)
    return store


def _extract(
    job: ExtractJob,
    loaded: tuple[InteractionTable, Split],
    out: Path,
    part: Part | None,
    report: Report,
    stop: StopRequest,
) -> KnowledgeStore:
    table, split = loaded
    reader, asked = counted(job.reader(table))
    extractor = job.extractor(reader)
    report.reading(asked)
    with stop.after_the_batch():
        return extractor.extract(
            table,
            out,
            split=split,
            limit=job.limit,
            part=part,
            refresh=job.refresh,
            retry_failed=job.retry_failed,
            stop=stop,
            say=say,
        )


def _say_what_is_left(out: Path, folder: PartsFolder, part: Part) -> None:
    left = [other for other in Part.all(part.count) if not folder.finished(other)]
    if left:
        named = ", ".join(f"{other.index}/{other.count}" for other in left[:10])
        more = f" and {len(left) - 10} more" if len(left) > 10 else ""
        say(f"still to be made: --shard {named}{more}; then join all of them:")
    else:
        say("every shard is made; join them, and remove the parts when they are:")
    say(f"  msr-enhance store merge {folder.path}/part-*-of-{part.count:05d} --out {out}")


def _parts(
    job: ExtractJob,
    folder: PartsFolder,
    engine: str,
    workers: int | None,
    parts: int | None,
    report: Report,
    stop: StopRequest,
) -> KnowledgeStore:
    if parts is None:
        begun = folder.counts()
        if engine == "processes":
            parts = _PARTS_A_WORKER * (workers or len(visible_gpus()) or 2)
        else:
            parts = _PARTS_A_WORKER * workers if workers else _PARTS_OF_A_CLUSTER
        parts = min(begun) if begun else parts
    say(f"{parts} parts in {folder.path}, by --engine {engine}")
    before = asked_in(folder.stores())
    with stop.after_the_batch():
        return run_parts(
            PartWork(job),
            job.out,
            parts=parts,
            engine=engine,
            workers=workers,
            key=job.key(),
            prepare=LookThrough(job),
            joining=lambda stores: report.joining(stores, before),
            stop=stop,
        )
