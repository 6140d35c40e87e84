"""Prove that stores are durable, and write down how.

    python -m benchmarks.durability                           # seconds; figures as JSON on stdout
    python -m benchmarks.durability --only kills,faults --seed 7
    python -m benchmarks.durability --full --out docs/durability.md

With `--out` the figures are put into `figures.json` beside this program, in the place of older ones of the
same proof, and the page is written from all of them: proofs that take hours need not run together. Words
go to stderr. It ends with code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.durability.page import circumstances, page
from benchmarks.durability.proofs import PROOFS

FIGURES = Path(__file__).with_name("figures.json")


def run(name: str, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Run one proof; a broken promise is a result, too, and so is any error that was not foreseen."""
    started = time.perf_counter()
    result: dict[str, Any] = {"count": count, "failures": 0, "figures": {}, "seed": seed, **circumstances()}
    try:
        result["figures"] = PROOFS[name].prove(folder / name, count, seed)
    except Exception as error:
        traceback.print_exc()
        result |= {"failures": 1, "error": f"{type(error).__name__}: {error}"}
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def main() -> int:
    """Run what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--out", type=Path, help="the page to write")
    words.add_argument("--full", action="store_true", help="hours instead of minutes")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--only", default=",".join(PROOFS), help="names of proofs, with commas between")
    words.add_argument("--count", type=int, help="instead of the usual one")
    shared = Path("/dev/shm")  # memory, where there is some: it makes no promise we need
    words.add_argument("--folder", type=Path, default=shared if shared.is_dir() else None)
    options = words.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in PROOFS]:
        words.error(f"no proof is named {unknown[0]!r}; allowed: {', '.join(PROOFS)}")
    results = {}
    folder = Path(tempfile.mkdtemp(prefix="durability-", dir=options.folder))
    try:
        for name in names:
            proof = PROOFS[name]
            count = options.count or (proof.full if options.full else proof.quick)
            print(f"{name}: count {count}, seed {options.seed} …", file=sys.stderr, flush=True)
            results[name] = run(name, folder, count, options.seed)
            print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.out:
        kept = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
        kept = {name: {**kept, **results}[name] for name in PROOFS if name in {**kept, **results}}
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        options.out.write_text(page(kept), "utf-8")
    print(json.dumps(results, indent=1))
    return int(any(result["failures"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
