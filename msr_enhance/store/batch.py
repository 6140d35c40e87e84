"""A batch of records, checked and as the bytes of one shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreError, not_one_of
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import KNOWN, STATUSES, IdType, Level, Record, exact_id
from msr_enhance.store.shard import Heads, Layout, encode_texts, encode_vectors, text_pieces


class Batch(NamedTuple):
    """Rows ready to be written.

    Attributes:
        ids: Their ids.
        status: Positions in ``STATUSES``.
        shape: Of one vector.
        id_type: Of the ids.
        vectors: Content of the vector file.
        texts: Content of the text file.
    """

    ids: list[int | str]
    status: list[int]
    shape: tuple[int, ...]
    id_type: IdType
    vectors: bytes
    texts: bytes


def encode_batch(manifest: Manifest, level: Level, records: Sequence[Record], source: str) -> Batch:
    """Check records against a store and encode them.

    Args:
        manifest: Of the store.
        level: The records' level.
        records: The records, at least one.
        source: The store's folder, for messages.

    Returns:
        The batch.

    Raises:
        StoreError: If an id, a status, a vector or a text cannot be kept.
    """
    ids = [exact_id(record.id) for record in records]
    kind = _id_type(manifest, level, ids, source)
    shape = manifest.shape.get(level) or np.shape(records[0].vector)
    kept = _vectors(manifest.dtype, shape, level, ids, records, source)
    layout = Layout(level, kept.shape[1], manifest.dtype, kind)
    status = [STATUSES.index(record.status) for record in records]
    heads = Heads(
        cast("list[int] | list[str]", ids),
        np.array(status, np.uint8),
        np.array([(record.prompt_tokens, record.answer_tokens) for record in records], np.int32),
    )
    try:
        pieces = [piece for record in records for piece in text_pieces(record)]
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{level} ids {ids[0]!r} to {ids[-1]!r} have a text that is not Unicode, or facts that are "
            f"not JSON: {error}. Facts may hold text, finite numbers, lists, and mappings by text."
        ) from error
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    vectors = b"".join(encode_vectors(layout, heads, [kept]))
    return Batch(ids, status, shape, kind, vectors, b"".join(encode_texts(lengths, pieces)))


def _id_type(manifest: Manifest, level: Level, ids: Sequence[int | str], source: str) -> IdType:
    kinds: set[IdType] = {"int" if isinstance(name, int) else "str" for name in ids}
    kind: IdType = manifest.id_type.get(level, min(kinds))
    if kinds != {kind}:
        raise StoreError(
            f"{level} ids of type {' and '.join(sorted(kinds))} were given; {source} takes {kind}. "
            f"Write {kind}(id)."
        )
    return kind


def _vectors(
    dtype: str,
    shape: tuple[int, ...],
    level: Level,
    ids: Sequence[int | str],
    records: Sequence[Record],
    source: str,
) -> npt.NDArray[np.floating[Any]]:
    """The vectors as they are kept, ``[rows, width]``; rows without knowledge are zeros."""
    if len(shape) not in (1, 2) or 0 in shape:
        raise StoreError(
            f"the vector of {level} {ids[0]!r} has shape {shape}; allowed: (dim,) or (n_layers, dim)."
        )
    kept = np.zeros((len(records), *shape), dtype)
    for row, name, record in zip(kept, ids, records, strict=True):
        if record.status not in STATUSES:
            raise StoreError(f"{level} {name!r}: {not_one_of('status', record.status, STATUSES)}")
        if not (0 <= record.prompt_tokens < 2**31 and 0 <= record.answer_tokens < 2**31):
            raise StoreError(f"{level} {name!r} has token counts outside 0 to 2**31; count them again.")
        if np.shape(record.vector) != shape:
            raise StoreError(
                f"the vector of {level} {name!r} has shape {np.shape(record.vector)}; {source} holds "
                f"{list(shape)}. Vectors of another model need a store of their own."
            )
        if record.status in KNOWN:
            with np.errstate(over="ignore"):  # looked at right below
                row[:] = record.vector
            if not np.isfinite(row).all():
                raise StoreError(
                    f"the vector of {level} {name!r} is not finite as {dtype}. "
                    "Write dtype='float32' if it was finite before, else status='failed'."
                )
    flat: npt.NDArray[np.floating[Any]] = kept.reshape(len(records), -1)
    return flat
