"""Tensors of a checkpoint folder by their stored names. Files are data here: no code of them ever runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msr_enhance.errors import ModelError

# As transformers looks for them: safetensors before .bin, one file before shards.
LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST_INDEX = 64 << 20
_POINTER = b"version https://git-lfs"


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, on the CPU, as stored.

    Files are mapped into memory where their format allows it, so that nothing is read before it is used.

    Args:
        folder: Folder with one weight file, or with shards and their index.

    Raises:
        ModelError: If no weights are there, a shard is missing or damaged, a tensor appears twice, or a
            file holds anything but plain floating-point tensors.
    """
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        content = _read(path)
        for name, tensor in content.items():
            if name in found:
                raise ModelError(f"{path} holds {name} a second time. Fetch the model again.")
            found[name] = tensor
    return found


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, in a fixed order; all of them exist.

    Raises:
        ModelError: If there are none, or one that the index names is missing.
    """
    for single, index in LAYOUTS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder / index)
    looked = ", ".join(name for pair in LAYOUTS for name in pair)
    raise ModelError(f"{folder} holds no weights; looked for: {looked}. Fetch the whole model.")


def refuse_pointer(path: Path, start: bytes) -> None:
    """Refuse the short text that git leaves in place of a large file.

    Raises:
        ModelError: If the file starts like one.
    """
    if start.startswith(_POINTER):
        raise ModelError(f"{path} is a Git LFS pointer, not the file. Run `git lfs pull` in its folder.")


def _shards(index: Path) -> list[Path]:
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise ValueError(f"more than {_LARGEST_INDEX} bytes")
        content = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{index} cannot be read: {error}. Fetch the model again.") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index} has no weight_map. Fetch the model again.")
    files = sorted({str(name) for name in names.values()})
    suffix = index.name.removesuffix(".index.json").rpartition(".")[2]
    for name in files:
        # A name that leaves the folder, or another kind of file, is no shard of this checkpoint.
        if Path(name).name != name or "\\" in name or not name.endswith(f".{suffix}"):
            raise ModelError(f"{index} names {name!r:.80} as a shard; allowed: a .{suffix} file beside it.")
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index.parent} lacks {len(missing)} of {len(files)} weight files: {', '.join(missing[:5])}. "
            "The download was interrupted: fetch the model again."
        )
    return [index.parent / name for name in files]


def _read(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        refuse_pointer(path, file.read(len(_POINTER)))
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _bin(path)
    except Exception as error:  # every kind of damage has an exception of its own
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(
            f"{path} cannot be read as plain tensors: {type(error).__name__}: {reason}. "
            "It is damaged, cut short, or no weight file: fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not tensors by name. Fetch it again.")
    for name, tensor in content.items():
        plain = isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not plain or tensor.is_meta or tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ModelError(
                f"{path}: {name!r:.120} is {kind}; allowed: plain floating-point tensors. Packed "
                "(int4, int8) weights cannot be read; name the full model."
            )
    return content


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def _bin(path: Path) -> Any:
    # weights_only builds tensors and containers and refuses any other pickled call.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
