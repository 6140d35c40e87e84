"""The options that every command reading a log shares: columns, item table, split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msr_enhance.cli.output import say
from msr_enhance.data.columns import Columns
from msr_enhance.data.split import Split, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError, not_one_of

PROTOCOLS = ("window", "paper")
SPLITS = ("scenario", "global", "user")


def read_log(data: Path, column: Sequence[str], items: Path | None) -> InteractionTable:
    """The log of `--data`, `--column` and `--items`, and a line about it on stderr."""
    table = InteractionTable.read(data, Columns.from_options(list(column)), items=items)
    say(
        f"{data.name}: {len(table):,} rows, {len(table.user_ids):,} users, {len(table.item_ids):,} items, "
        f"scenarios {', '.join(table.scenarios)}; {table.labels.mean():.1%} positive"
    )
    return table


def divide(table: InteractionTable, split: str | None, protocol: str, cutoff: str | None) -> Split:
    """The parts of the log that `--split`, `--protocol` and `--cutoff` ask for, said on stderr."""
    if split is not None and split not in SPLITS:
        raise DataError(not_one_of("split", split, SPLITS, "Write --split user."))
    if protocol not in PROTOCOLS:
        raise DataError(not_one_of("protocol", protocol, PROTOCOLS, "Write --protocol window."))
    parts = split_table(table, kind=split, protocol=protocol, cutoff=number(cutoff))  # type: ignore[arg-type]
    tell(parts)
    return parts


def tell(parts: Split) -> None:
    """One line about how a log was divided."""
    say(
        f"split: {parts.reason} Rows: {len(parts.history):,} history, {len(parts.train):,} train, "
        f"{len(parts.validation):,} validation, {len(parts.test):,} test."
    )


def number(text: str | None) -> int | float | str | None:
    """A cut-off as a number where it is one, else as it stands (a date)."""
    for kind in (int, float):
        try:
            return None if text is None else kind(text)
        except ValueError:
            continue
    return text
