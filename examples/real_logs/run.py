"""From raw files to the comparison, with the public commands only.

    python examples/real_logs/run.py {coupon,movielens,amazon} RAW OUT [--encoder DIR]

Prepares the log, then runs ``msr-enhance extract`` for each source of vectors and ``msr-enhance compare`` on
each store. OUT gets the log, the stores, runs in ``results`` and ``commands.txt``. Every command is printed.
What is there already is kept (a store is resumed, a result is not made again), so a stopped run goes on.
DIR is a local sentence-transformers folder; it needs ``pip install 'msr-enhance[encoder]'``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import amazon
import coupon
import movielens

PREPARE = {"coupon": coupon.prepare, "movielens": movielens.prepare, "amazon": amazon.prepare}
ORDERED = ("coupon", "amazon")  # logs with an order and no time
# Four tokens: as in the published tables, whose decoder had random weights and wrote noise. Ten positives a
# scenario mostly fit an encoder's window, and longer prompts lose their oldest interactions.
HISTORY, NEW_TOKENS, SEEDS = "10", "4", "3"
SOURCES = {
    "builtin": ["--model", "builtin", "--max-new-tokens", NEW_TOKENS],
    "token-mean": ["--model", "builtin", "--state", "token-mean", "--max-new-tokens", NEW_TOKENS],
    "category-frequency": ["--model", "category-frequency"],
}
# 4,717 training rows are five steps an epoch at the default batch: too few for any arm, plain included.
TRAINING = {"coupon": ["--batch-size", "128"]}
# Every control once, and for the other stores those that depend on the vectors.
FEW, STAR = ["--arms", "enhanced,shuffled,concat"], ["--arms", "enhanced,shuffled", "--backbone", "star"]


class Commands:
    """Runs commands in one folder, prints them and keeps them in ``commands.txt``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        beside = Path(sys.executable).with_name("msr-enhance")
        found = str(beside) if beside.exists() else shutil.which("msr-enhance")
        if found is None:
            sys.exit("there is no msr-enhance command; write: pip install msr-enhance")
        self.program = found

    def run(self, *words: str, skip: bool = False) -> None:
        """Run one ``msr-enhance`` command, or only note it where its result is there."""
        line = shlex.join(["msr-enhance", *words])
        print(f"$ {line}{'   # done before' if skip else ''}", flush=True)
        self.lines.append(line)
        (self.folder / "commands.txt").write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        if not skip:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            subprocess.run([self.program, *words], cwd=self.folder, env=environment, check=True)


def run(dataset: str, raw: Path, out: Path, encoder: Path | None) -> None:
    """Prepare one log and run every command on it.

    Args:
        dataset: A key of `PREPARE`.
        raw: Folder of the raw files.
        out: Folder to write to.
        encoder: Local folder of a sentence-transformers model, if there is one.
    """
    if not (out / "log.csv").exists():
        PREPARE[dataset](raw, out)
    (out / "results").mkdir(exist_ok=True)
    commands = Commands(out)
    log = ["--data", "log.csv", *(["--column", "order=order"] if dataset in ORDERED else [])]
    sources = {**SOURCES, **({} if encoder is None else {"encoder": ["--encoder", os.path.abspath(encoder)]})}

    def compare(source: str, backbone: str, options: list[str]) -> None:
        result = f"results/{source}-{backbone}"
        words = ["compare", *log, "--store", source, *options, *TRAINING.get(dataset, []), "--seeds", SEEDS]
        commands.run(*words, "--out", result, skip=(out / result / "run.json").exists())

    for source, options in sources.items():
        words = ["--platform", "platform.yaml", *options, "--history", HISTORY, "--out", source]
        commands.run(
            "extract",
            *log,
            *words,
            skip=(out / "results" / f"{source}-shared_bottom" / "run.json").exists(),
        )
        compare(source, "shared_bottom", [] if source == "builtin" else FEW)
    for source in ("builtin", "encoder"):
        if source in sources:
            compare(source, "star", STAR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=PREPARE)
    parser.add_argument("raw", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", type=Path)
    given = parser.parse_args()
    run(given.dataset, given.raw, given.out, given.encoder)
