"""The page of figures, written by the program that measured them."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.durability.proofs import PROOFS

_PACKAGES = ("msr-enhance", "numpy", "pydantic")
_ROOT = Path(__file__).parents[2]

_WORDS = """# Durability

Rows count once `append` has returned, and nothing that happens afterwards takes them away. Each line below is
a program in `benchmarks/durability/` that tries to break a promise of the knowledge store, and stops at the
first success. This page is what they wrote; do not edit it. `python -m benchmarks.durability --out PAGE`
runs them all with the counts of every push, `--full` with those that take hours, `--only` some of them.

| Proof | What was done | At most | Failures | Seconds | Figures | Run |
|---|---|--:|--:|--:|---|---|
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page.

    Args:
        results: Of each proof: count, failures, seconds, figures, the error where it failed, seed and
            circumstances.
    """
    rows = [
        f"| {name} | {PROOFS[name].what} | {result['count']:,} | {result['failures']} "
        f"| {result['seconds']:,} | {result.get('error') or _figures(result['figures'])} "
        f"| seed {result['seed']}, {result['commit']}, {result['day']} |"
        for name, result in results.items()
    ]
    facts = sorted({f"- {result['machine']}; {result['versions']}" for result in results.values()})
    return _WORDS + "\n".join([*rows, "", *facts]) + "\n"


def circumstances() -> dict[str, str]:
    """Commit, versions, machine and day of a run."""
    return {
        "commit": _commit(),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in _PACKAGES)]
        ),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _figures(figures: Mapping[str, int | float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in figures.items())


def _commit() -> str:
    """The commit, and whether files differ from it."""

    def said(*words: str) -> str:
        run = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False)
        return run.stdout.strip()

    changed = " with changes" if said("status", "--porcelain", "--", "msr_enhance") else ""
    return f"`{said('rev-parse', '--short=12', 'HEAD') or 'unknown'}`{changed}"
