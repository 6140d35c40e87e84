"""The `store` commands that make smaller stores, and carry stores to and from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.options import Json
from msr_enhance.cli.problems import problems

Store = Annotated[Path, typer.Argument(help="Folder of a knowledge store.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")]


def project(
    store: Store,
    dim: Annotated[int, typer.Option(min=1, help="Numbers of a vector in the new store.")],
    out: Annotated[Path, typer.Option(help="Folder of the new store.")],
    level: Annotated[str, typer.Option(help="user or scenario; the other keeps its numbers.")] = "user",
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16, for both levels. Default: as before.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows that are looked at, above 100,000.")] = 0,
    json: Json = False,
) -> None:
    """Make a store of fewer numbers, by principal components; says how much of the differences is kept."""
    with problems():
        from msr_enhance.cli.project import run

        run(store, dim, out, level=level, dtype=dtype, seed=seed, as_json=json)


def push(
    store: Store,
    repo: Annotated[str, typer.Argument(help="Dataset repository, owner/name; made where it is not there.")],
    public: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Type the name again: everybody may read the repository."),
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Also prompts, answers and facts.")] = False,
    raw_ids: Annotated[bool, typer.Option("--raw-ids", help="Users under their own ids.")] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="File with the key of the ids; made where it is not there. Default: STORE.idkey"),
    ] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Another key than the repository's ids were hashed with.")
    ] = False,
    scenarios_only: Annotated[bool, typer.Option("--scenarios-only", help="No users at all.")] = False,
    license: Annotated[str, typer.Option(help="Licence that the card names.")] = "other",
    revision: Annotated[str | None, typer.Option(help="Branch, which must be there.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Write what is sent into this new folder, and keep it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and show what would be sent; needs no network.")
    ] = False,
    json: Json = False,
) -> None:
    """Share a store on the Hub: private, without texts, ids hashed with a key, unless told otherwise."""
    with problems():
        from msr_enhance.cli.push import run

        run(
            store,
            repo,
            public=public,
            texts=texts,
            raw_ids=raw_ids,
            key=key,
            new_key=new_key,
            scenarios_only=scenarios_only,
            license=license,
            revision=revision,
            folder=folder,
            dry_run=dry_run,
            as_json=json,
        )


def pull(
    name: Annotated[str, typer.Argument(help="owner/name, owner/name@revision or hf://datasets/owner/name.")],
    out: Annotated[Path, typer.Option(help="New folder for the store.")],
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Fetch a whole store from the Hub into a folder, every file checked."""
    with problems():
        from msr_enhance.cli.pull import run

        run(name, out, revision=revision, as_json=json)
