"""A few test rows of a comparison, explained: which ones, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from msr_enhance.data.table import InteractionTable
from msr_enhance.prompts.template import clean_text
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.run import RunPart, RunRow
from msr_enhance.wrap.explain import explain
from msr_enhance.wrap.model import EnhancedModel

ROWS = 12


def chosen_rows(scenario: npt.NDArray[np.int64], count: int = ROWS, seed: int = 0) -> list[int]:
    """Rows to explain: drawn at random, as many of each scenario as of any other; nothing is picked by hand.

    All rows are shuffled with a fixed seed. Then one row after another is taken from each scenario in turn,
    until there are `count` or none is left. Labels, scores, users and what is known of them play no part.

    Args:
        scenario: Of each row, ``[rows]``.
        count: How many rows.
        seed: Of the shuffle.

    Returns:
        Row positions, by scenario and then as they lie in the log.
    """
    shuffled = np.random.default_rng(seed).permutation(len(scenario))
    turns: list[tuple[int, int]] = []
    for one in np.unique(scenario).tolist():
        places = np.flatnonzero(scenario[shuffled] == one)[:count].tolist()
        turns += list(enumerate(places))
    taken = [int(shuffled[place]) for _, place in sorted(turns)[:count]]
    return sorted(taken, key=lambda row: (int(scenario[row]), row))


def explained(
    model: EnhancedModel,
    table: InteractionTable,
    test: npt.NDArray[np.int64],
    inputs: Mapping[str, Tensor],
    store: KnowledgeStore,
) -> list[RunRow]:
    """Explanations of `chosen_rows` of the test rows.

    Args:
        model: The trained enhanced model.
        table: The log.
        test: Rows of the log, ``[rows]``.
        inputs: The model's batch of these rows.
        store: Where the answers are.
    """
    rows = chosen_rows(table.scenario_index[test])
    batch = {name: values[rows] for name, values in inputs.items()}
    found = []
    for place, row in enumerate(test[rows].tolist()):
        said = explain(model, batch, row=place, store=store)
        found.append(
            RunRow(
                user=table.user_ids[int(table.user_index[row])],
                scenario=table.scenarios[int(table.scenario_index[row])],
                item=item_text(table, row),
                label=1 if table.labels[row] else 0,
                logit=said.logit,
                probability=said.probability,
                parts=[
                    RunPart(
                        name=part.name,  # type: ignore[arg-type]  # one of the three
                        logit=part.logit,
                        key=part.key,
                        known=part.known,
                        text=part.text,
                        alpha=part.alpha,
                    )
                    for part in said.parts
                ],
            )
        )
    return found


def item_text(table: InteractionTable, row: int) -> str:
    """What a prompt would show of a row's item: its texts and, last, its category; else its id."""
    columns, frame = table.columns, table.frame

    def value(name: str) -> Any:
        return frame[name][row]

    names = [name for name in columns.text if name != columns.category]
    names += [] if columns.category is None else [columns.category]
    fields = [clean_text(str(held)) for name in names if (held := value(name)) is not None]
    return " | ".join(filter(None, fields)) or f"item {clean_text(str(value(columns.item)))}"
