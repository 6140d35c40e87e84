"""A log becomes knowledge: prompts, a frozen language model, a store.

Needs: nothing
Takes: 7 seconds
Last line: stored: 3 scenarios and 200 users
"""

from __future__ import annotations

from in_house_model import FOLDER

from msr_enhance import HuggingFaceLLM, InteractionTable, KnowledgeExtractor, Platform, split_table
from msr_enhance.demo.world import PLATFORM, generate


def main() -> None:
    """Write a log, look at one prompt, read everybody."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    world = generate(users=200)
    InteractionTable.from_arrays(world.columns).frame.write_csv(FOLDER / "log.csv")

    table = InteractionTable.read(FOLDER / "log.csv")
    print(table)

    # Prompts may see what is before the cut-off; models train and are scored on what is after it.
    split = split_table(table, kind="scenario", cutoff=world.cutoff)
    print(f"prompts see {len(split.seen)} rows; {len(split.train)} are trained, {len(split.test)} scored")

    llm = HuggingFaceLLM.load("builtin", max_new_tokens=4)  # or a folder, or a name on the Hub
    extractor = KnowledgeExtractor(llm, platform=Platform.model_validate(PLATFORM), history=8)
    user, prompt = next(extractor.preview(table, split=split))
    print(f"\nthe prompt of user {user}:\n{prompt}\n")

    # Call it again and nothing is asked twice: finished rows are on disk.
    store = extractor.extract(table, FOLDER / "store", split=split)
    print(f"stored: {store.count('scenario')} scenarios and {store.count('user')} users")


if __name__ == "__main__":
    main()
