"""Numbers: vectors as they are kept, and as they are handed out."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from msr_enhance.store.frame import STORED_AS, Array

Dtype = Literal["float32", "float16", "bfloat16"]
KeptDtype = Literal["float32", "float16", "bfloat16", "int8"]

DTYPES: Final[tuple[Dtype, ...]] = get_args(Dtype)
KIND: Final[dict[str, str]] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}


def itemsize(dtype: str) -> int:
    """Bytes of a number."""
    return STORED_AS[KIND[dtype]].itemsize


def as_kept(vectors: npt.NDArray[np.floating], dtype: str) -> Array:
    """Vectors as a file holds them; a number too large for the type becomes an infinity.

    Args:
        vectors: ``[rows, width]``.
        dtype: ``float32``, ``float16`` or ``bfloat16``.

    Returns:
        ``[rows, width]``; of bfloat16 the bits, rounded to nearest, ties to even.
    """
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return vectors.astype(STORED_AS[KIND[dtype]])
    bits = np.ascontiguousarray(vectors, "<f4").view("<u4")
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40  # a NaN must not round to an infinity
    found: Array = np.where(np.isnan(vectors), quiet, rounded).astype("<u2")
    return found


def fits(vector: npt.NDArray[np.floating], dtype: str) -> bool:
    """Whether every number of a vector is finite as ``dtype`` keeps it."""
    return bool(np.isfinite(as_float32(as_kept(np.reshape(vector, (1, -1)), dtype), dtype)).all())


def as_float32(
    kept: Array, dtype: str, scale: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Vectors as they are handed out: a new array.

    Args:
        kept: ``[rows, width]`` as a file holds them.
        dtype: How they are kept.
        scale: Of int8, what each dimension is multiplied with, ``[width]``.

    Returns:
        float32 ``[rows, width]``.
    """
    if dtype == "bfloat16":
        return (kept.astype(np.uint32) << 16).view(np.float32)
    found = kept.astype(np.float32)
    if scale is not None:
        with np.errstate(over="ignore"):  # infinities are refused where rows are read
            found *= scale
    return found
