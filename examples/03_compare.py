"""Does it help? The same backbone with this knowledge, without it, with other users' vectors.

Needs: 01_extract.py
Takes: 5 seconds
Last line: compared: plain, enhanced, shuffled on 120 test rows
"""

from __future__ import annotations

from in_house_model import FOLDER

from msr_enhance import InteractionTable, KnowledgeStore, compare
from msr_enhance.train.loop import Settings


def main() -> None:
    """Train three arms on the same rows and look at the differences with their errors."""
    table = InteractionTable.read(FOLDER / "log.csv")
    store = KnowledgeStore.load(FOLDER / "store")

    # The log is divided as the store says. Rows that its prompts have seen would be refused.
    result = compare(
        table,
        store,
        arms=("enhanced", "shuffled"),
        seeds=2,
        learning_rates=(0.01,),
        settings=Settings(epochs=5),
    )
    for arm, scores in result.scores.items():
        print(f"{arm:10} mean AUC {scores['mean'].auc:.3f}")
    for arm, gap in result.gaps.items():
        users = gap["mean"].error_users
        print(f"{arm} - plain: {gap['mean'].mean:+.3f} ± {users:.3f} (over test users)")
    print("A toy this small proves nothing; look at the errors. The demo has 4,500 users.")
    print(f"compared: {', '.join(result.scores)} on {result.rows['test']} test rows")


if __name__ == "__main__":
    main()
