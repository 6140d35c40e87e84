"""One progress bar: rows per second and time left, on stderr, silent off a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


@contextmanager
def progress(label: str, total: int, *, unit: str = "rows", show: bool | None = None) -> Iterator[Advance]:
    """Show how far a long step is.

    Args:
        label: What is being done.
        total: How many units there are.
        unit: What is counted.
        show: Force the bar on or off; by default it is on when stderr is a terminal. Off a terminal
            a line is written every 30 seconds instead, so that a log of a long run shows life.

    Yields:
        A function to call with the number of units just finished.
    """
    stream = sys.stderr
    if show is None:
        show = stream.isatty()
    if not show:
        yield _plain_lines(label, total, unit)
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
    started = time.monotonic()
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(label, total=total, rate="")
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(1e-9, time.monotonic() - started)
            bar.update(task, advance=count, rate=f"{rate:,.1f} {unit}/s")

        yield advance


def _plain_lines(label: str, total: int, unit: str, every: float = 30.0) -> Advance:
    started = said = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if now - said >= every:
            said = now
            rate = done / (now - started)
            left = (total - done) / rate
            sys.stderr.write(f"{label}: {done:,} of {total:,} {unit}, {rate:,.1f}/s, {left:,.0f} s left\n")

    return advance
