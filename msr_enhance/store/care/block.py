"""One new shard, of rows that lie in many old ones, as they are or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreError
from msr_enhance.store import seal
from msr_enhance.store.care.gather import Keep, LevelRows, Rename
from msr_enhance.store.entry import Shard
from msr_enhance.store.frame import Array
from msr_enhance.store.numbers import as_float32, itemsize
from msr_enhance.store.record import IdType, Layout, is_known
from msr_enhance.store.shard import Heads, write_vectors
from msr_enhance.store.texts import Block, write_texts

_BLOCK_BYTES: Final = 64 << 20
"""Vectors that are held in memory at once; gathering more of them opens fewer files."""


Convert = Callable[[npt.NDArray[np.float32]], Array]


class Change(NamedTuple):
    """What becomes of the rows of a level; by default nothing.

    Attributes:
        keep: Which of some ids to take, bool ``[ids]``.
        rename: The ids that some ids get, in order; the same for the same ids however often it is called.
        id_type: Type of these.
        convert: Vectors float32 ``[rows, width]``, as a reader gets them, to what is kept of them,
            ``[rows, new width]``. Rows without knowledge are zeros whatever it gives for them. Without it
            the bytes of vectors stay as they are.
        shape: Of one vector after that.
    """

    keep: Keep | None = None
    rename: Rename | None = None
    id_type: IdType | None = None
    convert: Convert | None = None
    shape: tuple[int, ...] | None = None


class NewShard(NamedTuple):
    """The rows of one new shard.

    Attributes:
        rows: All rows of its level.
        start: The first of its rows.
        end: The one after its last.
        layout: Of the new shard.
        convert: From vectors as they were kept to vectors as they are kept now.
    """

    rows: LevelRows
    start: int
    end: int
    layout: Layout
    convert: Callable[[Array], Array] | None

    def write(self, folder: Path, texts: bool) -> Shard:
        """Write its files.

        Args:
            folder: Where.
            texts: Whether the texts of its rows too.

        Returns:
            How a manifest names it.

        Raises:
            StoreCorruptError: If a row is not what was written.
            StoreError: If a number is too large for the type it gets.
            OSError: If the disk refuses.
        """
        ids: list[Any] = self.rows.ids(self.start, self.end)
        some = slice(self.start, self.end)
        heads = Heads(ids, self.rows.status[some], self.rows.tokens[some])
        file, crc = write_vectors(folder, self.layout, heads, self._vectors(ids))
        stored = None
        if texts:
            lengths, found = self.rows.texts(self.start, self.end)
            stored = write_texts(folder, lengths, _blocks(lengths, found))
        return Shard(level=self.layout.level, rows=len(ids), vectors=file, heads=crc, texts=stored)

    def _vectors(self, ids: list[Any]) -> Iterator[Array]:
        row_bytes = self.layout.width * max(itemsize(self.layout.dtype), 4)
        step = max(seal.BLOCK_ROWS, _BLOCK_BYTES // row_bytes)
        for start in range(self.start, self.end, step):
            end = min(start + step, self.end)
            vectors = self.rows.vectors(start, end)
            if self.convert:
                vectors = self._converted(vectors, start, ids)
            yield vectors

    def _converted(self, vectors: Array, start: int, ids: list[Any]) -> Array:
        status = self.rows.status[start : start + len(vectors)]
        new = self.convert(vectors) if self.convert else vectors
        new[~is_known(status)] = 0
        finite = np.isfinite(as_float32(new, self.layout.dtype)).all(axis=1)
        if not finite.all():
            name = ids[start - self.start + int(np.flatnonzero(~finite)[0])]
            raise StoreError(
                f"the vector of {self.layout.level} {name!r} is not finite as {self.layout.dtype}. "
                "Write --dtype float32 or bfloat16."
            )
        gone = np.flatnonzero(is_known(status) & vectors.any(axis=1) & ~new.any(axis=1))
        if len(gone):
            name = ids[start - self.start + int(gone[0])]
            raise StoreError(
                f"the vector of {self.layout.level} {name!r} would be zeros, "
                "which stand for no knowledge: its numbers are too small beside the others. Write --dtype "
                "float32 or bfloat16, or more --dim."
            )
        return new


def _blocks(lengths: npt.NDArray[np.int64], texts: list[bytes]) -> Iterator[Block]:
    for start in range(0, len(texts), seal.BLOCK_ROWS):
        end = start + seal.BLOCK_ROWS
        yield lengths[start:end], b"".join(texts[start:end])
