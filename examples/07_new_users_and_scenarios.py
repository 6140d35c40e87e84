"""New users and a new scenario: newer knowledge for a model that is trained already.

Needs: nothing
Takes: 7 seconds
Last line: scored 30 new users in the new scenario video, 0 rows without knowledge
"""

from __future__ import annotations

import numpy as np
import torch
from in_house_model import FOLDER, InHouse, batch_of, batches

from msr_enhance import HuggingFaceLLM, InteractionTable, KnowledgeExtractor, enhance, split_table
from msr_enhance.demo.world import generate

OLD_USERS = 90


def main() -> None:
    """Train on two scenarios, then serve a third without training."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    world = generate(users=120, seed=1)
    columns = world.columns
    early = (columns["user_id"] < OLD_USERS) & (columns["scenario"] != "video")
    before = InteractionTable.from_arrays({name: values[early] for name, values in columns.items()})
    extractor = KnowledgeExtractor(HuggingFaceLLM.load("builtin", max_new_tokens=4), history=8)

    split = split_table(before, kind="scenario", cutoff=world.cutoff)
    model = enhance(
        InHouse(items=columns["item_id"].max() + 1),
        extractor.extract(before, FOLDER / "before", split=split),
        tap="join",
        keys={"user": "user", "scenario": "scenario"},
        vocabulary={"scenario": before.scenarios},
        example=batch_of(before, split.train[:8]),
    )
    optimizer = torch.optim.AdamW(model.parameter_groups(lr=1e-2))
    for batch, labels in batches(before, split.train):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()

    after = InteractionTable.from_arrays(columns)
    new, place = after.column("user_id") >= OLD_USERS, after.column("scenario")
    model(batch_of(after, np.flatnonzero(new & (place == "shop"))))
    before_refresh = model.unknown_counts()["user"]
    print(f"before: {before_refresh} rows of new users in shop were scored with zero knowledge")

    # The layers stay as they were learned; the new vectors go through them. Old scenarios keep their numbers.
    cut = split_table(after, kind="scenario", cutoff=world.cutoff)
    store = extractor.extract(after, FOLDER / "after", split=cut)
    model.refresh(store, vocabulary={"scenario": after.scenarios})
    batch = batch_of(after, np.flatnonzero(new & (place == "video")))
    print(f"first scores in video: {model(batch)[:3].tolist()}")
    users, unknown = len(batch["user"].unique()), model.unknown_counts()["user"] - before_refresh
    print(f"scored {users} new users in the new scenario video, {unknown} rows without knowledge")


if __name__ == "__main__":
    main()
