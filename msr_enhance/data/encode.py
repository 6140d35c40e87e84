"""Columns → small integers for the embedding tables of the reference backbones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from msr_enhance.data.table import InteractionTable
from msr_enhance.data.validate import refuse_nested

_BINS = 16
_DISTINCT_FLOATS = 32


@dataclass(frozen=True, eq=False)
class _Vocabulary:
    """A categorical field: the values it knows, as Int64 or String."""

    values: pl.Series

    @property
    def size(self) -> int:
        return len(self.values) + 1

    def encode(self, series: pl.Series) -> npt.NDArray[np.int64]:
        codes = pl.Series(range(1, self.size), dtype=pl.Int64)
        known = _categorical(series).cast(self.values.dtype, strict=False)
        return known.replace_strict(self.values, codes, default=0, return_dtype=pl.Int64).to_numpy()


@dataclass(frozen=True, eq=False)
class _Bins:
    """A float field: bin i holds the values from edge i - 1 up to, not including, edge i."""

    edges: npt.NDArray[np.float64]

    @property
    def size(self) -> int:
        return len(self.edges) + 2

    def encode(self, series: pl.Series) -> npt.NDArray[np.int64]:
        values = series.cast(pl.Float64, strict=False)
        codes = 1 + np.searchsorted(self.edges, values.fill_null(0.0).to_numpy(), side="right")
        return np.where(values.is_null().to_numpy(), 0, codes)


@dataclass(frozen=True, eq=False)
class FeatureEncoder:
    """Numbers the values of user, item, scenario and each feature, as learned from the fitted rows alone.

    Code 0 is unknown, missing or never seen in fitting; known values count from 1. The scenario field knows
    every scenario of the fitted table.

    Attributes:
        names: The column of each field: user, item, scenario, then the features.
    """

    names: tuple[str, ...]
    _fields: tuple[_Vocabulary | _Bins, ...]

    @classmethod
    def fit(cls, table: InteractionTable, rows: npt.NDArray[np.int64]) -> FeatureEncoder:
        """Learn the vocabularies.

        Args:
            table: The log.
            rows: The rows to learn from ``[n]``: the training rows.

        Returns:
            An encoder with a vocabulary a field; float features with more than 32 distinct values become 16
            bins with equally many of these rows.
        """
        columns = table.columns
        features = columns.features or ()
        fitted = table.frame[rows]
        scenarios = _Vocabulary(pl.Series(table.scenarios, dtype=pl.String))
        fields = [_learned(fitted[name]) for name in (columns.user, columns.item, *features)]
        names = (columns.user, columns.item, columns.scenario, *features)
        return cls(names, (*fields[:2], scenarios, *fields[2:]))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each field has, 0 included."""
        return tuple(field.size for field in self._fields)

    def encode(
        self, table: InteractionTable, rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.int64]:
        """Number the values of some rows.

        Args:
            table: A log with the fitted columns.
            rows: Row positions ``[n]``; None takes every row.

        Returns:
            Codes, int64 ``[n, fields]``, each below its field's size.

        Raises:
            DataError: The log lacks a fitted column, or its cells are no single values.
        """
        for name in self.names:
            table.column(name)
        refuse_nested(table.frame, self.names)
        frame = table.frame.select(self.names) if rows is None else table.frame.select(self.names)[rows]
        codes = [field.encode(frame[name]) for name, field in zip(self.names, self._fields, strict=True)]
        return np.stack(codes, axis=1)


def _learned(series: pl.Series) -> _Vocabulary | _Bins:
    if series.dtype.is_float() and series.n_unique() > _DISTINCT_FLOATS:
        values = series.drop_nulls().cast(pl.Float64).to_numpy()
        # "lower" takes edges from the values themselves, so that an infinity cannot make a NaN.
        edges = np.quantile(values, np.arange(1, _BINS) / _BINS, method="lower")
        return _Bins(np.unique(edges))
    return _Vocabulary(_categorical(series).drop_nulls().unique().sort())


def _categorical(series: pl.Series) -> pl.Series:
    """Integers as they are, everything else as strings; an empty string is missing."""
    if series.dtype.is_integer():
        return series.cast(pl.Int64, strict=False)
    text = series.cast(pl.String)
    return text.set(text == "", None)
