"""What the generated layers cost: ratios to the plain backbone, for every row of the table of targets.

    python benchmarks/overhead.py                                # everything; five minutes, 6 GB
    python benchmarks/overhead.py --only request,offline --pairs 15
    python benchmarks/overhead.py --quick --items 100000         # a look, in minutes
    python benchmarks/overhead.py --device cuda

Plain and enhanced take turns in one process on the same batches, with the same optimizer and the same
freezing; a ratio is the median of paired ratios of CPU time of one thread (elapsed time on a GPU). The
backbone is STAR with rows only in their own tower. Knowledge is random: only its shape costs. Exit code 0
whatever the ratios are: absolute times and a busy machine decide nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from cost.batches import World, rho
from cost.cases import chosen
from cost.measure import Bench
from cost.page import about, page, table


def main() -> None:
    """Run what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--only", help="parts of row names, with commas between")
    words.add_argument("--pairs", type=int, help="pairs of each row (21; 5 with --quick)")
    words.add_argument("--quick", action="store_true", help="few pairs")
    words.add_argument("--device", default="cpu")
    words.add_argument("--items", type=int, default=4_160_000)
    words.add_argument("--users", type=int, default=25_877)
    words.add_argument("--batch", type=int, default=4096)
    words.add_argument("--request", type=int, default=500, help="rows of a request")
    words.add_argument("--full-width", type=int, default=4096, help="numbers of a vector, full-width row")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--json", action="store_true", help="one JSON object on stdout")
    words.add_argument("--out", type=Path, help="write the page of the documentation here")
    options = words.parse_args()
    torch.set_num_threads(1)
    pairs = options.pairs or (5 if options.quick else 21)
    world = World(options.users, options.items, options.batch, options.request, options.seed)
    bench, figures = Bench(world, options.device, options.full_width), []
    facts = about(options, world)
    for case in chosen(options.only):
        figures.append(bench.figure(case, pairs))
        print(table(figures[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    kinds = sorted({case.batches for case in chosen(options.only)})
    facts["rows_a_user"] = {kind: round(rho(bench.batches(kind)), 2) for kind in kinds}
    if options.json:
        print(json.dumps({**facts, "figures": [figure.plain() for figure in figures]}, indent=1))
    else:
        print("\n".join(f"{name}: {value}" for name, value in facts.items()))
        print(table(figures))
    if options.out is not None:
        options.out.write_text(page(figures, facts), "utf-8")


if __name__ == "__main__":
    main()
