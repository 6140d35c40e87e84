"""A batch of records, checked and as a shard keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from msr_enhance.errors import StoreError, not_one_of
from msr_enhance.store.frame import Array
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.numbers import as_float32, as_kept
from msr_enhance.store.record import KNOWN, STATUSES, IdType, Level, Record, exact_id
from msr_enhance.store.shard import Heads
from msr_enhance.store.texts import Block, as_block, text_pieces


class Batch(NamedTuple):
    """Rows ready to be written.

    Attributes:
        heads: Their ids, states and token counts.
        shape: Of one vector.
        id_type: Of the ids.
        vectors: As they are kept, ``[rows, width]``.
        texts: Prompts, answers and facts.
    """

    heads: Heads
    shape: tuple[int, ...]
    id_type: IdType
    vectors: Array
    texts: Block


def checked_batch(manifest: Manifest, level: Level, records: Sequence[Record], source: str) -> Batch:
    """Check records against a store.

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
    for name, record in zip(ids, records, strict=True):
        _check_fields(level, name, record)
    kind = _id_type(manifest, level, ids, source)
    shape = manifest.shape.get(level) or np.shape(records[0].vector)
    if manifest.dtype == "int8" or manifest.maps or level in manifest.keyed:
        raise StoreError(
            f"{source} was made from another store (int8, projected or keyed ids) and takes no rows; add "
            "them to the store it was made from, and make it again."
        )
    kept = _vectors(manifest.dtype, shape, level, ids, records, source)
    heads = Heads(
        cast("list[int] | list[str]", ids),
        np.array([STATUSES.index(record.status) for record in records], np.uint8),
        np.array([(record.prompt_tokens, record.answer_tokens) for record in records], np.int32),
    )
    try:
        texts = as_block(map(text_pieces, records))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{level} ids {ids[0]!r} to {ids[-1]!r} have a text that is not Unicode, or facts that are "
            f"not JSON: {error}. Facts may hold text, finite numbers, lists, and mappings by text."
        ) from error
    return Batch(heads, shape, kind, kept, texts)


def _check_fields(level: Level, name: int | str, record: Record) -> None:
    """Refuse what is of another type than a record says, and would be kept as something else."""
    counts = (record.prompt_tokens, record.answer_tokens)
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in counts):
        raise StoreError(f"{level} {name!r} has token counts {counts!r}; write whole numbers.")
    if not isinstance(record.prompt, str) or not isinstance(record.text, str):
        raise StoreError(f"{level} {name!r} has a prompt or an answer that is no text; '' stands for none.")
    try:
        kind = str(np.asarray(record.vector).dtype.kind)
    except ValueError:
        kind = "rows of different lengths"
    if kind not in ("f", "i", "u"):
        raise StoreError(f"the vector of {level} {name!r} holds no numbers ({kind}); write a float32 array.")


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
) -> Array:
    """The vectors as they are kept, ``[rows, width]``; rows without knowledge are zeros."""
    if len(shape) not in (1, 2) or 0 in shape:
        raise StoreError(
            f"the vector of {level} {ids[0]!r} has shape {shape}; allowed: (dim,) or (n_layers, dim)."
        )
    given = np.zeros((len(records), *shape), np.float32)
    for row, name, record in zip(given, ids, records, strict=True):
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
    kept = as_kept(given.reshape(len(records), -1), dtype)
    wrong = np.flatnonzero(~np.isfinite(as_float32(kept, dtype)).all(axis=1))
    if len(wrong):
        raise StoreError(
            f"the vector of {level} {ids[int(wrong[0])]!r} is not finite as {dtype}. "
            "Write dtype='float32' if it was finite before, else status='failed'."
        )
    return kept
