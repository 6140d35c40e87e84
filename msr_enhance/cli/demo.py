"""The `demo` command: the whole way on a generated world, told in order."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from msr_enhance.cli.compare import as_object, print_next, print_result, print_seeds
from msr_enhance.cli.output import emit, say, show
from msr_enhance.cli.read_log import tell
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.demo.world import CATEGORIES, PLATFORM, generate
from msr_enhance.errors import DataError, StoreError, not_one_of
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm import builtin
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.arms import BACKBONES
from msr_enhance.train.compare import compare
from msr_enhance.train.loop import Settings
from msr_enhance.train.metrics import auc
from msr_enhance.train.run import new_run

HISTORY = 8
NEW_TOKENS = 4
LEARNING_RATES = (3e-3, 1e-2)


def run(out: Path | None, *, seeds: int, backbone: str, as_json: bool) -> None:
    """Run every stage, say how long each took, tell what happened; keep a run folder with its store."""
    out = free_folder() if out is None else out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} is not an empty folder; write --out with a new one.")
    if backbone not in BACKBONES:
        raise DataError(not_one_of("backbone", backbone, BACKBONES, "Write --backbone star."))
    new_run(out)
    clock = Stages()
    world = generate()
    table = InteractionTable.from_arrays(world.columns)
    parts = split_table(table, kind="scenario", cutoff=world.cutoff)
    shape = f"{len(table):,} rows, {len(table.user_ids):,} users, {len(table.scenarios)} scenarios"
    say(f"world: {shape}, interests planted")
    tell(parts)
    oracle = auc(table.labels[parts.test], world.oracle[parts.test])
    clock.lap("world")
    if not as_json:
        show(
            f"1. The world: {shape} ({', '.join(table.scenarios)}). Each user was given a taste over "
            f"{len(CATEGORIES)} categories, which labels follow. Prompts may see the {len(parts.history):,} "
            f"early rows; models train on {len(parts.train):,} later ones, {len(parts.test):,} score them."
        )
    say(f"model: {builtin.NAME}, {builtin.DESCRIPTION}")
    llm = HuggingFaceLLM.load(builtin.NAME, max_new_tokens=NEW_TOKENS)
    extractor = KnowledgeExtractor(llm, platform=Platform.model_validate(PLATFORM), history=HISTORY)
    store = extractor.extract(table, out / "store", split=parts)
    clock.lap("extract")
    user = store.known("user")[0]
    if not as_json:
        _tell_of(store, user)
    settings = Settings(epochs=15)
    result = compare(
        table,
        store,
        backbone=backbone,
        seeds=seeds,
        learning_rates=LEARNING_RATES,
        settings=settings,
        split=parts,
        out=out,
    )
    clock.lap("compare")
    if as_json:
        emit(as_object(result, store.path, run=str(out.resolve()), oracle=oracle, stages=clock.seconds))
        return
    show("\n5. The comparison: the same backbone with this knowledge, without it, and with the controls.\n")
    print_result(result)
    show("\n6. Is it the knowledge? Against no knowledge, noise, and other users' vectors, seed by seed:")
    print_seeds(result)
    show(f"\nA perfect reader of the planted interests would reach {oracle:.4f} (all test rows).")
    show(f"stages: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in clock.seconds.items())}")
    show(f"store: {store.path.resolve()}   (msr-enhance show {store.path} --user {user})")
    print_next(out)


def _tell_of(store: KnowledgeStore, user: int | str) -> None:
    """One user's prompt, the model's answer, and the vector that is kept of it."""
    record = store.record("user", user)
    norm = float(np.linalg.norm(record.vector))
    first = ", ".join(f"{value:.3f}" for value in record.vector.reshape(-1)[:4])
    show(f"\n2. What the model read about user {user} ({record.prompt_tokens} tokens):\n{record.prompt}")
    show(f"\n3. What it answered ({record.answer_tokens} tokens; {builtin.DESCRIPTION}):\n{record.text}")
    show(f"\n4. What is kept of it: a vector {list(record.vector.shape)} of norm {norm:.3f} ({first}, ...)")


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
