"""A process that is killed at one of its calls to the file system."""

from __future__ import annotations

import os
import signal
from typing import Any


def killed_at(number: int, work: Any) -> bool:
    """Run work in a process that is killed at its nth call; whether it was, as opposed to being done."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            _die_at(number)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the victim failed by itself"
    return os.WIFSIGNALED(status)


def _die_at(number: int) -> None:
    """Kill this process before its nth call; a write is left half done."""
    calls = 0

    def counted(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > number:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    for name in ("open", "write", "fsync", "close", "rename", "link", "unlink", "utime", "mkdir", "rmdir"):
        setattr(os, name, counted(name, getattr(os, name)))
