"""Figures as a table, and as the page of the documentation."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cost.batches import World
from cost.measure import Figure

HEAD = (
    "| row | target | floor | measured (quartiles) | | to the unfrozen plain "
    "| memory of a step, plain / ours |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def about(options: argparse.Namespace, world: World) -> dict[str, Any]:
    """What a reader of the figures needs to know."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    cuda = options.device.startswith("cuda")
    return {
        "commit": f"{commit or 'unknown'}{' and changes' if changed else ''}",
        "versions": {"python": platform.python_version()}
        | {n: version(n) for n in ("torch", "numpy", "msr-enhance")},
        "machine": torch.cuda.get_device_name() if cuda else processor(),
        "threads": torch.get_num_threads(),
        "allocator": os.environ.get("LD_PRELOAD")
        or f"{' '.join(platform.libc_ver())} malloc"
        + "".join(f", {name}={value}" for name, value in os.environ.items() if name.startswith("MALLOC_")),
        "seed": options.seed,
        "sizes": {
            "users": world.users,
            "items": world.items,
            "batch": world.batch,
            "request": world.request,
            "embedding": world.width,
        },
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def table(figures: Sequence[Figure]) -> str:
    """One line for each figure."""
    return "\n".join([HEAD, *map(line, figures)])


def line(figure: Figure) -> str:
    """A row of the table."""
    low, high = figure.quartiles
    memory = "" if figure.memory is None else " / ".join(f"{size / 1e6:.0f} MB" for size in figure.memory)
    cells = [
        figure.name,
        "" if figure.target is None else f"{figure.target:.2f}",
        f"{figure.floor:.2f}",
        f"**{figure.ratio:.2f}** ({low:.2f} to {high:.2f})",
        "" if figure.target is None else figure.verdict,
        "" if figure.eager is None else f"{figure.eager:.2f}",
        memory,
    ]
    return f"| {' | '.join(cells)} |"


def page(figures: Sequence[Figure], facts: dict[str, Any]) -> str:
    """The page of the documentation: the table between words that are kept beside this file."""
    words = (Path(__file__).parent / "page.md").read_text("utf-8")
    known = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    return words.replace("{table}", table(figures)).replace("{facts}", known)
