"""What smaller vectors cost: AUC on the built-in world with the store as extracted, and with copies of it.

    python benchmarks/stores/smaller.py --dims 32,8

The built-in world's interests are planted and the built-in model is untrained: this compares ways to keep
the same vectors, and says nothing about a language model. Output is one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.demo.world import generate
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.compact import compact
from msr_enhance.store.derive.make import project
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.compare import compare
from msr_enhance.train.loop import Settings


def copies(store: Path, folder: Path, dims: list[int]) -> dict[str, tuple[Path, float | None]]:
    """Copies of a store by name, and what the projected and int8 ones keep of the users' vectors."""
    found: dict[str, tuple[Path, float | None]] = {"float32": (store, None)}
    for dtype in ("float16", "bfloat16", "int8"):
        made = compact(store, folder / dtype, dtype)  # type: ignore[arg-type]  # one of its types
        found[dtype] = made.path, (made.kept_energy or {}).get("user")
    for dim in dims:
        kept = project(Version.of(store), folder / f"project-{dim}", dim)
        found[f"project {dim}"] = folder / f"project-{dim}", kept["user"]
    return found


def main() -> None:
    """Extract, copy, compare."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--users", type=int, default=4500)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--epochs", type=int, default=15)
    words.add_argument("--rate", type=float, default=0.01)
    words.add_argument("--dims", default="32,8")
    options = words.parse_args()
    world = generate(users=options.users)
    table = InteractionTable.from_arrays(world.columns)
    split = split_table(table, kind="scenario", cutoff=world.cutoff)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        llm = HuggingFaceLLM.load("builtin", max_new_tokens=4)
        KnowledgeExtractor(llm, history=8).extract(table, Path(place) / "store", split=split)
        dims = [int(dim) for dim in options.dims.split(",")]
        for name, (path, kept) in copies(Path(place) / "store", Path(place), dims).items():
            print(f"{name} …", file=sys.stderr, flush=True)
            found = compare(
                table,
                KnowledgeStore.load(path),
                arms=("plain", "enhanced"),
                seeds=options.seeds,
                learning_rates=(options.rate,),
                settings=Settings(epochs=options.epochs),
                split=split,
            )
            gap = found.gaps["enhanced"]["mean"]
            results[name] = {
                "auc": found.scores["enhanced"]["mean"].auc,
                "gap": gap.mean,
                "error_seeds": gap.error_seeds,
                "error_users": gap.error_users,
                "kept_energy": kept,
                "bytes": sum(file.stat().st_size for file in path.glob("vec-*")),
            }
            results.setdefault("plain", {"auc": found.scores["plain"]["mean"].auc})
    print(
        json.dumps({"results": results, "options": vars(options), "provenance": found.provenance}, indent=1)
    )


if __name__ == "__main__":
    main()
