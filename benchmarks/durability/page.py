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
first success. This page is what they wrote; do not edit it.

| Proof | What was done | Count | Failures | Seconds | Figures |
|---|---|--:|--:|--:|---|
"""


def page(results: Mapping[str, Mapping[str, Any]], seed: int, full: bool) -> str:
    """The page.

    Args:
        results: Of each proof: count, failures, seconds, figures and, where it failed, the error.
        seed: The seed of all.
        full: Whether the full counts were asked for.
    """
    rows = [
        f"| {name} | {PROOFS[name].what} | {result['count']:,} | {result['failures']} "
        f"| {result['seconds']:,} | {result.get('error') or _figures(result['figures'])} |"
        for name, result in results.items()
    ]
    command = (
        f"python -m benchmarks.durability{' --full' if full else ''} --seed {seed} --out docs/durability.md"
    )
    facts = {
        "Commit": _commit(),
        "Versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in _PACKAGES)]
        ),
        "Machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "Day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "Seed": str(seed),
        "Command": f"`{command}`",
    }
    return _WORDS + "\n".join([*rows, "", *(f"- {name}: {fact}" for name, fact in facts.items())]) + "\n"


def _figures(figures: Mapping[str, int | float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in figures.items())


def _commit() -> str:
    """The commit, and whether files differ from it."""

    def said(*words: str) -> str:
        run = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False)
        return run.stdout.strip()

    changed = " with changes" if said("status", "--porcelain", "--", "msr_enhance") else ""
    return f"`{said('rev-parse', '--short=12', 'HEAD') or 'unknown'}`{changed}"
