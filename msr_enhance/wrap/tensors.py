"""One safetensors file of named tensors: equal tensors give equal bytes, and every size is checked.

The header is written here and not by a library, so that a file saved again is the same whatever is installed;
any safetensors reader reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from msr_enhance.atomic import Buffer, write_pieces_new
from msr_enhance.errors import EnhanceError
from msr_enhance.store.checks import flat_bytes

KINDS: Final[dict[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types that may be saved, as safetensors calls them."""

_DTYPES: Final = {kind: dtype for dtype, kind in KINDS.items()}
_METADATA: Final = {"format": "pt"}
_HEADER_BYTES: Final = 32 << 20
_PIECE: Final = 1 << 24


@dataclass(frozen=True)
class Entry:
    """A tensor of a file.

    Attributes:
        dtype: Its type.
        shape: Its shape.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.dtype.itemsize * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


def entry_of(tensor: Tensor) -> Entry:
    """What a file says of a tensor."""
    return Entry(tensor.dtype, tuple(tensor.shape))


def write_tensors(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Write a file whole.

    Args:
        folder: An existing folder.
        name: A bare file name.
        tensors: Of types in `KINDS`, on any device, contiguous or not.

    Returns:
        SHA-256 and size of the file.

    Raises:
        OSError: If the disk refuses; nothing is left behind.
    """
    ordered = dict(sorted(tensors.items(), key=lambda pair: (-pair[1].dtype.itemsize, pair[0])))

    def pieces() -> Iterator[Buffer]:
        yield _header({one: entry_of(tensor) for one, tensor in ordered.items()})
        for tensor in ordered.values():
            flat = tensor.detach().to("cpu").contiguous().reshape(-1)
            if flat.numel():
                yield flat_bytes(flat.view(torch.uint8).numpy())

    return write_pieces_new(folder, pieces(), lambda _: name)


class TensorFile:
    """An open file; see `open_tensors`.

    Attributes:
        path: Where it lies.
        entries: What it holds, in its order.
    """

    def __init__(self, descriptor: int, path: Path, entries: dict[str, Entry], header: bytes) -> None:
        self.path, self.entries = path, entries
        self._descriptor, self._header = descriptor, header

    def read(self, sha256: str) -> dict[str, Tensor]:
        """All tensors, on the CPU, once the file's digest is right.

        Args:
            sha256: That digest.

        Raises:
            EnhanceError: The file has another one, or ends early, or the disk refuses.
        """
        digest, place = hashlib.sha256(self._header), len(self._header)
        found: dict[str, Tensor] = {}
        for name, entry in self.entries.items():
            data = _read(self._descriptor, self.path, place, entry.bytes)
            digest.update(data)
            place += entry.bytes
            empty = torch.empty(entry.shape, dtype=entry.dtype)
            found[name] = torch.frombuffer(data, dtype=entry.dtype).reshape(entry.shape) if data else empty
        if digest.hexdigest() != sha256:
            raise damaged(
                self.path, f"its SHA-256 is {digest.hexdigest()[:16]}…, config.json promises {sha256[:16]}…"
            )
        return found


@contextmanager
def open_tensors(path: Path, size: int) -> Iterator[TensorFile]:
    """Open a file and read its header; nothing that the header says is allocated before it fits the file.

    Args:
        path: The file.
        size: Bytes it must have.

    Raises:
        EnhanceError: It is missing, of another size, or not as it was written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise EnhanceError(
            f"{path} cannot be read: {error.strerror}. Fetch or save the model again."
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise damaged(path, "it is no regular file")
        if found.st_size != size:
            raise damaged(path, f"it has {found.st_size:,} bytes, config.json promises {size:,}")
        header = _read_header(descriptor, path, size)
        yield TensorFile(descriptor, path, _parsed(header, path, size), header)
    finally:
        os.close(descriptor)


def damaged(path: Path, what: str) -> EnhanceError:
    """The error for a file of a saved model that is not what was written."""
    return EnhanceError(
        f"{path} is not as it was written: {what}. Save the model again, or remove the file and fetch it "
        "again."
    )


def _header(entries: Mapping[str, Entry]) -> bytes:
    content: dict[str, Any] = {"__metadata__": _METADATA}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + entry.bytes
        offsets = [start, end]
        content[name] = {"dtype": KINDS[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)  # what follows is aligned for whoever maps the file
    return len(text).to_bytes(8, "little") + text


def _read_header(descriptor: int, path: Path, size: int) -> bytes:
    if size < 8:
        raise damaged(path, "it has no header")
    first = bytes(_read(descriptor, path, 0, 8))
    length = int.from_bytes(first, "little")
    if length > min(size - 8, _HEADER_BYTES):
        raise damaged(path, f"its header of {length:,} bytes does not fit into it")
    return first + bytes(_read(descriptor, path, 8, length))


def _parsed(header: bytes, path: Path, size: int) -> dict[str, Entry]:
    """The tensors that a header names, in the order in which they lie."""
    try:
        content = json.loads(header[8:])
        if not isinstance(content, dict):
            raise ValueError("it is no object")
        content.pop("__metadata__", None)
        entries = {name: _entry(said) for name, said in content.items()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(path, f"its header is not one that this library writes ({str(error)[:100]})") from error
    needed = len(header) + sum(entry.bytes for entry in entries.values())
    if needed != size:
        raise damaged(path, f"its tensors need {needed:,} bytes and it has {size:,}")
    return entries


def _entry(said: Any) -> Entry:
    shape, kind = said["shape"], _DTYPES.get(said["dtype"])
    whole = isinstance(shape, list) and all(type(each) is int and 0 <= each < 2**48 for each in shape)
    if kind is None or not whole:
        raise ValueError(f"a tensor of type {said['dtype']!r:.20} and shape {shape!r:.40}")
    return Entry(kind, tuple(shape))


def _read(descriptor: int, path: Path, start: int, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        try:
            count = os.preadv(descriptor, [rest[:_PIECE]], start)
        except OSError as error:
            raise EnhanceError(f"{path} cannot be read: {error.strerror}. Look at the disk.") from error
        if not count:
            raise damaged(path, f"it ends before byte {start + len(rest):,}")
        rest, start = rest[count:], start + count
    return data
