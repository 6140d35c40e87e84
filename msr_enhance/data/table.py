"""InteractionTable: who met which item in which scenario, when, and what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from msr_enhance.data.columns import Columns
from msr_enhance.data.convert import arrays_to_polars, to_polars
from msr_enhance.data.read import read_frame, with_items
from msr_enhance.data.validate import checked
from msr_enhance.errors import DataError, not_one_of

_HASH_ROWS = 65_536


@dataclass(frozen=True, eq=False, repr=False)
class InteractionTable:
    """A checked interaction log; build it with `read`, `from_frame` or `from_arrays`.

    Nothing in it changes: every array it hands out is read-only.

    Attributes:
        columns: The role of each column, resolved for this log.
        frame: The rows. Ids are Int64 or String, scenario and text String, label Float32, clocks Int64 or
            Float64.
        name: The file it came from, for messages; ``""`` without one.
        dated: Whether the time column held dates; its clock then counts microseconds since 1970, UTC.
    """

    columns: Columns
    frame: pl.DataFrame
    name: str = ""
    dated: bool = False

    @classmethod
    def read(
        cls, path: str | Path, columns: Columns | None = None, items: str | Path | None = None
    ) -> InteractionTable:
        """Read a log from a file.

        Args:
            path: A ``.csv``, ``.tsv``, ``.txt`` (tab-separated) or ``.parquet`` file.
            columns: The roles of its columns; None takes the default names.
            items: A table of items whose other columns are added to each row, joined on the item column.

        Returns:
            The checked table.

        Raises:
            DataError: What is wrong with the file, by row and column.
        """
        path, columns = Path(path), columns or Columns()
        frame = read_frame(path, columns)
        if items is not None:
            items = Path(items)
            frame = with_items(frame, read_frame(items, columns), columns.item, path.name, items.name)
        return cls._checked(frame, columns, path.name)

    @classmethod
    def from_frame(cls, frame: object, columns: Columns | None = None) -> InteractionTable:
        """Take a polars or pandas frame, or anything with ``__arrow_c_stream__``.

        Args:
            frame: The log.
            columns: The roles of its columns; None takes the default names.

        Returns:
            The checked table.

        Raises:
            DataError: What is wrong with the frame, by row and column.
        """
        return cls._checked(to_polars(frame), columns or Columns())

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Sequence[Any] | npt.NDArray[Any]], columns: Columns | None = None
    ) -> InteractionTable:
        """Take arrays or lists, one a column.

        Args:
            arrays: Column name → values ``[rows]``.
            columns: The roles of the columns; None takes the default names.

        Returns:
            The checked table.

        Raises:
            DataError: What is wrong with the arrays, by row and column.
        """
        return cls._checked(arrays_to_polars(arrays), columns or Columns())

    @classmethod
    def _checked(cls, frame: pl.DataFrame, columns: Columns, name: str = "") -> InteractionTable:
        columns = columns.resolve(frame.columns)
        dated = columns.time is not None and frame.schema[columns.time].is_temporal()
        return cls(columns, checked(frame, columns, name), name, dated)

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        return (
            f"InteractionTable({len(self)} rows, {len(self.user_ids)} users, {len(self.item_ids)} items, "
            f"scenarios {', '.join(self.scenarios)})"
        )

    @cached_property
    def user_ids(self) -> list[int] | list[str]:
        """The distinct users, sorted."""
        return self.frame[self.columns.user].unique().sort().to_list()

    @cached_property
    def item_ids(self) -> list[int] | list[str]:
        """The distinct items, sorted."""
        return self.frame[self.columns.item].unique().sort().to_list()

    @cached_property
    def scenarios(self) -> tuple[str, ...]:
        """The distinct scenarios, sorted."""
        return tuple(self.frame[self.columns.scenario].unique().sort().to_list())

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The distinct item categories, sorted; empty for a log without a category column."""
        if self.columns.category is None:
            return ()
        names = self.frame[self.columns.category].unique().sort().to_list()
        return tuple(name for name in names if name)

    @cached_property
    def user_index(self) -> npt.NDArray[np.int64]:
        """Each row's position in `user_ids`, int64 ``[rows]``."""
        return self._positions(self.columns.user)

    @cached_property
    def item_index(self) -> npt.NDArray[np.int64]:
        """Each row's position in `item_ids`, int64 ``[rows]``."""
        return self._positions(self.columns.item)

    @cached_property
    def scenario_index(self) -> npt.NDArray[np.int64]:
        """Each row's position in `scenarios`, int64 ``[rows]``."""
        return self._positions(self.columns.scenario)

    @cached_property
    def labels(self) -> npt.NDArray[np.float32]:
        """0 or 1, float32 ``[rows]``."""
        return self.column(self.columns.label)

    @cached_property
    def time(self) -> npt.NDArray[Any] | None:
        """When each row happened, int64 or float64 ``[rows]``; None where only an order is known."""
        return None if self.columns.time is None else self.column(self.columns.time)

    @cached_property
    def order(self) -> npt.NDArray[Any] | None:
        """What came first for one user, int64 or float64 ``[rows]``; None without such a column."""
        return None if self.columns.order is None else self.column(self.columns.order)

    @property
    def clock(self) -> npt.NDArray[Any]:
        """What orders the rows of one user, ``[rows]``: the order where it is given, else the time."""
        clock = self.time if self.order is None else self.order
        if clock is None:
            raise DataError(
                "this table has neither time nor order. Build it with InteractionTable.from_frame."
            )
        return clock

    def column(self, name: str) -> npt.NDArray[Any]:
        """The values of one column.

        Args:
            name: A column of the log.

        Returns:
            A read-only array ``[rows]``; strings are Python objects.

        Raises:
            DataError: The log has no such column.
        """
        if name not in self.frame.columns:
            raise DataError(not_one_of("column", name, self.frame.columns))
        return _read_only(self.frame[name].to_numpy())

    def take(self, rows: npt.NDArray[np.int64]) -> InteractionTable:
        """A table of some rows.

        Args:
            rows: Row positions ``[n]``, in the order wanted.

        Returns:
            A table of n rows; its users, items and scenarios are those that occur in them.
        """
        return replace(self, frame=self.frame[rows])

    def fingerprint(self) -> str:
        """Names the content: sha256 over user, item, scenario, label, time, order and text, row after row.

        Returns:
            64 hex digits; the names of the columns, the features and the chunks in memory do not matter.
        """
        digest = hashlib.sha256()
        roles = self.columns.model_dump(include={"user", "item", "scenario", "label", "time", "order"})
        named = [(role, name) for role, name in roles.items() if name is not None]
        for role, name in named + [("text", name) for name in self.columns.text]:
            series = self.frame[name]
            digest.update(f"{role} {series.dtype} {len(series)}\n".encode())
            for at in range(0, len(series), _HASH_ROWS):
                part = series.slice(at, _HASH_ROWS)
                values = part.str.len_bytes().cast(pl.Int64) if part.dtype == pl.String else part
                array = values.to_numpy()
                digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
                if part.dtype == pl.String:
                    digest.update("".join(part.to_list()).encode())
        return digest.hexdigest()

    def _positions(self, name: str) -> npt.NDArray[np.int64]:
        return _read_only((self.frame[name].rank("dense").cast(pl.Int64) - 1).to_numpy())


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array
