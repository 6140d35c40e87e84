"""Tensors: one safetensors file, checked against what was promised of it, or written piece by piece.

Files are written in an order of our own: the same tensors give the same bytes whatever release of
safetensors is installed. Its parser reads them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from msr_enhance.errors import StoreCorruptError

HEADER_BYTES = 1 << 20

Array = npt.NDArray[Any]
Promised = Mapping[str, tuple[Any, tuple[int, ...]]]
"""Type and shape of every tensor of a file; ``-1`` in a shape is any length."""

_KINDS = {"int64": "I64", "int32": "I32", "uint8": "U8", "float32": "F32", "float16": "F16"}


def tensors_of(data: bytes, source: str, promised: Promised) -> dict[str, Array]:
    """The tensors of a file.

    Args:
        data: The file's content.
        source: Its name, for messages.
        promised: What the file must hold.

    Returns:
        Every tensor by name.

    Raises:
        StoreCorruptError: If anything is not as promised.
    """
    _check_header_size(data[:8], source)
    try:
        tensors: dict[str, Array] = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise corrupt(source, str(error)) from error
    seen = {name: (_KINDS.get(array.dtype.name), list(array.shape)) for name, array in tensors.items()}
    _compare(seen, source, promised)
    return tensors


def some_tensors(path: Path, promised: Promised, wanted: Iterable[str]) -> dict[str, Array]:
    """Some tensors of a file, once names, types and shapes of all are right; see ``tensors_of``."""
    with path.open("rb") as file:
        _check_header_size(file.read(8), path.name)
    try:
        with safetensors.safe_open(path, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            seen = {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}
            _compare(seen, path.name, promised)
            return {name: opened.get_tensor(name) for name in wanted}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise corrupt(path.name, str(error)) from error


def header(
    tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The first bytes of a file whose tensors follow in this order.

    Args:
        tensors: Type and shape of each.
        metadata: Texts to keep beside them.

    Returns:
        The bytes; what follows them is aligned to eight.
    """
    content: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + dtype.itemsize * math.prod(shape)
        content[name] = {"dtype": _KINDS[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def packed(name: str, count: int) -> Promised:
    """What texts that lie in one blob promise: the blob, and the places where each begins and ends."""
    return {f"{name}_offsets": (np.int64, (count + 1,)), f"{name}_bytes": (np.uint8, (-1,))}


def unpack(name: str, tensors: Mapping[str, Array], source: str) -> list[bytes]:
    """The texts of one blob; places that do not divide it are a ``StoreCorruptError``."""
    blob, ends = tensors[f"{name}_bytes"].tobytes(), tensors[f"{name}_offsets"]
    if ends[0] != 0 or ends[-1] != len(blob) or (ends[1:] < ends[:-1]).any():
        raise corrupt(source, f"{name}_offsets do not divide the {len(blob)} bytes they belong to")
    return [blob[start:end] for start, end in itertools.pairwise(ends.tolist())]


def corrupt(source: str, what: str) -> StoreCorruptError:
    """The error for a file that is not what was written."""
    return StoreCorruptError(
        f"{source} is not as it was written: {what}. Fetch the store again, or extract into a new folder."
    )


def _check_header_size(first: bytes, source: str) -> None:
    if int.from_bytes(first, "little") > HEADER_BYTES:
        raise corrupt(source, f"has a header over {HEADER_BYTES >> 20} MiB")


def _compare(seen: Mapping[str, tuple[str | None, list[int]]], source: str, promised: Promised) -> None:
    if seen.keys() != promised.keys():
        raise corrupt(source, f"holds {', '.join(sorted(seen))}; expected {', '.join(sorted(promised))}")
    for name, (dtype, shape) in promised.items():
        kind, have = seen[name]
        fits = len(have) == len(shape) and all(
            want in (-1, count) for count, want in zip(have, shape, strict=True)
        )
        if kind != _KINDS[np.dtype(dtype).name] or not fits:
            raise corrupt(source, f"{name} is {kind} {have}; expected {np.dtype(dtype)} {list(shape)}")
