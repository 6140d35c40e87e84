"""Writing a report: a store or a run as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from msr_enhance.atomic import write_bytes_new
from msr_enhance.errors import DataError
from msr_enhance.report.content import content
from msr_enhance.report.page import page
from msr_enhance.report.source import open_source

USERS = 2_000
POINTS = 25_000
MOST = 200_000
"""Users that a browser can list."""


class Written(NamedTuple):
    """What was written.

    Attributes:
        path: The page.
        bytes: Its size.
        users: Users that the store has.
        listed: Users on the map and in the list.
        texts: Users whose prompt and answer are on the page.
        scenarios: Scenarios that the store has.
        comparison: Whether a comparison is shown.
    """

    path: Path
    bytes: int
    users: int
    listed: int
    texts: int
    scenarios: int
    comparison: bool


def write_report(
    source: str | Path, out: str | Path, *, users: int = USERS, points: int = POINTS, texts: bool = True
) -> Written:
    """Write one HTML page about a store or a run; a page that is there already is replaced.

    The page holds all that it shows and asks no server for anything. The same store gives the same page.

    Args:
        source: Folder of a knowledge store, or of a run that names one.
        out: The page, a path that ends in ``.html``.
        users: Prompts and answers of at most so many users, spread evenly, examples of outliers first.
        points: At most so many users on the map and in the list, spread evenly.
        texts: False leaves out prompts, answers and ids.

    Returns:
        What was written.

    Raises:
        DataError: If the path or a number cannot be used, or the run is not one.
        StoreError: If there is no store, or it is damaged.
        OSError: If the disk refuses.
    """
    target = Path(out)
    if target.suffix.lower() not in (".html", ".htm") or target.is_dir() or not target.parent.is_dir():
        raise DataError(
            f"--out is {str(target)!r}; allowed: a path that ends in .html, in a folder that exists. "
            "Write --out report.html."
        )
    if users < 0 or not 1 <= points <= MOST:
        raise DataError(
            f"{users} users and {points} points; allowed: 0 or more users, 1 to {MOST:,} points. "
            f"Write --users {USERS} --points {POINTS}."
        )
    found = content(open_source(source), users=users, points=points, texts=texts)
    made = page(found)
    write_bytes_new(target.parent, target.name, made)
    listed = found["users"] or {"total": 0, "count": 0}
    return Written(
        target,
        len(made),
        listed["total"],
        listed["count"],
        found["embedded"],
        (found["scenarios"] or {"total": 0})["total"],
        found["comparison"] is not None,
    )
