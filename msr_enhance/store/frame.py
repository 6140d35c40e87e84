"""Frame: a safetensors file of known tensors, so that its header need not be read but only compared.

Every header of a store follows from its manifest. A file that begins with any other bytes is refused, and
no header that somebody else wrote is ever parsed; any safetensors reader reads the files all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreCorruptError

Array = npt.NDArray[Any]

STORED_AS: Final[Mapping[str, np.dtype[Any]]] = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: its bits
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}


class Span(NamedTuple):
    """Where a tensor lies in a file.

    Attributes:
        kind: Its type, as safetensors calls it.
        shape: Its shape.
        start: Its first byte in the file.
        end: The byte after its last.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int

    def array(self, data: bytes | bytearray | memoryview) -> Array:
        """The tensor from its bytes."""
        return np.frombuffer(data, STORED_AS[self.kind]).reshape(self.shape)


class Frame(NamedTuple):
    """Header of a file, and where each of its tensors lies.

    Attributes:
        header: The first bytes of the file.
        spans: The tensors in the order in which they follow.
        bytes: The size of the file.
    """

    header: bytes
    spans: dict[str, Span]
    bytes: int

    @classmethod
    def of(
        cls, tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
    ) -> Self:
        """The frame of some tensors.

        Args:
            tensors: Type and shape of each, in order.
            metadata: Texts to keep beside them.

        Returns:
            The frame; the same arguments give the same bytes whatever library is installed.
        """
        content: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, (kind, shape) in tensors.items():
            start, end = end, end + STORED_AS[kind].itemsize * math.prod(shape)
            places[name] = start, end
            content[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 64)  # what follows is aligned for whoever maps the file
        header = len(text).to_bytes(8, "little") + text
        first = len(header)
        spans = {
            name: Span(*tensors[name], first + start, first + end) for name, (start, end) in places.items()
        }
        return cls(header, spans, first + end)


def corrupt(source: str, what: str) -> StoreCorruptError:
    """The error for a file that is not what was written."""
    return StoreCorruptError(
        f"{source} is not as it was written: {what}. Fetch the store again, or write: "
        f"msr-enhance store repair {source.rpartition('/')[0] or 'STORE'}"
    )
