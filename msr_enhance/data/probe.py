"""The leak probe: what the prompts alone would tell of a row, without any model.

The AUC of these scores on the test part is printed with every comparison. Far above one half, prompts know
more than a taste: LLM4MSR's Amazon gains (arXiv 2406.12529, Table 2) are what one would get from the number
of positives in a prompt that did not stop before the test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msr_enhance.data.table import InteractionTable


@dataclass(frozen=True)
class ShownHistory:
    """What the prompts of a store showed of each user.

    Attributes:
        counts: User → scenario → positives in the prompt.
        categories: User → category → events in the prompt, as counts or shares.
    """

    counts: Mapping[int | str, Mapping[str, int]]
    categories: Mapping[int | str, Mapping[str, float]]


def positives_score(
    table: InteractionTable, rows: npt.NDArray[np.int64], shown: ShownHistory
) -> npt.NDArray[np.float64]:
    """Score rows by the number of same-scenario positives in their user's prompt.

    Args:
        table: The log.
        rows: Row positions ``[n]``.
        shown: What the prompts showed.

    Returns:
        Counts ``[n]``; 0 for a user without a prompt.
    """
    counts = [shown.counts.get(user, {}) for user in table.user_ids]
    names = table.scenarios
    pairs = zip(table.user_index[rows].tolist(), table.scenario_index[rows].tolist(), strict=True)
    return np.array([counts[user].get(names[scenario], 0) for user, scenario in pairs], np.float64)


def category_score(
    table: InteractionTable, rows: npt.NDArray[np.int64], shown: ShownHistory
) -> npt.NDArray[np.float64]:
    """Score rows by the share of their user's prompt that has the category of their item.

    Args:
        table: The log.
        rows: Row positions ``[n]``.
        shown: What the prompts showed.

    Returns:
        Shares in [0, 1] ``[n]``; 0 for an unknown user or category, or a log without categories.
    """
    if table.columns.category is None:
        return np.zeros(len(rows))
    seen = [shown.categories.get(user, {}) for user in table.user_ids]
    totals = [sum(each.values()) or 1.0 for each in seen]
    categories = table.frame[table.columns.category][rows].to_list()
    pairs = zip(table.user_index[rows].tolist(), categories, strict=True)
    return np.array(
        [seen[user].get(name, 0) / totals[user] if name else 0.0 for user, name in pairs], np.float64
    )
