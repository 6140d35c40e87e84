"""An enhanced model in your training loop, and what is saved of it.

Needs: 01_extract.py
Takes: 4 seconds
Last line: saved: config.json, model.safetensors
"""

from __future__ import annotations

import torch
from in_house_model import FOLDER, InHouse, batch_of, batches

from msr_enhance import InteractionTable, KnowledgeStore, enhance
from msr_enhance.train.compare import split_as, window_of


def main() -> None:
    """Train on the rows after the cut-off, then save."""
    table = InteractionTable.read(FOLDER / "log.csv")
    store = KnowledgeStore.load(FOLDER / "store")
    split = split_as(table, window_of(store))  # as the store's prompts were cut

    torch.manual_seed(0)
    model = enhance(
        InHouse(items=max(table.item_ids) + 1),
        store,
        tap="join",
        keys={"user": "user", "scenario": "scenario"},
        vocabulary={"scenario": table.scenarios},
        example=batch_of(table, split.train[:8]),
    )
    # The one change: generated layers learn more slowly, and alpha has no weight decay.
    optimizer = torch.optim.AdamW(model.parameter_groups(lr=1e-2, weight_decay=1e-4))
    for epoch in range(5):
        total = 0.0
        for batch, labels in batches(table, split.train, seed=epoch):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        print(f"epoch {epoch}: loss {total / len(split.train):.4f}")
    print(f"weight of the scenario layers: {model.alphas()['scenario']:.3f}")

    model.save_pretrained(FOLDER / "model")  # weights and recipe; the store stays where it is
    print(f"saved: {', '.join(sorted(path.name for path in (FOLDER / 'model').iterdir()))}")


if __name__ == "__main__":
    main()
