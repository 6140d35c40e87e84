"""Divide a log by time: what prompts may see, then 8:1:1 for training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from msr_enhance.data.cutoff import start_time
from msr_enhance.data.digest import rows_digest
from msr_enhance.data.ranks import ranks
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import LeakageError, SplitError, not_one_of

Kind = Literal["scenario", "global", "user"]
Protocol = Literal["window", "paper"]
Rows = npt.NDArray[np.int64]

_PARTS = ("training", "validation", "test")


class Window(BaseModel):
    """What prompts may see; it travels with prompt, store and report.

    Attributes:
        protocol: ``"window"``: rows before the training rows; ``"paper"``: the training rows themselves.
        split: How the log was divided.
        cutoffs: The first clock value of each scenario that no prompt may see; None where the window is not
            cut at a time.
        rows: How many rows prompts may see.
        digest: Names the set of these rows, whatever their order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Protocol
    split: Kind
    cutoffs: dict[str, int | float] | None
    rows: int
    digest: str


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a log as row positions, each in chronological order with ties in row order.

    Attributes:
        kind: How the log was divided.
        protocol: See `Window`.
        reason: Why it was divided so, in one sentence for people.
        seen: Rows that prompts may see ``[n]``.
        history: Rows before the window of training, which only the arm ``plain_all`` trains on ``[n]``.
        train: Training rows ``[n]``.
        validation: Validation rows ``[n]``.
        test: Test rows ``[n]``.
        window: What `seen` is, for the store.
    """

    kind: Kind
    protocol: Protocol
    reason: str
    seen: Rows
    history: Rows
    train: Rows
    validation: Rows
    test: Rows
    window: Window


def split_table(
    table: InteractionTable,
    kind: Kind | None = None,
    protocol: Protocol = "window",
    cutoff: float | str | None = None,
) -> Split:
    """Divide a log.

    In the window protocol the older half of the rows is history: before one time T0 for all scenarios, so
    that no prompt sees another scenario's future, or with ``"user"`` each user's older half in each scenario.
    8:1:1 divides the rest. In the paper's protocol 8:1:1 divides all rows and prompts see the training rows.

    Args:
        table: The log.
        kind: 8:1:1 by time inside each scenario, by time globally, or inside each user and scenario by order
            (or time); None takes what suits the log and says why.
        protocol: ``"window"`` or ``"paper"``.
        cutoff: T0 instead of the time of the middle row; an ISO date where the log's times are dates.

    Returns:
        The parts; history, train, validation and test are disjoint and together are every row.

    Raises:
        SplitError: A part would be empty, the test part has one class, or kind, protocol, cutoff and log do
            not go together.
    """
    _check_request(table, kind, protocol, cutoff)
    if kind is not None:
        return _divide(table, kind, protocol, cutoff, f"split {kind!r} was asked for.")
    if table.time is None:
        reason = "The log has an order but no time: split inside each user."
        return _divide(table, "user", protocol, None, reason)
    try:
        split = _divide(table, "scenario", protocol, cutoff, "")
    except SplitError as error:
        if cutoff is not None:
            raise
        why = f"A split by time is not possible here ({str(error).split(';')[0]}): split inside each user."
        try:
            return _divide(table, "user", protocol, None, why)
        except SplitError:
            raise error from None
    liked = split.seen[table.labels[split.seen] == 1]
    known = float(np.isin(table.user_index[split.test], table.user_index[liked]).mean())
    share = f"{known:.0%} of the test rows of a split by time have a user with positives that prompts may see"
    if known < 0.5 and cutoff is None:
        return _divide(table, "user", protocol, None, f"Only {share}: split inside each user instead.")
    return replace(split, reason=f"{share}: split by time inside each scenario.")


def seen_rows(window: Window, table: InteractionTable, split: Split | None) -> npt.NDArray[np.bool_]:
    """Which rows the makers of some knowledge may have seen.

    Args:
        window: The window that the knowledge was made under.
        table: The log about to be trained or scored on.
        split: How that log is divided now.

    Returns:
        A mask ``[rows]`` of the table.

    Raises:
        LeakageError: The window does not tell: it knows nothing of a scenario, or describes other rows.
    """
    if window.cutoffs is not None and table.time is not None:
        unknown = [name for name in table.scenarios if name not in window.cutoffs]
        if unknown:
            raise LeakageError(
                f"the knowledge has no cut-off for scenario {unknown[0]!r}, so what its prompts saw there is "
                f"not known; its scenarios are: {', '.join(map(repr, window.cutoffs))}. "
                f"Extract a store from this log, or drop the scenario's rows."
            )
        cuts = np.array([window.cutoffs[name] for name in table.scenarios])
        mask: npt.NDArray[np.bool_] = table.time < cuts[table.scenario_index]
        return mask
    if split is None or split.window.digest != window.digest:
        now = "no split was given" if split is None else f"now prompts may see {len(split.seen)} others"
        raise LeakageError(
            f"the store and this split do not describe the same rows: its prompts saw {window.rows} rows "
            f"(protocol {window.protocol!r}, split {window.split!r}), and {now}. "
            f"Write --protocol {window.protocol} --split {window.split} with the log that the store was made "
            f"from, or extract a new store from this log."
        )
    mask = np.zeros(len(table), np.bool_)
    mask[split.seen] = True
    return mask


def _check_request(
    table: InteractionTable, kind: Kind | None, protocol: Protocol, cutoff: float | str | None
) -> None:
    if kind not in (None, "scenario", "global", "user"):
        raise SplitError(not_one_of("split", kind, ("scenario", "global", "user")))
    if protocol not in ("window", "paper"):
        raise SplitError(not_one_of("protocol", protocol, ("window", "paper")))
    if kind in ("scenario", "global") and table.time is None:
        raise SplitError(
            f"split {kind!r} needs a time column, and this log has only the order {table.columns.order!r}. "
            f"Write --split user, or --column time=NAME."
        )
    if cutoff is not None and (kind == "user" or protocol == "paper" or table.time is None):
        seen = "split 'user'" if kind == "user" else "no time" if table.time is None else "protocol 'paper'"
        raise SplitError(
            f"a cut-off needs one time for all rows, and here is {seen}. "
            f"Write --split scenario --protocol window with it, or leave the cut-off out."
        )


def _divide(
    table: InteractionTable, kind: Kind, protocol: Protocol, cutoff: float | str | None, reason: str
) -> Split:
    clock: npt.NDArray[Any] = table.clock if kind == "user" or table.time is None else table.time
    by_time = np.argsort(clock, kind="stable")
    groups = {
        "global": np.zeros(len(table), np.int64),
        "scenario": table.scenario_index,
        "user": table.user_index * len(table.scenarios) + table.scenario_index,
    }[kind][by_time]
    cutoffs = None
    if protocol == "paper":
        old = np.zeros(len(table), np.bool_)
    elif kind == "user":
        rank, size = ranks(groups)
        old = rank < size // 2
    else:
        start = start_time(table, clock[by_time[len(table) // 2]].item(), cutoff)
        old = clock[by_time] < start
        cutoffs = dict.fromkeys(table.scenarios, start)
    if protocol == "window" and not old.any():
        raise SplitError(
            "the history is empty: no row is older than the middle of the log, so no prompt could say "
            "anything. Write --cutoff with a later time, --split user, or --protocol paper."
        )
    history, rest = by_time[old], by_time[~old]
    rank, size = ranks(groups[~old])
    if kind == "user":
        tail = np.where(size >= 3, (size + 9) // 10, 0)
        part = (rank >= size - 2 * tail).astype(np.int64) + (rank >= size - tail)
        part[tail == 0] = 0
    else:
        part = (rank >= size * 8 // 10).astype(np.int64) + (rank >= size * 9 // 10)
    train, validation, test = (rest[part == number] for number in range(3))
    _check_parts(table, kind, (train, validation, test))
    seen = train if protocol == "paper" else history
    window = Window(
        protocol=protocol, split=kind, cutoffs=cutoffs, rows=len(seen), digest=rows_digest(table, seen)
    )
    return Split(kind, protocol, reason, seen, history, train, validation, test, window)


def _check_parts(table: InteractionTable, kind: Kind, parts: tuple[Rows, Rows, Rows]) -> None:
    other = "user" if kind != "user" else "scenario" if table.time is not None else None
    advice = f"Write --split {other}, or give" if other else "Give"
    for name, rows in zip(_PARTS, parts, strict=True):
        counts = np.bincount(table.scenario_index[rows], minlength=len(table.scenarios))
        if not counts.all():
            raise SplitError(
                f"split {kind!r} leaves scenario {table.scenarios[int(counts.argmin())]!r} without a {name} "
                f"row; every scenario needs all of {', '.join(_PARTS)}. {advice} more rows of this scenario."
            )
    labels = table.labels[parts[2]]
    if labels.min() == labels.max():
        raise SplitError(
            f"the test part of split {kind!r} has one class: all {len(labels)} labels are {labels[0]:.0f}, "
            f"and AUC needs both. {advice} a log that ends with negatives and positives."
        )
