"""Refresh: rows whose prompt is not what the log says now leave the store before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import Stopped, StoreError
from msr_enhance.extract.draft import Draft, Ids
from msr_enhance.extract.prompts import LogPrompts
from msr_enhance.progress import progress
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.numbers import Dtype
from msr_enhance.store.record import STATUSES, Level, prompt_digest
from msr_enhance.store.writer import StoreWriter


def refresh_store(
    path: Path,
    provenance: Provenance,
    table: InteractionTable,
    prompts: LogPrompts,
    stop: Callable[[], bool] | None,
    tell: Callable[[str], None],
    dtype: Dtype | None = None,
) -> StoreWriter:
    """Open a store for a log that changed, rid of the rows whose prompt is another one now.

    When the store first names its new window, no row is left in it that another window made. A run that
    is killed before leaves the old store, with rows missing at most. Facts of a row that stays are those
    it was asked with, the name of its window among them.

    Args:
        path: The store's folder; a new store is made where there is none.
        provenance: How the rows will be made.
        table: The log as it is now.
        prompts: Its prompts.
        stop: Asked now and then; a true answer ends the comparison.
        tell: Takes what was found, in a sentence.
        dtype: How vectors are kept; default: as the store has it.

    Returns:
        The writer, to go on with as with any unfinished store.

    Raises:
        StoreIdentityError: The store was made by another model, template or decoding.
        StoreError: The log has none of the store's users.
        Stopped: `stop` said so; nothing was changed.
    """
    writer = StoreWriter.open(path, provenance, dtype, refresh=True)
    try:
        _drop_stale(writer, stale_rows(writer, table, prompts, stop), tell)
    except BaseException:
        writer.release()
        raise
    return writer


def _drop_stale(writer: StoreWriter, stale: dict[Level, Stale], tell: Callable[[str], None]) -> None:
    if stale["user"].held and len(stale["user"].gone) == stale["user"].held:
        raise StoreError(
            f"the log has none of the {stale['user'].held:,} users of {writer.path}; nothing was changed. "
            "Read the log that the store is to follow, or write into a new folder."
        )
    for level, rows in stale.items():
        if rows.held:
            tell(
                f"refresh: {len(rows.changed):,} of {rows.held:,} {level}s have another prompt now"
                + (f", {len(rows.gone):,} are no longer in the log" if rows.gone else "")
            )
    writer.drop_rows({level: [*rows.changed, *rows.gone] for level, rows in stale.items()})


class Stale(NamedTuple):
    """Rows of a level that have to go.

    Attributes:
        held: How many rows the level has.
        changed: Ids whose prompt is another one now, or who have a history now, or none any more.
        gone: Ids that the log no longer has.
    """

    held: int
    changed: Ids
    gone: Ids


def stale_rows(
    writer: StoreWriter,
    table: InteractionTable,
    prompts: LogPrompts,
    stop: Callable[[], bool] | None = None,
) -> dict[Level, Stale]:
    """Compare every row of a store with the prompt that would be asked now.

    A failed row whose prompt is the same stays failed. Rows outside a part or limit are compared too:
    under the new window none may be left that saw other rows.

    Args:
        writer: The store.
        table: The log as it is now.
        prompts: Its prompts.
        stop: Asked now and then; a true answer ends the comparison, nothing changed.

    Returns:
        What has to go from each level.

    Raises:
        Stopped: `stop` said so.
    """
    kept = _digests(writer, "scenario")
    names: Ids = [name for name in table.scenarios if name in kept]
    scenarios = _stale(kept, prompts.scenarios(names), "scenario", stop)
    kept = _digests(writer, "user")
    users: Ids = [user for user in table.user_ids if user in kept]
    return {"scenario": scenarios, "user": _stale(kept, prompts.users(users), "user", stop)}


def _digests(writer: StoreWriter, level: Level) -> dict[int | str, bytes]:
    """Status and prompt digest of each row; one small value a row, a level can have millions."""
    return {
        name: bytes([STATUSES.index(status)]) + digest
        for name, status, digest in writer.prompt_digests(level)
    }


def _stale(
    kept: dict[int | str, bytes],
    chunks: Iterable[Sequence[Draft]],
    level: Level,
    stop: Callable[[], bool] | None,
) -> Stale:
    held, changed = len(kept), []
    with progress(f"{level} prompts compared", held, unit=f"{level}s") as advance:
        for chunk in chunks:
            if stop is not None and stop():
                raise Stopped("stopped before a row was changed.")
            for draft in chunk:
                value = kept.pop(draft.id)
                status, same = STATUSES[value[0]], value[1:] == prompt_digest((draft.prompt or "").encode())
                if not same or status not in ("failed", draft.status):
                    changed.append(draft.id)
            advance(len(chunk))
    return Stale(held, changed, list(kept))
