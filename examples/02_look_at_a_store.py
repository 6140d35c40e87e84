"""What is in a store: a vector, a prompt, an answer and facts for each id.

Needs: 01_extract.py
Takes: 2 seconds
Last line: user 7 liked 11 shown items, most of them travel
"""

from __future__ import annotations

from in_house_model import FOLDER

from msr_enhance import KnowledgeStore


def main() -> None:
    """Open a store and read it."""
    store = KnowledgeStore.load(FOLDER / "store")
    print(store)
    print(f"made by {store.provenance.identity['llm']['model']}; fingerprint {store.fingerprint[:12]}")

    vectors = store.vectors("user", [3, 7])  # what a model reads: [ids, dim], float32
    print(f"vectors of two users: {vectors.shape}")

    print(f"\nwhat it was told about shop:\n{store.record('scenario', 'shop').prompt}")
    record = store.record("user", 7)
    print(f"\nwhat it answered about user 7 ({record.status}):\n{record.text}\n")

    # An id that nobody extracted is an error, or zeros that are counted.
    lenient = KnowledgeStore.load(FOLDER / "store", unknown="zero")
    print(f"a stranger has a vector of zeros: {not lenient.vectors('user', [123456]).any()}")
    print(lenient.lookups)

    shown = record.facts["categories"]
    most = max(shown, key=shown.get)
    print(f"user 7 liked {sum(shown.values())} shown items, most of them {most}")


if __name__ == "__main__":
    main()
