"""The folder of a saved model: all of a save is there or none of it; nobody else's files are touched."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from msr_enhance.atomic import make_folder, read_small, sync_folder
from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.saved import CONFIG, CONFIG_BYTES, WEIGHTS, Saved, is_ours

_OURS: Final = {CONFIG, WEIGHTS}
_EXCHANGE: Final = 2
_HERE: Final = -100


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside one, which takes its place when the block ends well.

    A killed process leaves the folder as it was, and perhaps a hidden ``.NAME.tmp-…`` beside it.

    Args:
        folder: Not there, or empty, or an earlier save.

    Raises:
        EnhanceError: It holds anything else, or the disk refuses.
    """
    target = Path(os.path.realpath(folder))
    _refuse_other(target)
    new = target.parent / f".{target.name}.tmp-{secrets.token_hex(8)}"
    try:
        make_folder(new)
        try:
            yield new
            _refuse_other(target)  # what stands there now is removed
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
    path = folder / CONFIG
    try:
        data = read_small(path, CONFIG_BYTES)
    except FileNotFoundError as error:
        there = ", ".join(sorted(os.listdir(folder))[:5]) if folder.is_dir() else "nothing"
        raise EnhanceError(
            f"{folder} holds no {CONFIG} and so no saved model; it holds {there or 'nothing'}. Name the "
            "folder that "
            "save_pretrained() wrote."
        ) from error
    except OSError as error:
        raise EnhanceError(f"{path} cannot be read: {error.strerror}. Look at the disk.") from error
    return Saved.from_bytes(data, path)


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
        for name in os.listdir(folder):
            os.unlink(folder / name)
        os.rmdir(folder)
