"""The folder of a saved model: all of a save is there or none of it; nobody else's files are touched."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from torch import Tensor

from msr_enhance.atomic import make_folder, read_small, sync_folder
from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.saved import CONFIG, CONFIG_BYTES, WEIGHTS, Saved, is_ours
from msr_enhance.wrap.tensors import TensorFile, open_tensors

_OURS: Final = {CONFIG, WEIGHTS}
_EXCHANGE: Final = 2
_HERE: Final = -100
_TRIES: Final = 5


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside one, which takes its place when the block ends well.

    A killed process leaves the folder as it was, and perhaps a hidden ``.NAME.tmp-…`` beside it.

    Args:
        folder: Not there, or empty, or an earlier save.

    Raises:
        EnhanceError: It holds anything else, or the disk refuses.
    """
    if "\0" in str(folder):
        raise EnhanceError(f"{str(folder)!r} is no name of a folder; write one without NUL.")
    try:
        target = Path(os.path.realpath(folder))
        _refuse_other(target)
        # Of a long name only a part, or what is longer would be refused by the disk.
        new = target.parent / f".{target.name[:50]}.tmp-{secrets.token_hex(8)}"
        _make(new)
        try:
            yield new
            _refuse_other(target)  # what stands there now is removed
            _keep_modes(new, target)
            _put(new, target)
            sync_folder(target.parent)
        finally:
            _remove(new)
    except OSError as error:
        raise EnhanceError(
            f"{folder} cannot be written: {error.strerror or error}. Allowed: a folder that may be made or "
            "replaced "
            "(no mount point), on a disk with room. What was there is intact."
        ) from error


def read_config(folder: Path) -> Saved:
    """What a folder says of its model.

    Raises:
        EnhanceError: There is no model of ours, or it is damaged.
    """
    return Saved.from_bytes(_config(folder), folder / CONFIG)


def read_saved(folder: Path) -> tuple[Saved, TensorFile, dict[str, Tensor]]:
    """What a folder says of its model, its closed file of tensors, and the tensors, all of one save.

    Raises:
        EnhanceError: There is no model of ours, or it is damaged.
    """
    left = _TRIES
    while True:
        data = _config(folder)
        try:
            saved = Saved.from_bytes(data, folder / CONFIG)
            with open_tensors(folder / WEIGHTS, saved.weights.bytes) as file:
                return saved, file, file.read(saved.weights.sha256)
        except EnhanceError:
            left -= 1
            # Another save may have taken its place between the two files.
            if not left or _config(folder) == data:
                raise


def _config(folder: Path) -> bytes:
    """The bytes of a folder's config, at most one more than it may have."""
    path = folder / CONFIG
    try:
        return read_small(path, CONFIG_BYTES)
    except FileNotFoundError as error:
        there = ", ".join(sorted(os.listdir(folder))[:5]) if folder.is_dir() else "nothing"
        raise EnhanceError(
            f"{folder} holds no {CONFIG} and so no saved model; it holds {there or 'nothing'}. Name the "
            "folder that "
            "save_pretrained() wrote."
        ) from error
    except OSError as error:
        raise EnhanceError(f"{path} cannot be read: {error.strerror}. Look at the disk.") from error


def _refuse_other(folder: Path) -> None:
    """Refuse a folder whose content is not an earlier save and nothing else."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise EnhanceError(
            f"{folder} is a file; a model is saved as a folder. Write another path."
        ) from error
    if folder == Path(os.path.realpath(os.curdir)):
        raise EnhanceError(
            f"{folder} is the folder this process works in, which a save would replace; write a folder in it."
        )
    if other := sorted(names - _OURS):
        raise EnhanceError(
            f"{folder} holds {other[0]!r}; allowed: a folder that is new, empty or holds an earlier save "
            f"({CONFIG} and {WEIGHTS} alone). Write another path."
        )
    if not names:
        return
    ours = False
    with suppress(EnhanceError, OSError):
        ours = is_ours(read_small(folder / CONFIG, CONFIG_BYTES), folder / CONFIG)
    if not ours:
        raise EnhanceError(
            f"{folder} holds {sorted(names)[0]!r}, which is no model that this library saved; allowed: a "
            "folder "
            "that is new, empty or holds an earlier save. Write another path."
        )


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except RecursionError as error:  # in /proc a folder is there and takes no other
        raise OSError(errno.ENOENT, "no folder can be made there") from error


def _keep_modes(new: Path, target: Path) -> None:
    """Give a save, and its files, the modes of the one whose place it takes."""
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(target).st_mode)
        for name in os.listdir(new):
            with suppress(FileNotFoundError):
                os.chmod(new / name, stat.S_IMODE(os.stat(target / name).st_mode))
        os.chmod(new, mode)


def _put(new: Path, target: Path) -> None:
    """Put a folder in the place of another, which then stands in its own; at once where the disk can."""
    try:
        os.rename(new, target)  # where there is none, or an empty one
    except OSError:
        if not target.is_dir():
            raise
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is None or rename(_HERE, os.fsencode(new), _HERE, os.fsencode(target), _EXCHANGE):
            # This disk cannot exchange two names: for a moment there is none, and both saves are whole.
            old = new.with_name(f"{new.name}-old")
            os.rename(target, old)
            os.rename(new, target)
            os.rename(old, new)


def _remove(folder: Path) -> None:
    """Remove one of our folders, and what we or a call of ours that failed had put there."""
    with suppress(OSError):
        os.chmod(folder, 0o700)  # it may have the mode of one that nobody writes in
        for name in os.listdir(folder):
            os.unlink(folder / name)
        os.rmdir(folder)
