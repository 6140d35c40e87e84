"""One progress bar: rows and tokens per second and time left, on stderr, silent off a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol


class Advance(Protocol):
    """Tells how much has just been finished."""

    def __call__(self, count: int, tokens: int = 0) -> None:
        """Count on.

        Args:
            count: Units that were just finished.
            tokens: Tokens that were read and written for them.
        """


@contextmanager
def progress(
    label: str, total: int, *, unit: str = "rows", done: int = 0, show: bool | None = None
) -> Iterator[Advance]:
    """Show how far a long step is.

    Args:
        label: What is being done.
        total: How many units there are.
        unit: What is counted.
        done: Units that an earlier run finished; speed and time left count only those of this run.
        show: Force the bar on or off; by default it is on when stderr is a terminal. Off a terminal
            a line is written every 30 seconds instead, so that a log of a long run shows life.

    Yields:
        A function to call with the number of units just finished.
    """
    stream = sys.stderr
    if show is None:
        show = stream.isatty()
    speed = _Speed(unit)
    if not show:
        yield _plain_lines(label, total, done, speed)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done, rate="")

        def advance(count: int, tokens: int = 0) -> None:
            speed.add(count, tokens)
            bar.update(task, advance=count, rate=str(speed))

        yield advance


class _Speed:
    """Units and tokens per second since it was made."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._started = time.monotonic()
        self.count = self._tokens = 0

    def add(self, count: int, tokens: int) -> None:
        self.count += count
        self._tokens += tokens

    @property
    def seconds(self) -> float:
        return max(1e-9, time.monotonic() - self._started)

    def __str__(self) -> str:
        rate = self.count / self.seconds
        tokens = f", {self._tokens / self.seconds:,.0f} tokens/s" if self._tokens else ""
        return f"{rate:{',.1f' if rate >= 1 else '.2g'}} {self._unit}/s{tokens}"


def _plain_lines(label: str, total: int, done: int, speed: _Speed, every: float = 30.0) -> Advance:
    said = 0.0

    def advance(count: int, tokens: int = 0) -> None:
        nonlocal said
        speed.add(count, tokens)
        if speed.seconds - said >= every and speed.count:
            said = speed.seconds
            at = done + speed.count
            left = timedelta(seconds=round((total - at) * speed.seconds / speed.count))
            sys.stderr.write(f"{label}: {at:,} of {total:,}, {speed}, {left} left\n")

    return advance
