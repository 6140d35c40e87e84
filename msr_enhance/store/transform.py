"""Maps: how vectors were changed after they had been read, kept beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from msr_enhance.store.entry import Map
from msr_enhance.store.files import StoreFiles, put
from msr_enhance.store.frame import Frame, corrupt
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import Level

Floats = npt.NDArray[np.float32]


def write_map(
    folder: Path, level: Level, kind: Literal["int8", "project"], offset: Floats, matrix: Floats
) -> Map:
    """Write how the vectors of a level were changed.

    Args:
        folder: The store's folder.
        level: The level.
        kind: ``int8`` or ``project``.
        offset: What was taken away before, ``[width before]``; nothing for int8.
        matrix: Scale ``[width]`` or components ``[dim, width before]``.

    Returns:
        How a manifest names it.

    Raises:
        OSError: If the disk refuses.
    """
    frame = _frame(kind, matrix.shape)
    pieces = [frame.header, offset.astype("<f4").tobytes(), np.ascontiguousarray(matrix, "<f4").tobytes()]
    return Map(level=level, kind=kind, shape=matrix.shape, file=put(folder, "map", pieces))


def read_map(files: StoreFiles, made: Map) -> tuple[Floats, Floats]:
    """Offset and matrix of a map; see ``write_map``.

    Raises:
        StoreCorruptError: If its file is not what was written.
        StoreIOError: If the disk refuses.
    """
    frame = _frame(made.kind, made.shape) if 4 * made.shape[-1] <= made.file.bytes else None
    if frame is None or frame.bytes != made.file.bytes:
        raise corrupt(made.file.name, f"a map of shape {list(made.shape)} has another size")
    data = files.read(made.file)
    if data[: len(frame.header)] != frame.header:
        raise corrupt(made.file.name, "its header names other tensors than the manifest")
    offset, matrix = (
        frame.spans[name].array(memoryview(data)[frame.spans[name].start : frame.spans[name].end])
        for name in ("offset", "matrix")
    )
    if not (np.isfinite(offset).all() and np.isfinite(matrix).all()):
        raise corrupt(made.file.name, "it has NaN or infinity")
    return offset, matrix


def read_scale(files: StoreFiles, manifest: Manifest, level: Level) -> Floats | None:
    """What each dimension of an int8 level is multiplied with, ``[width]``; None for other types."""
    for made in manifest.maps:
        if made.level == level and made.kind == "int8":
            scale = read_map(files, made)[1]
            if scale.shape != (manifest.layout(level).width,):
                raise corrupt(
                    made.file.name, f"it scales {scale.shape[0]:,} numbers, the vectors have others"
                )
            return scale
    return None


def _frame(kind: str, shape: tuple[int, ...]) -> Frame:
    before = shape[1] if kind == "project" and len(shape) == 2 else 0
    return Frame.of({"offset": ("F32", (before,)), "matrix": ("F32", shape)}, {"kind": kind})
