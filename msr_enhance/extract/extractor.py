"""`KnowledgeExtractor`: log → prompts → frozen language model → knowledge store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from msr_enhance.data.split import Split, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, StoreError, StoreIdentityError
from msr_enhance.extract.draft import Draft, Ids
from msr_enhance.extract.fill import fill
from msr_enhance.extract.identity import provenance_of
from msr_enhance.extract.prompts import LogPrompts
from msr_enhance.extract.refresh import refresh_store
from msr_enhance.extract.trial import Trial
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.prompt import Prompt
from msr_enhance.prompts.templates import Templates
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.numbers import Dtype
from msr_enhance.store.record import STATUSES, Level, exact_id
from msr_enhance.store.rows import read_rows
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


class UserPart(Protocol):
    """A share of the users, for example `msr_enhance.scale.part.Part`."""

    @property
    def index(self) -> int:
        """Which share; the scenarios are read with share 0."""

    def holds(self, id: int | str) -> bool:
        """Whether a user belongs to it."""


class KnowledgeExtractor:
    """Writes a prompt for every scenario and user, has a frozen model answer it, keeps the answers.

    Args:
        llm: Any `FrozenLLM`; `HuggingFaceLLM.load(...)` is ours. Where it counts tokens, prompts over its
            limit are shortened; where it plans batches, each of them is one commit.
        templates: Prompt templates.
        platform: What is known of the platform and its scenarios; without it the log's scenario names
            serve.
        history: T, the most recent positives shown for each scenario (the paper: 35 to 55).
        commit_every: Users whose batches are planned together; the most rows of a commit, so a crash loses
            fewer.
        store_dtype: How vectors are kept: ``float32``, which every model's states fit, or ``float16`` or
            ``bfloat16`` at half the size; default: as a store has it that is continued, else ``float32``.
            A vector too large for float16 is a row with status ``failed``.

    Example:
        >>> extractor = KnowledgeExtractor(HuggingFaceLLM.load("builtin", max_new_tokens=2))
        >>> store = extractor.extract(table, "knowledge")
        >>> store.vectors("user", table.user_ids[:3]).shape
        (3, 128)
    """

    def __init__(
        self,
        llm: FrozenLLM,
        templates: Templates | None = None,
        *,
        platform: Platform | None = None,
        history: int = 50,
        commit_every: int = 512,
        store_dtype: Dtype | None = None,
    ) -> None:
        if history < 1:
            raise DataError(f"history is {history}; write 1 or more positives per scenario.")
        if commit_every < 1:
            raise DataError(f"commit_every is {commit_every}; write 1 or more rows.")
        self.llm = llm
        self.templates = templates or Templates()
        self.platform = platform
        self.history = history
        self.commit_every = commit_every
        self.store_dtype = store_dtype

    def extract(
        self,
        table: InteractionTable,
        out: str | Path,
        *,
        split: Split | None = None,
        limit: int | None = None,
        part: UserPart | None = None,
        refresh: bool = False,
        retry_failed: bool = False,
        stop: Callable[[], bool] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> KnowledgeStore:
        """Fill a store with the knowledge of every scenario and user; resumes where it stopped.

        A prompt is written only from the rows that `split` allows prompts to see. Every user of the
        log gets a row: ``empty`` (and zero knowledge) without a positive in those rows, then the model is
        not asked; ``truncated`` where the prompt was shortened to fit the context window;
        ``failed``, with the reason, where no answer came; else ``ok``.

        Args:
            table: The log.
            out: Folder of the store; an unfinished store of the same identity is continued.
            split: Which rows prompts may see; by default `split_table(table)`.
            limit: Only the first so many users of the log.
            part: Only the users it holds, and the scenarios only with part 0; the stores of all parts can
                be merged.
            refresh: Let a store follow a log, window or platform file that changed: rows whose prompt is
                another one now are dropped before anything is asked, then read again; the others stay.
            retry_failed: Ask again about failed rows.
            stop: Asked before each batch; a true answer ends the run between two commits.
            say: Takes a sentence for people: what is done already, what is read again.

        Returns:
            The finished store.

        Raises:
            StoreIdentityError: `out` holds a store of another model, template or window.
            DataError: The log cannot be divided, or an id cannot be kept.
            ModelError: The first users all failed, 8 or more and `commit_every` at least, or every prompt
                of a run without `part` in a store without answers; none of these was stored.
            Stopped: `stop` said so; the same call goes on.
        """
        split = split or split_table(table)
        platform = self._platform(table)
        prompts, work = self._prompts(table, split, platform), _work(table, limit, part)
        provenance = provenance_of(self.llm, self.templates, platform, self.history, table, split)
        path, tell = Path(out), say or _silent
        if refresh:
            writer = refresh_store(path, provenance, table, prompts, stop, tell, self.store_dtype)
        else:
            writer = _opened(path, provenance, self.store_dtype)
        with writer:
            if retry_failed:
                _drop_failed(writer, work, tell)
            trial = Trial(writer)
            self._fill(writer, trial, "scenario", work["scenario"], prompts.scenarios, stop, tell)
            self._fill(writer, trial, "user", work["user"], prompts.users, stop, tell)
            trial.end(whole=part is None)
        return KnowledgeStore.load(path, verify=False)

    def preview(
        self, table: InteractionTable, *, split: Split | None = None
    ) -> Iterator[tuple[Any, Prompt | None]]:
        """The user prompts `(id, prompt)` that would be sent, without asking; None for an empty history."""
        split = split or split_table(table)
        chunks = self._prompts(table, split, self._platform(table)).users(table.user_ids)
        return ((draft.id, draft.prompt) for chunk in chunks for draft in chunk)

    def _platform(self, table: InteractionTable) -> Platform:
        if self.platform is None:
            return Platform.for_scenarios(table.scenarios)
        return self.platform.covering(table.scenarios)

    def _prompts(self, table: InteractionTable, split: Split, platform: Platform) -> LogPrompts:
        options = {"history": self.history, "at_once": self.commit_every}
        return LogPrompts(self.llm, self.templates, platform, table, split, **options)

    def _fill(
        self,
        writer: StoreWriter,
        trial: Trial,
        level: Level,
        ids: Ids,
        drafts: Callable[[Ids], Iterator[list[Draft]]],
        stop: Callable[[], bool] | None,
        tell: Callable[[str], None],
    ) -> None:
        """Ask about what is missing; the prompts of chunks that are wholly done are not even written."""
        known = writer.done(level)
        done = sum(name in known for name in ids)
        if done and (level == "user" or done < len(ids)):
            tell(f"resuming: {done:,} of {len(ids):,} {level}s are done")
        waiting: Ids = []
        for start in range(0, len(ids), self.commit_every):
            chunk = ids[start : start + self.commit_every]
            if any(name not in known for name in chunk):
                waiting += chunk
        if waiting:
            fill(writer, self.llm, level, drafts(waiting), trial, total=len(ids), done=done, stop=stop)


def _work(table: InteractionTable, limit: int | None, part: UserPart | None) -> dict[Level, Ids]:
    """The scenarios and users to read, in the order of the log; ids that no store can keep are refused."""
    if limit is not None and limit < 0:
        raise DataError(f"limit is {limit}; write how many users to read, or leave it out.")
    users: Ids = [user for user in table.user_ids[:limit] if part is None or part.holds(user)]
    scenarios: Ids = list(table.scenarios) if part is None or part.index == 0 else []
    for name in (*scenarios, *(users if users and isinstance(users[0], str) else ())):
        try:
            exact_id(name)
        except StoreError as error:
            raise DataError(f"the log has a user or scenario whose name is too long: {error}") from error
    return {"scenario": scenarios, "user": users}


def _opened(path: Path, provenance: Provenance, dtype: Dtype | None) -> StoreWriter:
    try:
        return StoreWriter.open(path, provenance, dtype)
    except StoreIdentityError as error:
        try:
            # Looks only: a writer writes with its first commit.
            StoreWriter.open(path, provenance, dtype, refresh=True).release()
        except StoreIdentityError:
            raise error from None
        raise StoreIdentityError(
            f"{error}\nOr write --refresh (refresh=True): rows whose prompt is the same now stay, the others "
            "are read again."
        ) from error


def _drop_failed(writer: StoreWriter, work: dict[Level, Ids], tell: Callable[[str], None]) -> None:
    for level, counts in writer.statuses().items():
        if not counts.get("failed"):
            continue
        manifest, _ = latest_manifest(writer.path)
        rows = read_rows(StoreFiles(writer.path, manifest.version), manifest, level, verify=False)
        wanted, code = set(work[level]), STATUSES.index("failed")
        if failed := [name for name, status in rows.live.items() if status == code and name in wanted]:
            tell(f"asking {len(failed):,} failed {level}s again")
            writer.drop(level, failed)


def _silent(sentence: str) -> None:
    """What is said to nobody."""
