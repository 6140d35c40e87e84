"""The `explain` command: the explained test rows of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msr_enhance.cli.options import Json
from msr_enhance.cli.output import emit, show
from msr_enhance.cli.problems import problems
from msr_enhance.errors import DataError, UnknownIdError, not_one_of


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as demo or compare --out made it.")],
    user: Annotated[str | None, typer.Option(help="Only the rows of this user.")] = None,
    json: Json = False,
) -> None:
    """What made the scores of some test rows: the backbone, the user's layers, the scenario's."""
    with problems():
        _run(run, user=user, as_json=json)


def _run(folder: Path, *, user: str | None, as_json: bool) -> None:
    from msr_enhance.prompts.template import clean_text
    from msr_enhance.train.run import Run
    from msr_enhance.wrap.bars import drawn

    held = Run.load(folder)
    if not held.explanations:
        raise DataError(
            f"{folder} explains no row: the enhanced arm was not run. Compare again, without --arms, or with "
            "enhanced among them."
        )
    rows = [row for row in held.explanations if user is None or str(row.user) == user]
    if not rows:
        there = dict.fromkeys(str(row.user) for row in held.explanations)
        more = "A run explains a few test rows; explain() of the library explains any other."
        raise UnknownIdError(not_one_of("user", user, there, more))
    store = held.store_path(folder)
    if as_json:
        emit(
            {
                "run": str(folder.resolve()),
                "store": str(store),
                "explanations": [row.model_dump(mode="json") for row in rows],
            }
        )
        return
    rate = held.comparison.learning_rates.get("enhanced")
    show(
        f"{len(rows)} of the {len(held.explanations)} test rows that were drawn at random in all scenarios, "
        f"as the enhanced model of seed 0 scores them{f' (learning rate {rate:g})' if rate else ''}.\n"
        "Parts are logits and sum to the score. Bars to the right push it up, to the left down."
    )
    for row in rows:
        happened = {1: "liked", 0: "not liked", None: "not known"}[row.label]
        user, place, item = (clean_text(str(one)) for one in (row.user, row.scenario, row.item))
        show(f"\nuser {user} in {place}: {item}   ({happened})")
        show(drawn(row.parts, row.logit, row.probability))
    show(f"\nstore: {store}")
