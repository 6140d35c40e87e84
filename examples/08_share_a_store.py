"""A store to share: keyed hashes of ids, no prompts, no answers.

Needs: 01_extract.py
Takes: 2 seconds
Last line: shared: 3 scenarios, 200 users under keyed hashes, no texts
"""

from __future__ import annotations

import secrets
import shutil

import numpy as np
from in_house_model import FOLDER

from msr_enhance import KnowledgeStore, MsrEnhanceError


def main() -> None:
    """Write what would leave, and look at it before it does."""
    store = KnowledgeStore.load(FOLDER / "store")
    folder = FOLDER / "shared"
    shutil.rmtree(folder, ignore_errors=True)

    # Nothing leaves by accident: without a decision about ids there is no copy.
    try:
        store.save_pretrained(folder)
    except MsrEnhanceError as refused:
        print(f"refused: {refused}\n")

    key = secrets.token_bytes(32)  # keep it, and keep it secret: nobody finds a user without it
    shared = store.save_pretrained(folder, key=key)
    print("\n".join(sorted(path.name[:24] for path in folder.iterdir())))

    theirs = KnowledgeStore.from_pretrained(folder)
    print(f"\nwithout the key a user is called {theirs.ids('user')[0]}")
    ours = KnowledgeStore.from_pretrained(folder, key=key)
    same = np.array_equal(ours.vectors("user", [7]), store.vectors("user", [7]))
    print(f"with the key user 7 has the same vector: {same}")
    # store.push_to_hub("owner/name", key=key) sends this folder as one commit of a private repository.
    print(
        f"shared: {shared.rows['scenario']} scenarios, {shared.rows['user']} users under {shared.ids}, "
        f"{'with' if shared.texts else 'no'} texts"
    )


if __name__ == "__main__":
    main()
