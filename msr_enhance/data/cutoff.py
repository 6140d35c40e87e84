"""T0: the time at which every history ends, as a number of the log's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import SplitError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def start_time(table: InteractionTable, middle: float, cutoff: float | str | None) -> float:
    """Settle on T0.

    Args:
        table: A log with a time.
        middle: The time of its middle row, taken where nothing else is asked for.
        cutoff: A clock value, also as a string, or an ISO date (UTC unless it says otherwise) where the log's
            times are dates.

    Returns:
        The first clock value that no prompt may see; an integer where the clock counts integers.

    Raises:
        SplitError: The cut-off cannot be read, or has no row on one of its sides.
    """
    if cutoff is None:
        return middle
    start = _moment(cutoff, table.dated) if isinstance(cutoff, str) else cutoff
    times = table.column(table.columns.time or "")
    low, high = times.min().item(), times.max().item()
    if not low < start <= high:
        first, last = (
            str(_EPOCH + timedelta(microseconds=each)) if table.dated else each for each in (low, high)
        )
        raise SplitError(
            f"cut-off {cutoff!r} leaves no row before it, or none after it; the log's times run from "
            f"{first} to {last}. Write a cut-off after the first and not after the last."
        )
    return start


def _moment(text: str, dated: bool) -> float:
    try:
        if not dated:
            return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1)
    except ValueError as error:
        wanted = "an ISO date, for example 2024-05-22" if dated else "a number, as this log's times are"
        raise SplitError(f"cut-off {text!r} cannot be read; write {wanted}.") from error
