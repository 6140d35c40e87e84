"""SIGINT and SIGTERM: the first lets the batch in flight finish, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from msr_enhance.errors import Stopped
from msr_enhance.scale.processes import GRACE

_AGAIN = 5.0  # seconds until a stop that something swallowed is raised once more
_ASKS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether someone asked this process to stop.

    Attributes:
        number: The signal that asked; None while nobody has.
    """

    def __init__(self, grace: float) -> None:
        self.number: int | None = None
        self._grace = grace
        self._patient = False

    def __call__(self) -> bool:
        """Whether to stop before the next batch."""
        return self.number is not None

    @contextlib.contextmanager
    def after_the_batch(self) -> Iterator[None]:
        """A stretch of work that asks this object between batches; elsewhere a signal stops at once."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def asked(self, number: int, _: FrameType | None) -> None:
        """Take a signal."""
        if self.number is not None:
            os._exit(128 + number)  # as good as kill -9, which a store survives
        self.number = number
        if not self._patient:
            raise Stopped
        # Not by print: the signal may have come in the middle of one.
        words = f"\nstopping after the batch in flight, in {self._grace:.0f} s at most; again to stop now\n"
        with contextlib.suppress(OSError):
            os.write(2, words.encode())
        signal.setitimer(signal.ITIMER_REAL, self._grace, _AGAIN)

    def spent(self, _: int, __: FrameType | None) -> None:
        """Drop the batch in flight: the grace is over."""
        raise Stopped


@contextlib.contextmanager
def stoppable(grace: float = GRACE) -> Iterator[StopRequest]:
    """Take SIGINT and SIGTERM until the block ends; outside the main thread signals are left alone.

    Args:
        grace: Seconds that the batch in flight may take.

    Yields:
        What to ask between batches.
    """
    request = StopRequest(grace)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.asked) for number in _ASKS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, request.spent)
    try:
        yield request
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def this_command() -> str:
    """The command line that started this process, ready to be pasted into a shell."""
    program = sys.argv[0]
    found = shutil.which(Path(program).name)
    if found is not None and Path(found).resolve() == Path(program).resolve():
        program = Path(program).name
    return shlex.join([program, *sys.argv[1:]])
