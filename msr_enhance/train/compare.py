"""`compare()`: the plain model, the enhanced one and the controls on the same rows, honestly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from msr_enhance.data.digest import rows_digest
from msr_enhance.data.split import Split, Window, seen_rows, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, LeakageError, StoreError, not_one_of
from msr_enhance.meta.config import MetaConfig
from msr_enhance.progress import progress
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.arms import ARMS, BACKBONES
from msr_enhance.train.comparison import Comparison
from msr_enhance.train.loop import Settings
from msr_enhance.train.run import Run, new_run, written_path
from msr_enhance.train.study import Study

LEARNING_RATES = (1e-3, 3e-3, 1e-2)


def compare(
    table: InteractionTable,
    store: KnowledgeStore,
    *,
    backbone: str = "shared_bottom",
    arms: Sequence[str] = tuple(ARMS),
    seeds: int = 3,
    learning_rates: Sequence[float] = LEARNING_RATES,
    settings: Settings | None = None,
    split: Split | None = None,
    meta: MetaConfig | None = None,
    train_rows_the_store_has_seen: bool = False,
    out: str | Path | None = None,
) -> Comparison:
    """Train every arm on the same rows with the same search, and score it on the same test rows.

    The learning rate of an arm is the one with the best validation AUC at seed 0; test rows decide
    nothing. `plain_all` alone trains on the history rows as well.

    Args:
        table: The log.
        store: Knowledge made from its history.
        backbone: ``shared_bottom``, ``omoe``, ``mmoe``, ``ple``, ``aitm`` or ``star``.
        arms: Some of `ARMS`; ``plain`` is always run.
        seeds: Seeds 0 to seeds - 1.
        learning_rates: Rates to search.
        settings: Training settings, the same for every arm.
        split: Parts of the log; by default the way the store's window says.
        meta: Shape of the generated layers, the same for every arm that has them.
        train_rows_the_store_has_seen: Go on although the store has seen rows that are trained or
            scored; the result carries a warning.
        out: Also keep a run folder: the result, training curves and some explained test rows, as `run.json`,
            for ``msr-enhance explain`` and ``msr-enhance report``. It is made where it is not there.

    Raises:
        DataError: An unknown name, a scenario called ``mean``, or an `out` that cannot be a new run.
        LeakageError: The store has seen rows that would be trained or scored.
        StoreError: The store lacks a level, or was made from another log.
        TrainingError: No scenario has both labels in its test part.
    """
    if backbone not in BACKBONES:
        raise DataError(not_one_of("backbone", backbone, BACKBONES, "Write --backbone star."))
    for arm in arms:
        if arm not in ARMS:
            raise DataError(not_one_of("arm", arm, ARMS))
    if seeds < 1 or not learning_rates or not all(0 < rate < float("inf") for rate in learning_rates):
        raise DataError(
            f"{seeds} seeds and learning rates {list(learning_rates)}; allowed: one or more of each, "
            "rates above 0. Write --seeds 3 --learning-rates 0.003,0.01."
        )
    if "mean" in table.scenarios:
        raise DataError(
            "A scenario of this log is called 'mean', as the mean over scenarios is in every table; allowed: "
            "any other name. Rename it in the log, and extract again."
        )
    if missing := [level for level in ("user", "scenario") if level not in store.levels]:
        raise StoreError(f"The store at {store.path} lacks the {missing[0]} level; extract it again.")
    settings = settings or Settings()
    window = window_of(store)
    split = split or split_as(table, window, store.provenance.facts.get("split"))
    warnings = check_overlap(table, split, window, allowed=train_rows_the_store_has_seen)
    folder = None if out is None else new_run(Path(out))
    where = None if folder is None else written_path(store.path, folder)
    study = Study(table, store, split, backbone, settings, tuple(learning_rates), seeds, meta)
    chosen = list(dict.fromkeys(["plain", *arms]))
    fits = len(chosen) * (len(learning_rates) + seeds - 1)
    with progress("training", fits, unit="fits") as advance:
        for arm in chosen:
            study.run(arm, advance)
    result = study.result(warnings)
    if folder is not None and where is not None:
        Run(
            store=where,
            store_fingerprint=store.fingerprint,
            comparison=result,
            curves=study.curves,
            explanations=study.explanations,
        ).save(folder)
    return result


def window_of(store: KnowledgeStore) -> Window:
    """What a store's prompts were allowed to see.

    Raises:
        StoreError: The store does not say so.
    """
    try:
        return Window.model_validate(store.provenance.window)
    except ValidationError as error:
        raise StoreError(
            f"The store at {store.path} does not say which rows its prompts saw (window "
            f"{str(store.provenance.window)[:80]}); extract it again with `msr-enhance extract`."
        ) from error


def split_as(table: InteractionTable, window: Window, reason: str | None = None) -> Split:
    """Divide a log the way it was divided when a window was made, for the reason given then."""
    cutoff = None
    if window.protocol == "window" and window.cutoffs:
        cutoff = min(window.cutoffs.values())
    split = split_table(table, kind=window.split, protocol=window.protocol, cutoff=cutoff)
    return replace(split, reason=reason or split.reason)


def check_overlap(table: InteractionTable, split: Split, window: Window, *, allowed: bool) -> list[str]:
    """Refuse rows that the store's prompts have seen; the warnings of what is let through.

    Under the paper's protocol prompts are written from the training rows on purpose: that is a
    warning. Validation and test rows in a prompt are an error under any protocol.

    Raises:
        LeakageError: Rows overlap and `allowed` is False.
    """
    seen = seen_rows(window, table, split)
    counts = {part: int(seen[getattr(split, part)].sum()) for part in ("train", "validation", "test")}
    warnings = []
    if window.cutoffs is not None and rows_digest(table, np.flatnonzero(seen)) != window.digest:
        message = (
            f"The store's prompts were written from {window.rows:,} rows; {int(seen.sum()):,} rows of "
            "this log lie before its cut-off, and they are not the same: which rows were seen is not certain."
        )
        if not allowed:
            raise LeakageError(
                f"{message} Allowed: the log the store was made from, also with later rows added, its "
                "times in the same unit. Extract again, or write --train-rows-the-store-has-seen."
            )
        warnings.append(message)
    if split.protocol == "paper":
        warnings.append(
            f"protocol=paper: prompts were written from the training rows ({counts['train']:,} of "
            f"{len(split.train):,}), so every training row is scored with knowledge that saw its own label."
        )
        counts["train"] = 0
    if any(counts.values()):
        said = ", ".join(f"{count:,} {part}" for part, count in counts.items() if count)
        message = f"The store's prompts have seen {said} rows of this comparison, labels included."
        if not allowed:
            raise LeakageError(
                f"{message} Allowed: rows after the store's cut-off. Extract with the cut-off of this "
                "split, or write --train-rows-the-store-has-seen to measure the leak on purpose."
            )
        warnings.append(message)
    return warnings
