"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_LOG = "The log"

Json = Annotated[bool, typer.Option("--json", help="Put one JSON object on stdout and nothing else.")]
Log = Annotated[
    Path, typer.Option("--data", help="Interaction log: .csv, .tsv or .parquet.", rich_help_panel=_LOG)
]
Items = Annotated[
    Path | None,
    typer.Option(help="Item table to join on the item column (titles, categories).", rich_help_panel=_LOG),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="ROLE=NAME, repeatable: user, item, scenario, label, time, order, text, category, features.",
        rich_help_panel=_LOG,
    ),
]
SplitKind = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="scenario, global or user; default: what suits the log.",
        rich_help_panel=_LOG,
    ),
]
Protocol = Annotated[
    str,
    typer.Option(help="window (no row is served by a prompt that saw it) or paper.", rich_help_panel=_LOG),
]
Cutoff = Annotated[
    str | None,
    typer.Option(help="First time that no prompt may see; default: half of the rows.", rich_help_panel=_LOG),
]
Backbone = Annotated[str, typer.Option(help="shared_bottom, omoe, mmoe, ple, aitm or star.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds.")]
