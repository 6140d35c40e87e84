"""The `store` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.options import Json
from msr_enhance.cli.problems import problems

store_app = typer.Typer(help="Look at knowledge stores, and join them.", no_args_is_help=True)


@store_app.command()
def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders of stores without a common id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the joined store; a call that ended is made again.")],
    json: Json = False,
) -> None:
    """Join the stores of several workers, without copying where the file system has hard links."""
    with problems():
        from msr_enhance.cli.merge import run

        run(sources, out, as_json=json)


@store_app.command()
def show(
    store: Annotated[Path, typer.Argument(help="Folder of a knowledge store.")],
    user: Annotated[str | None, typer.Option(help="Id of a user: its facts, prompt and answer.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Name of a scenario: its facts, prompt and answer.")
    ] = None,
    json: Json = False,
) -> None:
    """What a store holds, and how it was made; with --user or --scenario, one prompt and its answer."""
    with problems():
        from msr_enhance.cli.show import run

        run(store, user=user, scenario=scenario, as_json=json)
