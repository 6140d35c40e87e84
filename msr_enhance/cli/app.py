"""The command line. Every command imports its work when it is called, so `--help` never loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.explain_command import explain
from msr_enhance.cli.extract_command import extract
from msr_enhance.cli.options import Backbone, Column, Cutoff, Items, Json, Log, Seeds, SplitKind
from msr_enhance.cli.problems import problems
from msr_enhance.cli.report_command import report
from msr_enhance.cli.share_commands import project, pull, push
from msr_enhance.cli.store import show, store_app

app = typer.Typer(
    name="msr-enhance",
    help="Make any multi-scenario recommender better with knowledge from a frozen large language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run and its store; default: a new one under ./runs.")
    ] = None,
    seeds: Seeds = 3,
    backbone: Backbone = "shared_bottom",
    json: Json = False,
) -> None:
    """Run the whole way on a generated world: log, prompts, frozen LLM, store, comparison.

    No network and no download. The built-in model is untrained: its states carry how often things
    occur in a prompt, its texts are noise.
    """
    with problems():
        from msr_enhance.cli.demo import run

        run(out, seeds=seeds, backbone=backbone, as_json=json)


app.command()(extract)
for command in (project, push, pull):
    store_app.command()(command)
app.add_typer(store_app, name="store")
app.command()(show)
app.command()(report)
app.command()(explain)


@app.command()
def compare(
    data: Log,
    store: Annotated[Path, typer.Option(help="Folder of the knowledge store.")],
    items: Items = None,
    column: Column = None,
    backbone: Backbone = "shared_bottom",
    arms: Annotated[str | None, typer.Option(help="Arms by comma; default: all.")] = None,
    seeds: Seeds = 3,
    learning_rates: Annotated[
        str, typer.Option(help="Rates to search on validation rows.")
    ] = "0.001,0.003,0.01",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows at most.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 1024,
    split: SplitKind = None,
    protocol: Annotated[str | None, typer.Option(help="window or paper; default: the store's.")] = None,
    cutoff: Cutoff = None,
    train_rows_the_store_has_seen: Annotated[
        bool, typer.Option(help="Go on although prompts have seen rows that are trained or scored.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Also keep a run here: a new folder with run.json.")
    ] = None,
    json: Json = False,
) -> None:
    """Train the plain model, the enhanced one and the controls on the same rows, and compare."""
    with problems():
        from msr_enhance.cli.compare import run

        run(
            data,
            store,
            items=items,
            column=column or [],
            backbone=backbone,
            arms=arms,
            seeds=seeds,
            learning_rates=learning_rates,
            epochs=epochs,
            batch_size=batch_size,
            split=split,
            protocol=protocol,
            cutoff=cutoff,
            allowed=train_rows_the_store_has_seen,
            out=out,
            as_json=json,
        )


@app.command()
def doctor(
    online: Annotated[bool, typer.Option("--online", help="Also ask the Hub once.")] = False,
    json: Json = False,
) -> None:
    """What this machine can run, which extras are missing, and what to do about it."""
    with problems():
        from msr_enhance.cli.doctor import run

        run(json, online=online)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(importlib.metadata.version("msr-enhance"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `msr-enhance` command."""
    app()
