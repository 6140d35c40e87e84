"""The `report` command: a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.options import Json
from msr_enhance.cli.problems import problems


def report(
    source: Annotated[
        Path, typer.Argument(metavar="STORE_OR_RUN", help="Folder of a knowledge store, or of a run.")
    ],
    out: Annotated[Path, typer.Option(help="The page, one .html file; one that is there is replaced.")],
    users: Annotated[int, typer.Option(min=0, help="Prompts and answers of at most so many users.")] = 2_000,
    points: Annotated[
        int, typer.Option(min=1, help="At most so many users on the map and in the list.")
    ] = 25_000,
    texts: Annotated[
        bool, typer.Option("--texts/--no-texts", help="Prompts, answers and ids of users and items.")
    ] = True,
    json: Json = False,
) -> None:
    """Write one HTML page about a store or a run: what was measured, a map of its users, their texts.

    The page needs no network and no server. With texts it holds personal data: keep it like the store.
    """
    with problems():
        from msr_enhance.cli.output import emit, say, show
        from msr_enhance.report.write import write_report

        done = write_report(source, out, users=users, points=points, texts=texts)
        size, some = f"{done.bytes / 1e6:.2f} MB", f"{done.listed:,} of " if done.listed < done.users else ""
        say(f"{out}: {size}, {some}{done.users:,} users, prompts and answers of {done.texts:,}")
        if texts and (done.users or done.comparison):
            say("it holds personal data: keep it like the store itself, or write --no-texts")
        if json:
            emit(done._asdict() | {"path": str(done.path.resolve())})
        else:
            show(str(out))
