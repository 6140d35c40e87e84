"""The `demo` command: the whole way on a generated world."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from msr_enhance.cli.compare import as_object, print_result
from msr_enhance.cli.output import emit, say, show
from msr_enhance.cli.read_log import tell
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.demo.world import PLATFORM, generate
from msr_enhance.errors import DataError, StoreError, not_one_of
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm import builtin
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.train.arms import BACKBONES
from msr_enhance.train.compare import compare
from msr_enhance.train.loop import Settings
from msr_enhance.train.metrics import auc

HISTORY = 8
NEW_TOKENS = 4
LEARNING_RATES = (3e-3, 1e-2)


def run(out: Path | None, *, seeds: int, backbone: str, as_json: bool) -> None:
    """Run every stage, say how long each took, print the comparison."""
    out = free_folder() if out is None else out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is not an empty folder; write --out with a new one.")
    if backbone not in BACKBONES:
        raise DataError(not_one_of("backbone", backbone, BACKBONES, "Write --backbone star."))
    clock = Stages()
    world = generate()
    table = InteractionTable.from_arrays(world.columns)
    parts = split_table(table, kind="scenario", cutoff=world.cutoff)
    say(f"world: {len(table):,} rows, {len(table.user_ids):,} users, 3 scenarios, interests planted")
    tell(parts)
    oracle = auc(table.labels[parts.test], world.oracle[parts.test])
    clock.lap("world")
    say(f"model: {builtin.NAME}, {builtin.DESCRIPTION}")
    llm = HuggingFaceLLM.load(builtin.NAME, max_new_tokens=NEW_TOKENS)
    extractor = KnowledgeExtractor(llm, platform=Platform.model_validate(PLATFORM), history=HISTORY)
    store = extractor.extract(table, out, split=parts)
    clock.lap("extract")
    settings = Settings(epochs=15)
    result = compare(
        table,
        store,
        backbone=backbone,
        seeds=seeds,
        learning_rates=LEARNING_RATES,
        settings=settings,
        split=parts,
    )
    clock.lap("compare")
    if as_json:
        emit(as_object(result, store.path, oracle=oracle, stages=clock.seconds))
        return
    user = store.known("user")[0]
    show(f"What the model read about user {user}:\n{store.record('user', user).prompt}\n")
    print_result(result)
    show(f"\nA perfect reader of the planted interests would reach {oracle:.4f} (all test rows).")
    show(f"stages: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in clock.seconds.items())}")
    show(f"store: {store.path.resolve()}   (msr-enhance show {store.path} --user {user})")


def free_folder() -> Path:
    """The first free ./runs/demo-N."""
    taken = {path.name for path in Path("runs").glob("demo-*")}
    number = next(number for number in range(1, len(taken) + 2) if f"demo-{number}" not in taken)
    return Path("runs") / f"demo-{number}"


class Stages:
    """Wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.seconds[name] = float(np.round(now - self._last, 2))
        self._last = now
        say(f"{name}: {self.seconds[name]:.1f} s")
