"""What factoring the meta network costs in AUC: the enhanced arm of `compare()` at several ranks.

    python benchmarks/rank.py [--data LOG --store STORE] [--ranks none,64,16] [--seeds 5] [--json]

Without ``--data`` it generates the built-in world and reads it with the built-in model, as ``msr-enhance
demo`` does. Every rank searches the same learning rates on validation rows at seed 0, then runs every seed at
the chosen one; test rows choose nothing. Differences are paired by seed with ``rank=None``, the paper's
full network.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from msr_enhance import (
    HuggingFaceLLM,
    InteractionTable,
    KnowledgeExtractor,
    KnowledgeStore,
    MetaConfig,
    Platform,
)
from msr_enhance.cli.demo import HISTORY
from msr_enhance.data.columns import Columns
from msr_enhance.data.split import Split, split_table
from msr_enhance.demo.world import PLATFORM, generate
from msr_enhance.train.arms import build
from msr_enhance.train.compare import LEARNING_RATES, split_as, window_of
from msr_enhance.train.loop import Settings
from msr_enhance.train.metrics import mean_auc, paired_difference, scenario_scores
from msr_enhance.train.study import Study

RANKS = "none,64,32,16,8,4"


def world(folder: Path) -> tuple[InteractionTable, KnowledgeStore, Split]:
    """The built-in world, and what the built-in model says about it."""
    made = generate()
    table = InteractionTable.from_arrays(made.columns)
    parts = split_table(table, kind="scenario", cutoff=made.cutoff)
    llm = HuggingFaceLLM.load("builtin", max_new_tokens=4)
    extractor = KnowledgeExtractor(llm, platform=Platform.model_validate(PLATFORM), history=HISTORY)
    return table, extractor.extract(table, folder / "store", split=parts), parts


def measured(study: Study, meta: MetaConfig | None) -> dict[str, Any]:
    """AUC of every seed (mean of scenarios), and what it took; the plain model where meta is None."""
    arm = "plain" if meta is None else "enhanced"
    study.run(arm, lambda _: None)
    each = [scenario_scores(study.labels, one, study.place, study.names) for one in study.logits[arm]]
    aucs = [mean_auc(scores) for scores in each]
    model = build(arm, study._narrow[0], study.store, 0)
    layers = getattr(model, "meta", None)
    weights = 0 if layers is None else sum(weight.numel() for weight in layers.parameters())
    return {"aucs": aucs, "weights": weights, "rate": study.best[arm], "seconds": study.seconds[arm]}


def main() -> None:
    """Read the options, run every rank, print a table (or JSON)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a log; --store was made from it")
    parser.add_argument("--store")
    parser.add_argument("--column", action="append", default=[], help="NAME=COLUMN, as for msr-enhance")
    parser.add_argument("--ranks", default=RANKS)
    parser.add_argument("--backbone", default="shared_bottom")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", default=",".join(map(str, LEARNING_RATES)))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.data:
            columns = Columns(**dict(pair.split("=", 1) for pair in options.column))
            table, store = InteractionTable.read(options.data, columns), KnowledgeStore.load(options.store)
            parts = split_as(table, window_of(store))
        else:
            table, store, parts = world(Path(folder))
        found = {}
        for name in ("plain", *options.ranks.split(",")):
            meta = None if name == "plain" else MetaConfig(rank=None if name == "none" else int(name))
            rates = tuple(float(rate) for rate in options.rates.split(","))
            settings = Settings(epochs=options.epochs)
            study = Study(table, store, parts, options.backbone, settings, rates, options.seeds, meta)
            found[name] = measured(study, meta)
            print(f"rank {name}: {found[name]}", file=sys.stderr, flush=True)
        dim = int(np.prod(store.vectors("scenario", store.ids("scenario")[:1]).shape[1:]))
    facts = {
        "log": options.data or "built-in world",
        "rows": len(parts.train),
        "vectors": f"{dim} numbers, {store.provenance.identity.get('llm')}",
        "backbone": options.backbone,
        "seeds": options.seeds,
        "commit": commit(),
        "torch": importlib.metadata.version("torch"),
    }
    if options.json:
        print(json.dumps({"facts": facts, "ranks": found}))
        return
    print(", ".join(f"{name}: {value}" for name, value in facts.items() if name != "vectors"))
    print(f"vectors: {str(facts['vectors'])[:160]}\n")
    print("| rank | generating weights | AUC, mean of scenarios | against none | against plain | rate | s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, one in found.items():
        others = [found.get(other, {}).get("aucs") for other in ("none", "plain")]
        against = [_difference(one["aucs"], other) for other in others]
        mean, spread = np.mean(one["aucs"]), np.std(one["aucs"], ddof=1) if options.seeds > 1 else 0.0
        print(
            f"| {name} | {one['weights']:,} | {mean:.4f} ± {spread:.4f} | {against[0]} | {against[1]} "
            f"| {one['rate']:g} | {one['seconds']:.0f} |"
        )


def _difference(ours: list[float], theirs: list[float] | None) -> str:
    if theirs is None or theirs is ours:
        return ""
    pair = paired_difference(ours, theirs)
    return f"{pair.mean:+.4f}" + ("" if pair.error is None else f" ± {pair.error:.4f}")


def commit() -> str:
    """Commit of this checkout."""
    call = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
