"""From a saved model to a server: freeze, cache, one user, export, swap.

Needs: 01_extract.py and 05_train_in_your_loop.py
Takes: 7 seconds
Last line: the exported program agrees: True
"""

from __future__ import annotations

import numpy as np
import torch
from in_house_model import FOLDER, InHouse, batch_of

from msr_enhance import EnhancedModel, InteractionTable, KnowledgeStore


def main() -> None:
    """Load, freeze, serve, export."""
    table = InteractionTable.read(FOLDER / "log.csv")
    store = KnowledgeStore.load(FOLDER / "store")
    backbone = InHouse(items=max(table.item_ids) + 1).eval()
    model = EnhancedModel.from_pretrained(FOLDER / "model", backbone, store).eval()
    batch = batch_of(table, np.arange(64))

    serving = model.freeze(cache=1_000)  # no hook, nothing to learn; 1,000 users' weights stay made
    scores = serving(batch)
    print(f"the frozen copy agrees: {torch.allclose(scores, model(batch), atol=1e-5)}")

    # One request is one user and many items: its user is looked up once.
    request = {**batch, "user": torch.full((64,), 7)}
    whose = {"user": serving.rows_of("user", torch.tensor([7]))}
    one = serving(request, rows=whose)
    print(f"one user, 64 items: {tuple(one.shape)}, best item {int(request['item'][one.argmax()])}")

    # What serves is a plain name. Newer knowledge: refresh, freeze again, put it in its place.
    model.refresh(store.newest(), vocabulary={"scenario": table.scenarios})
    serving = model.freeze(cache=serving.cache)  # the cache is shared and never mixes versions up

    size = torch.export.Dim("rows", min=2, max=4096)
    ids = {level: serving.rows_of(level, batch[level]) for level in ("user", "scenario")}
    program = torch.export.export(
        serving,
        (batch,),
        {"rows": ids},
        dynamic_shapes={
            "args": ({name: {0: size} for name in batch},),
            "rows": {level: {0: size} for level in ids},
        },
    )
    again = program.module()(batch, rows=ids)
    print(f"the exported program agrees: {torch.allclose(again, scores, atol=1e-5)}")


if __name__ == "__main__":
    main()
