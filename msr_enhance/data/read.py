"""Log files → one raw polars frame: CSV, TSV, Parquet, and a table of items joined on."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from msr_enhance.data.columns import Columns
from msr_enhance.data.validate import refuse
from msr_enhance.errors import DataError, not_one_of

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_frame(path: Path, columns: Columns) -> pl.DataFrame:
    """Read one file by its suffix.

    In text files ids, scenarios and item texts are read as they are written, so that ``007`` is not ``7``; a
    column of ids becomes integers only where every id is written the way an integer is.

    Args:
        path: A ``.csv``, ``.tsv``, ``.txt`` (tab-separated) or ``.parquet`` file; text files have a header.
        columns: Which columns are ids, scenarios and text; absent ones are nobody's business here.

    Returns:
        The rows of the file.

    Raises:
        DataError: No such file, another suffix, or bytes that are not such a file.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, ".parquet"):
        write = f"Convert {path.name} to one of these."
        raise DataError(not_one_of("file suffix", suffix, (*_SEPARATORS, ".parquet"), write))
    if not path.is_file():
        raise DataError(f"there is no file {path}. Write the path of a log.")
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path)
        as_written = {columns.user, columns.item, columns.scenario, columns.category, *columns.text}
        frame = pl.read_csv(
            path,
            separator=_SEPARATORS[suffix],
            schema_overrides={name: pl.String for name in as_written if name is not None},
            infer_schema_length=None,
            try_parse_dates=True,
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{path.name} cannot be read as {suffix[1:]}: {reason}. "
            f"Text files are UTF-8 with a header and as many fields in every row."
        ) from error
    ids = [name for name in (columns.user, columns.item) if name in frame.columns]
    return frame.with_columns(_as_numbers(frame[name]) for name in ids)


def with_items(
    log: pl.DataFrame, items: pl.DataFrame, column: str, log_name: str, items_name: str
) -> pl.DataFrame:
    """Add to every row what the table of items says of its item.

    Args:
        log: The interactions.
        items: One row an item.
        column: The item column, of the same name in both.
        log_name: The log's file name, for messages.
        items_name: The item table's file name, for messages.

    Returns:
        The log in its own order with the other columns of ``items``.

    Raises:
        DataError: No item column, a column that both have, an item twice, or an item of the log that is not
            there.
    """
    for frame, name in ((log, log_name), (items, items_name)):
        if column not in frame.columns:
            raise DataError(
                f"{name} has no item column {column!r}; its columns are: "
                f"{', '.join(map(repr, frame.columns))}. Rename one, or write --column item=NAME."
            )
    both = [name for name in items.columns if name != column and name in log.columns]
    if both:
        raise DataError(
            f"{log_name} and {items_name} both have {', '.join(map(repr, both))}. Drop or rename one of each."
        )
    refuse(items[column].is_null(), items[column], "is missing", "Fill it or drop the row", items_name)
    wanted, keys = log[column], items[column]
    if wanted.dtype != keys.dtype:
        wanted, keys = wanted.cast(pl.String), keys.cast(pl.String)
    refuse(~keys.is_first_distinct(), keys, "was there before", "Keep one row an item", items_name)
    places = pl.Series(range(len(keys)), dtype=pl.Int64)
    position = wanted.replace_strict(keys, places, default=None, return_dtype=pl.Int64)
    # A missing item id of the log itself is refused later, with every other missing value of a role.
    absent = position.is_null() & wanted.is_not_null()
    refuse(absent, wanted, f"is not in {items_name}", "Add the item there or drop the row", log_name)
    return log.hstack(items.drop(column).select(pl.all().gather(position)))


def _as_numbers(ids: pl.Series) -> pl.Series:
    """Integers where every id is written as one; floats, to be refused later, where every id is a float."""
    if _all_match(ids, r"^(0|-?[1-9][0-9]{0,17})$"):
        return ids.cast(pl.Int64)
    if _all_match(ids, r"^-?[0-9]+\.[0-9]*$"):
        return ids.cast(pl.Float64)
    return ids


def _all_match(ids: pl.Series, pattern: str) -> bool:
    return ids.null_count() < len(ids) and bool(ids.str.contains(pattern).all(ignore_nulls=True))
