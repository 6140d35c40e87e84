"""What a worker does: load log and reader once, then make one part after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msr_enhance.cli.job import ExtractJob
from msr_enhance.data.split import Split
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import Stopped
from msr_enhance.extract.extractor import KnowledgeExtractor, UserPart
from msr_enhance.llm.protocol import Answer, CountsTokens, FrozenLLM
from msr_enhance.scale.part import Part
from msr_enhance.scale.parts_folder import PartsFolder, asked_to_stop
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.rows import read_rows
from msr_enhance.store.versions import highest_version, latest_manifest


@dataclass(frozen=True)
class PartWork:
    """The `work` of `run_parts` for one job.

    Attributes:
        job: What to extract.
    """

    job: ExtractJob

    def __call__(self, part: Part, folder: Path, stop: Callable[[], bool] | None = None) -> None:
        """Make, or go on with, the private store of one part.

        What the job's `out` already holds is left out, so that the part can be added to it.

        Args:
            part: The part.
            folder: Folder of its private store.
            stop: Asked before each batch; by default whether the run was asked to stop.
        """
        at, job = _loaded(self.job), self.job
        at.extractor.extract(
            at.table,
            folder,
            split=at.split,
            limit=job.limit,
            part=_Rest(part, at.there) if at.there is not None else part,
            refresh=job.refresh,
            retry_failed=job.retry_failed,
            stop=stop or (lambda: asked_to_stop(folder)),
        )


@dataclass(frozen=True)
class LookThrough:
    """The `prepare` of `run_parts` for one job: makes a store that is there ready to be added to.

    Attributes:
        job: What to extract.
    """

    job: ExtractJob

    def __call__(self, part: Part, out: Path) -> bool:
        """Compare a store with the job, and read its scenarios; the users are left to the parts.

        Another identity is refused. What `refresh` and `retry_failed` have read again is dropped.

        Returns:
            Whether users are missing.
        """
        at, job = _loaded(self.job), self.job
        beside = PartsFolder(out).store(part)
        options: dict[str, Any] = {
            "split": at.split,
            "retry_failed": job.retry_failed,
            "stop": lambda: asked_to_stop(beside),
        }
        at.extractor.extract(at.table, out, part=_NoUsers(), refresh=job.refresh, **options)
        try:
            job.extractor(_Mute(at.extractor.llm)).extract(at.table, out, limit=job.limit, **options)
        except _Asked:
            return True
        return False


class _Loaded(NamedTuple):
    table: InteractionTable
    split: Split
    extractor: KnowledgeExtractor
    there: frozenset[int | str] | None  # users that `out` held when the worker began


_kept: dict[str, _Loaded] = {}


def _loaded(job: ExtractJob) -> _Loaded:
    """Log and reader of a job; what the first part loaded serves the others."""
    key = job.model_dump_json()
    if key not in _kept:
        _kept.clear()
        table = job.table()
        extractor = job.extractor(job.reader(table))
        _kept[key] = _Loaded(table, job.divide(table), extractor, _users(job.out))
    return _kept[key]


def _users(out: Path) -> frozenset[int | str] | None:
    if not highest_version(out):
        return None
    manifest, _ = latest_manifest(out)
    if "user" not in manifest.shape:
        return frozenset()
    files = StoreFiles(out, manifest.version)
    return frozenset(read_rows(files, manifest, "user", verify=False).live)


class _Rest:
    """The users of a part that a store lacks. The scenarios are in the store."""

    index = -1

    def __init__(self, part: UserPart, there: frozenset[int | str]) -> None:
        self._part, self._there = part, there

    def holds(self, id: int | str) -> bool:
        return id not in self._there and self._part.holds(id)


class _NoUsers:
    """The scenarios alone."""

    index = 0

    def holds(self, id: int | str) -> bool:
        return False


class _Asked(Stopped):
    """A reader that must not be asked was asked."""


class _Mute:
    """A reader as far as identity and prompts go; asking it ends the run."""

    def __init__(self, reader: FrozenLLM) -> None:
        self.shape, self.identity = reader.shape, reader.identity
        self.prompt_limit = reader.prompt_limit if isinstance(reader, CountsTokens) else None
        self._reader = reader

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        return self._reader.count_tokens(prompts) if isinstance(self._reader, CountsTokens) else []

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        raise _Asked
