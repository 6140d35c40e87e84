"""The `compare` command, and the table that it and `demo` print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msr_enhance.cli.output import emit, say, show, table
from msr_enhance.cli.read_log import divide, read_log, tell
from msr_enhance.errors import DataError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.arms import ARMS
from msr_enhance.train.compare import compare, split_as, window_of
from msr_enhance.train.comparison import Comparison, Gap
from msr_enhance.train.loop import Settings
from msr_enhance.train.run import new_run

CONTROLS = ("plain", "random", "shuffled")
"""What knowledge has to beat: nothing, noise, and the knowledge about somebody else."""


def run(
    data: Path,
    store: Path,
    *,
    items: Path | None,
    column: Sequence[str],
    backbone: str,
    arms: str | None,
    seeds: int,
    learning_rates: str,
    epochs: int,
    batch_size: int,
    split: str | None,
    protocol: str | None,
    cutoff: str | None,
    allowed: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare on a log and a store, print the table."""
    try:
        rates = [float(rate) for rate in learning_rates.split(",")]
    except ValueError as error:
        raise DataError(
            f"--learning-rates is {learning_rates!r}; write numbers by comma: 0.003,0.01."
        ) from error
    if out is not None:
        new_run(out)
    knowledge = KnowledgeStore.load(store)
    log = read_log(data, column, items)
    window = window_of(knowledge)
    if split is None and protocol is None and cutoff is None:
        parts = split_as(log, window, knowledge.provenance.facts.get("split"))
        tell(parts)
    else:
        parts = divide(log, split or window.split, protocol or window.protocol, cutoff)
    steps = len(parts.train) // batch_size + 1
    if steps < 20:
        say(f"note: {steps} steps an epoch are few; a smaller --batch-size may serve every arm better")
    result = compare(
        log,
        knowledge,
        backbone=backbone,
        arms=[arm.strip() for arm in arms.split(",")] if arms else tuple(ARMS),
        seeds=seeds,
        learning_rates=rates,
        settings=replace(Settings(), epochs=epochs, batch_size=batch_size),
        split=parts,
        train_rows_the_store_has_seen=allowed,
        out=out,
    )
    if as_json:
        emit(as_object(result, knowledge.path, **({} if out is None else {"run": str(out.resolve())})))
        return
    print_result(result)
    print_seeds(result)
    if out is not None:
        print_next(out)


def as_object(result: Comparison, store: Path, **more: Any) -> dict[str, Any]:
    """The JSON object of `demo` and `compare`."""
    return {
        **result.model_dump(mode="json"),
        "auc": result.auc(),
        "store": str(store.resolve()),
        **more,
    }


def print_result(result: Comparison) -> None:
    """The comparison as a table on stdout, with what is needed to believe it."""
    for warning in result.warnings:
        say(f"warning: {warning}")
    names = [*result.scenarios, "mean"]
    header = ["test AUC, mean of seeds", *names, "sd", "mean - plain", "± seeds", "± users", "lr"]
    rows = []
    for arm, scores in result.scores.items():
        gap = result.gaps.get(arm, {}).get("mean")
        rows.append(
            [
                arm,
                *(_figure(scores[name].auc) for name in names),
                _figure(scores["mean"].spread),
                *(_gap(gap) if gap else ("", "", "")),
                f"{result.learning_rates[arm]:g}",
            ]
        )
    notes: dict[str, list[str]] = {
        "test rows": [f"{result.test_rows[name]:,}" for name in result.scenarios],
        "leak probe": [_figure(result.leak_probe[name]) for name in result.scenarios],
        "category probe": [_figure(result.category_probe[name]) for name in result.scenarios],
    }
    rows += [[name, *values, *[""] * (len(header) - 1 - len(values))] for name, values in notes.items()]
    show(table(header, rows))
    show(
        f"\n{result.seeds} seeds, backbone {result.settings['backbone']}; "
        f"{result.coverage:.1%} of test rows have knowledge."
    )
    show(
        "leak probe: AUC of the number of same-scenario positives in the prompt alone "
        "(0.5: a count tells nothing).\n"
        "category probe: AUC of the item category's share in the prompt alone (what a count can see)."
    )
    for arm in result.scores:
        show(f"  {arm}: {ARMS[arm]}")


def print_seeds(result: Comparison) -> None:
    """What the enhanced arm is above each control, seed by seed, and whether that may be chance."""
    against = [arm for arm in CONTROLS if arm in result.against]
    if not against:
        return
    header = ["mean AUC, enhanced minus", *(f"seed {seed}" for seed in range(result.seeds))]
    header += ["mean", "± seeds", "t", "p", "± users"]
    rows, failed = [], []
    for arm in against:
        pairs = zip(result.by_seed["enhanced"], result.by_seed[arm], strict=True)
        gaps = [ours - theirs for ours, theirs in pairs]
        failed += [f"{arm} with seed {seed} ({gap:+.4f})" for seed, gap in enumerate(gaps) if gap <= 0]
        test = result.against[arm]
        rows.append(
            [
                arm,
                *(f"{gap:+.4f}" for gap in gaps),
                f"{test.mean:+.4f}",
                _figure(test.error_seeds),
                "-" if test.t is None else f"{test.t:.1f}",
                "-" if test.p is None else f"{test.p:.2g}",
                _figure(test.error_users),
            ]
        )
    show("\n" + table(header, rows))
    show(
        "t, p: paired t-test over seeds, two-sided"
        + (" (it needs two seeds: --seeds 2)" if result.seeds < 2 else "")
        + "; ± users: bootstrap over the test users."
    )
    for one in failed:
        show(f"FAILED: enhanced does not beat {one}.")
    if not failed:
        seeds = "the one seed" if result.seeds == 1 else f"each of {result.seeds} seeds"
        show(f"enhanced beats {', '.join(against)} with {seeds}.")


def print_next(out: Path) -> None:
    """The commands that look at a run."""
    run = shlex.quote(str(out))
    show(f"\nrun: {out.resolve()}\nNext:\n  msr-enhance report {run} --out report.html")
    show(f"  msr-enhance explain {run}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _gap(gap: Gap) -> tuple[str, str, str]:
    errors = (gap.error_seeds, gap.error_users)
    return (f"{gap.mean:+.4f}", *("-" if error is None else f"{error:.4f}" for error in errors))  # type: ignore[return-value]
