"""Generated layers around your own module: find the tap, name the keys.

Needs: 01_extract.py
Takes: 4 seconds
Last line: starts as the plain model: True
"""

from __future__ import annotations

import numpy as np
import torch
from in_house_model import FOLDER, InHouse, batch_of

from msr_enhance import InteractionTable, KnowledgeStore, MsrEnhanceError, enhance


def main() -> None:
    """Ask where the tap is, then enhance there."""
    table = InteractionTable.read(FOLDER / "log.csv")
    store = KnowledgeStore.load(FOLDER / "store")
    backbone = InHouse(items=max(table.item_ids) + 1).eval()
    batch = batch_of(table, np.arange(64))

    # Without a tap, the error is the report: every place with its shape, and a call to copy.
    try:
        enhance(backbone, store, example=batch)
    except MsrEnhanceError as report:
        print(f"{report}\n")

    model = enhance(
        backbone,
        store,
        tap="join",
        keys={"user": "user", "scenario": "scenario"},
        vocabulary={"scenario": table.scenarios},  # scenarios are numbers in a batch, users are their ids
        example=batch,
    ).eval()
    print(model.recipe.placement)
    model.print_trainable_parameters()
    print(f"starts as the plain model: {torch.equal(model(batch), backbone(batch))}")


if __name__ == "__main__":
    main()
