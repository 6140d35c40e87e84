"""Data frames and arrays of any make → one polars frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from msr_enhance.errors import DataError


def to_polars(frame: Any) -> pl.DataFrame:
    """Take a frame as it comes.

    Args:
        frame: A polars or pandas frame, or anything with ``__arrow_c_stream__`` (pyarrow, duckdb, ...).

    Returns:
        The same columns in polars.

    Raises:
        DataError: It is no frame, or a column holds values of mixed kinds.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    # pandas also speaks Arrow, but only where pyarrow is installed, and nothing else here needs that.
    if type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
        return _from_pandas(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        return pl.DataFrame(frame)
    raise DataError(
        f"a {type(frame).__name__} is not a data frame; allowed: a polars or pandas frame, or "
        f"anything with __arrow_c_stream__. For plain arrays write "
        f"InteractionTable.from_arrays({{'user_id': [...], ...}})."
    )


def arrays_to_polars(arrays: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> pl.DataFrame:
    """Put columns side by side.

    Args:
        arrays: Column name → values ``[rows]``.

    Returns:
        A frame with these columns.

    Raises:
        DataError: Lengths differ, an array is not one-dimensional, or a column holds values of mixed kinds.
    """
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        seen = ", ".join(f"{name!r}: {length}" for name, length in lengths.items())
        raise DataError(f"the columns have different lengths ({seen}). Give every column one value a row.")
    return pl.DataFrame([_series(name, values) for name, values in arrays.items()])


def _from_pandas(frame: Any) -> pl.DataFrame:
    if not frame.columns.is_unique:
        twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
        raise DataError(
            f"the frame has columns of the same name: {', '.join(twice)}. Rename or drop one of each."
        )
    return arrays_to_polars({str(name): _pandas_values(frame[name]) for name in frame.columns})


def _pandas_values(column: Any) -> Sequence[Any] | npt.NDArray[Any]:
    """Values of a pandas column; missing ones become None, but a NaN in a float column stays a NaN."""
    missing = column.isna().to_numpy()
    if not missing.any() or (isinstance(column.dtype, np.dtype) and column.dtype.kind in "fM"):
        values: npt.NDArray[Any] = column.to_numpy()
        return values
    pairs = zip(column.to_numpy(dtype=object), missing, strict=True)
    return [None if absent else value for value, absent in pairs]


def _series(name: str, values: Sequence[Any] | npt.NDArray[Any]) -> pl.Series:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(f"column {name!r} has shape {list(values.shape)}; a column is [rows].")
        if values.dtype.kind == "M":
            values = values.astype("datetime64[us]")
        elif values.dtype.kind == "O":
            values = values.tolist()
    try:
        return pl.Series(name, values)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"column {name!r} cannot be read as one kind of value: {reason}. "
            f"Give it all integers, all floats, all strings, all booleans or all dates."
        ) from error
