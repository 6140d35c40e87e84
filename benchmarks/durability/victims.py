"""Processes that may die: forked, so that a kill costs milliseconds, with a pipe for what they promise."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Victim(NamedTuple):
    """A child process, and the end of the pipe it writes to."""

    pid: int
    pipe: int


def victim(work: Callable[[int], None]) -> Victim:
    """Run work in a process of its own; it writes bytes to the pipe it is given."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        code = 1
        try:
            work(writer)
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writer)
    return Victim(child, reader)


def ended(child: Victim) -> tuple[bool, bytes]:
    """Wait for a victim: whether it was killed, and what it wrote."""
    said = b""
    while piece := os.read(child.pipe, 1 << 16):  # before the wait: a full pipe would hold it up
        said += piece
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"a victim failed by itself, status {status}; its words are on stderr"
    return killed, said


def all_ended(children: Sequence[Victim]) -> list[bytes]:
    """Wait for several victims, also when one fails; what each wrote."""
    said, failed = [], []
    for child in children:
        try:
            said.append(ended(child)[1])
        except AssertionError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return said


def killed_after(child: Victim, seconds: float | None) -> tuple[bool, bytes]:
    """Kill a victim after a time, None for never; see ``ended``."""
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL)
    return ended(child)
