"""The calls of the store to the file system, with somebody in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

READS = ("pread", "preadv", "read", "fstat", "stat", "lstat", "listdir", "scandir")
WRITES = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "close",
    "rename",
    "replace",
    "link",
    "unlink",
    "utime",
    "mkdir",
    "ftruncate",
)
Handler = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def between(handler: Handler, names: tuple[str, ...] = WRITES + READS) -> Iterator[None]:
    """Give every call of these functions of `os` to a handler: its name, the real one, and arguments."""
    real = {name: getattr(os, name) for name in names}

    def wrap(name: str) -> Callable[..., Any]:
        return lambda *args, **words: handler(name, real[name], args, words)

    try:
        for name in names:
            setattr(os, name, wrap(name))
        yield
    finally:
        for name in names:
            setattr(os, name, real[name])
