"""The command line. Every command imports its work when it is called, so `--help` never loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.problems import problems

app = typer.Typer(
    name="msr-enhance",
    help="Make any multi-scenario recommender better with knowledge from a frozen large language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Put one JSON object on stdout and nothing else.")]
Log = Annotated[Path, typer.Option("--data", help="Interaction log: .csv, .tsv or .parquet.")]
Items = Annotated[
    Path | None, typer.Option(help="Item table to join on the item column (titles, categories).")
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="ROLE=NAME, repeatable: user, item, scenario, label, time, order, text, category, features."
    ),
]
SplitKind = Annotated[
    str | None, typer.Option("--split", help="scenario, global or user; default: what suits the log.")
]
Protocol = Annotated[str, typer.Option(help="window (no row is served by a prompt that saw it) or paper.")]
Cutoff = Annotated[
    str | None, typer.Option(help="First time that no prompt may see; default: half of the rows.")
]
Backbone = Annotated[str, typer.Option(help="shared_bottom or star.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds.")]


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the store; default: a new one under ./runs.")
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


@app.command()
def extract(
    data: Log,
    out: Annotated[Path, typer.Option(help="Folder of the store; an unfinished one is continued.")],
    model: Annotated[
        str, typer.Option(help="builtin, a folder, a Hub id, or category-frequency (text-free control).")
    ] = "builtin",
    encoder: Annotated[
        Path | None, typer.Option(help="Local folder of a sentence encoder, instead of --model.")
    ] = None,
    items: Items = None,
    column: Column = None,
    platform: Annotated[Path | None, typer.Option(help="YAML: name, description, scenarios.")] = None,
    template: Annotated[
        str, typer.Option(help="default, paper, or a folder with scenario.yaml and user.yaml.")
    ] = "default",
    history: Annotated[int, typer.Option(min=1, help="Most recent positives shown per scenario.")] = 50,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    state: Annotated[str, typer.Option(help="last, prompt, or token-mean: which state is kept.")] = "last",
    split: SplitKind = None,
    protocol: Protocol = "window",
    cutoff: Cutoff = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many users.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a Hub model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU when there is one.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run the repository's code; needs a pinned commit.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a prompt for every scenario and user, have a frozen model answer, keep the knowledge."""
    with problems():
        from msr_enhance.cli.extract import run

        run(
            data,
            out,
            model=model,
            encoder=encoder,
            items=items,
            column=column or [],
            platform=platform,
            template=template,
            history=history,
            split=split,
            protocol=protocol,
            cutoff=cutoff,
            limit=limit,
            reader={
                "max_new_tokens": max_new_tokens,
                "state": state,
                "revision": revision,
                "dtype": dtype,
                "device": device,
                "trust_remote_code": trust_remote_code,
            },
            as_json=json,
        )


@app.command()
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
    out: Annotated[Path | None, typer.Option(help="Also write the full result as JSON here.")] = None,
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
