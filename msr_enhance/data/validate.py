"""A raw frame → the frame of an interaction table, or a refusal that names the row and the column."""

from __future__ import annotations

import polars as pl

from msr_enhance.data.columns import Columns
from msr_enhance.errors import DataError

# Control and format characters (line breaks, bidi, zero width) are invisible: two ids would look alike.
_HIDDEN_IN_ID = r"[\p{Cc}\p{Cf}]"
# Scenario names go to people and prompts in any language, and some scripts need zero-width joiners.
_HIDDEN_IN_NAME = r"\p{Cc}"


def checked(frame: pl.DataFrame, columns: Columns, name: str = "") -> pl.DataFrame:
    """Check every value that has a role and give it its one type.

    Args:
        frame: The log as read.
        columns: Resolved columns of this log.
        name: The file's name, for messages.

    Returns:
        Ids as Int64 or String, scenario and text as String (missing text is ``""``), label as Float32, time
        and order as Int64 or Float64 (dates as microseconds since 1970, UTC); other columns as they were.

    Raises:
        DataError: The first bad value, by row and column.
    """
    if frame.is_empty():
        raise DataError(f"the log{' ' + name if name else ''} has no rows. Give it at least one interaction.")
    for series in frame:
        if series.dtype.is_float():
            write = "Fill it, or leave it empty (null) where the column is only a feature"
            refuse(series.is_nan(), series, "is not a number", write, name)
    clocks = [role for role in (columns.time, columns.order) if role is not None]
    for role in (columns.user, columns.item, columns.scenario, columns.label, *clocks):
        refuse(frame[role].is_null(), frame[role], "is missing", "Fill it or drop the row", name)
    refuse_nested(frame, (*columns.text, *(columns.features or ())))
    return frame.with_columns(
        _ids(frame[columns.user], name),
        _ids(frame[columns.item], name),
        _scenario(frame[columns.scenario], name),
        _label(frame[columns.label], name),
        *(_clock(frame[role], name) for role in clocks),
        *(frame[text].cast(pl.String).fill_null("") for text in columns.text),
    )


def refuse(bad: pl.Series, series: pl.Series, problem: str, write: str, name: str) -> None:
    """Raise for the first bad row, if there is one.

    Args:
        bad: Boolean ``[rows]``.
        series: The column it speaks of.
        problem: What is wrong, as the end of "the value ...".
        write: What to do instead.
        name: The file's name, or ``""``.

    Raises:
        DataError: A row is bad; rows count from 1 and a header does not count.
    """
    row = bad.arg_max()
    if row is None or not bad[row]:
        return
    where = f"row {row + 1}{' of ' + name if name else ''}, column {series.name!r}"
    count = int(bad.sum())
    more = f" ({count} such rows)" if count > 1 else ""
    raise DataError(f"{where}: {repr(series[row])[:80]} {problem}{more}. {write}.")


def refuse_nested(frame: pl.DataFrame, names: tuple[str, ...]) -> None:
    """Refuse text and feature columns whose cells are no single values.

    Args:
        frame: The log.
        names: The columns to look at.

    Raises:
        DataError: A column holds lists, structs, bytes or Python objects.
    """
    for name in names:
        dtype = frame.schema[name]
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            raise DataError(
                f"column {name!r} holds {dtype} cells; text and features are numbers, strings, booleans or "
                f"dates. Join the cells into one string, or leave the column out of features."
            )


def _ids(series: pl.Series, name: str) -> pl.Series:
    if series.dtype.is_integer():
        wide = series.cast(pl.Int64, strict=False)
        refuse(wide.is_null(), series, "does not fit in 64 bits", "Write the ids as strings", name)
        return wide
    if series.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DataError(
            f"column {series.name!r} holds {series.dtype} values; ids are integers or strings. "
            f"Cast it first, for example .cast(int) where every value is a whole number."
        )
    text = series.cast(pl.String)
    refuse(text.str.strip_chars() == "", text, "is an empty id", "Fill it or drop the row", name)
    bad = text.str.contains(_HIDDEN_IN_ID)
    refuse(bad, text, "has control or invisible characters", "Clean the ids where the log is made", name)
    return text


def _scenario(series: pl.Series, name: str) -> pl.Series:
    if series.dtype.is_float() or series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"column {series.name!r} holds {series.dtype} values; a scenario is a name or a whole number. "
            f"Cast it to strings or integers first."
        )
    text = series.cast(pl.String)
    refuse(text.str.strip_chars() == "", text, "is an empty scenario name", "Name the scenario", name)
    refuse(text.str.contains(_HIDDEN_IN_NAME), text, "has control characters", "Write a plain name", name)
    return text


def _label(series: pl.Series, name: str) -> pl.Series:
    if not (series.dtype == pl.Boolean or series.dtype.is_numeric()):
        raise DataError(
            f"column {series.name!r} holds {series.dtype} values; a label is 0, 1, false or true. "
            f"Turn it into numbers first, for example (rating > 3)."
        )
    values = series.cast(pl.Float64)
    write = "Turn ratings into labels first, for example (rating > 3)"
    refuse(~((values == 0) | (values == 1)), series, "is not a label; allowed: 0 and 1", write, name)
    return values.cast(pl.Float32)


def _clock(series: pl.Series, name: str) -> pl.Series:
    if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        return series.cast(pl.Datetime("us", getattr(series.dtype, "time_zone", None))).cast(pl.Int64)
    if series.dtype.is_float():
        refuse(series.is_infinite(), series, "is no point in time", "Write a finite number", name)
        return series.cast(pl.Float64)
    if series.dtype.is_integer():
        wide = series.cast(pl.Int64, strict=False)
        refuse(wide.is_null(), series, "does not fit in 64 bits", "Write seconds or microseconds", name)
        return wide
    raise DataError(
        f"column {series.name!r} holds {series.dtype} values, for example {series[0]!r}; time and order are "
        f"numbers or dates. Write numbers, ISO dates (2024-05-22 10:00:00) in a CSV file, or parse the "
        f"strings first, for example pl.col({series.name!r}).str.to_datetime()."
    )
