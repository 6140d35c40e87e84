"""The `store` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.options import Json
from msr_enhance.cli.problems import problems

store_app = typer.Typer(
    help="Look at knowledge stores, join them, and take care of them.", no_args_is_help=True
)

Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a knowledge store.")]
Key = Annotated[
    Path | None,
    typer.Option(help="File with the key of a store whose ids are keyed hashes: give ids as they are."),
]


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
    store: Store,
    user: Annotated[str | None, typer.Option(help="Id of a user: its facts, prompt and answer.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Name of a scenario: its facts, prompt and answer.")
    ] = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """What a store holds, and how it was made; with --user or --scenario, one prompt and its answer."""
    with problems():
        from msr_enhance.cli.show import run

        run(store, user=user, scenario=scenario, key=key, as_json=json)


@store_app.command()
def verify(store: Store, json: Json = False) -> None:
    """Read every byte of a store, and list all that is not as it was written; then the exit code is 8."""
    with problems():
        from msr_enhance.cli.care import run_verify

        run_verify(store, as_json=json)


@store_app.command()
def repair(
    store: Store,
    keep_vectors: Annotated[
        bool,
        typer.Option("--keep-vectors", help="Keep rows whose texts alone are lost; they have none then."),
    ] = False,
    bring_back: Annotated[
        bool,
        typer.Option("--bring-back", help="Let dropped rows count again where the list of them is lost."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: Json = False,
) -> None:
    """Make a damaged store whole again without what is lost; what was damaged is kept beside it."""
    with problems():
        from msr_enhance.cli.care import run_repair

        run_repair(store, keep_vectors=keep_vectors, bring_back=bring_back, dry_run=dry_run, as_json=json)


@store_app.command()
def compact(
    store: Store,
    out: Annotated[
        Path | None, typer.Option(help="Leave the store as it is, and make a compacted one here.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="With --out: keep vectors as float32, float16, bfloat16 or int8.")
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Remove replaced files at once; open readers must load again.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a store anew, so that dropped rows are gone from the disk and rows lie in order."""
    with problems():
        from msr_enhance.cli.care import run_compact

        run_compact(store, out, dtype, now=now, as_json=json)


@store_app.command()
def forget(
    store: Store,
    user: Annotated[list[str] | None, typer.Option(help="Id of a user; repeatable.")] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="Name of a scenario; repeatable.")] = None,
    ids: Annotated[
        Path | None, typer.Option(help="File of user ids, one a line; in a .jsonl file as JSON.")
    ] = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Pass over ids that the store does not have.")
    ] = False,
    key: Key = None,
    json: Json = False,
) -> None:
    """Erase rows at once, and read every byte that is left to show that they are gone."""
    with problems():
        from msr_enhance.cli.care import run_forget

        run_forget(store, user or [], scenario or [], ids, key, missing_ok=missing_ok, as_json=json)


@store_app.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="A new file: .jsonl, .csv or .parquet.")],
    level: Annotated[str, typer.Option(help="user or scenario.")] = "user",
    vectors: Annotated[bool, typer.Option("--vectors", help="Also the vectors.")] = False,
    texts: Annotated[bool, typer.Option("--texts/--no-texts", help="Prompts, answers and facts.")] = True,
    json: Json = False,
) -> None:
    """Write the rows of a store as a table."""
    with problems():
        from msr_enhance.cli.care import run_export

        run_export(store, out, level, vectors=vectors, texts=texts, as_json=json)
