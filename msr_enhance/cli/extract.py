"""The `extract` command."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msr_enhance.cli.output import emit, say, show
from msr_enhance.cli.read_log import divide, read_log
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import ModelError, PromptError, not_one_of
from msr_enhance.extract import KnowledgeExtractor, Templates
from msr_enhance.llm import builtin, category_frequency
from msr_enhance.llm.huggingface import STATES, HuggingFaceLLM
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt
from msr_enhance.store.knowledge import KnowledgeStore


def run(
    data: Path,
    out: Path,
    *,
    model: str,
    encoder: Path | None,
    items: Path | None,
    column: Sequence[str],
    platform: Path | None,
    template: str,
    history: int,
    split: str | None,
    protocol: str,
    cutoff: str | None,
    limit: int | None,
    reader: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Extract a store and say what it holds."""
    started = time.perf_counter()
    table = read_log(data, column, items)
    parts = divide(table, split, protocol, cutoff)
    if parts.protocol == "paper":
        say("warning: protocol=paper writes prompts from the training rows, whose labels they then show")
    templates = read_templates(template)
    notes = None if platform is None else Platform.from_yaml(platform)
    llm = read_model(table, model, encoder, reader)
    extractor = KnowledgeExtractor(llm, templates, platform=notes, history=history)
    store = extractor.extract(table, out, split=parts, limit=limit)
    report(store, time.perf_counter() - started, as_json)


def read_model(
    table: InteractionTable, model: str, encoder: Path | None, reader: Mapping[str, Any]
) -> FrozenLLM:
    """The source of vectors that the options ask for."""
    if reader["state"] not in STATES:
        raise ModelError(not_one_of("state", reader["state"], STATES, "Write --state last."))
    if encoder is not None:
        from msr_enhance.llm.sentence_encoder import SentenceEncoder

        return SentenceEncoder(encoder, device=reader["device"])
    if model == category_frequency.NAME:
        return category_frequency.CategoryFrequency(table.categories, table.scenarios)
    if model == builtin.NAME:
        say(f"model: {builtin.NAME}, {builtin.DESCRIPTION}")
    return HuggingFaceLLM.load(model, **reader)


def read_templates(template: str) -> Templates:
    """Templates by name, or from a folder with scenario.yaml and user.yaml (either may be missing)."""
    folder = Path(template)
    if not folder.is_dir():
        if template not in UserPrompt.texts:
            raise PromptError(
                not_one_of(
                    "template", template, UserPrompt.texts, "Or a folder with user.yaml and scenario.yaml."
                )
            )
        return Templates.named(template)
    files = {name: folder / f"{name}.yaml" for name in ("scenario", "user")}
    if not any(file.is_file() for file in files.values()):
        raise PromptError(f"{folder} holds neither scenario.yaml nor user.yaml; write at least one of them.")
    base = Templates()
    return Templates(
        ScenarioPrompt.from_yaml(files["scenario"]) if files["scenario"].is_file() else base.scenario,
        UserPrompt.from_yaml(files["user"]) if files["user"].is_file() else base.user,
    )


def report(store: KnowledgeStore, seconds: float, as_json: bool) -> None:
    """What the store holds, as a sentence or as JSON."""
    counts = {level: dict(Counter(store.statuses(level))) for level in store.levels}
    failed = sum(by_status.get("failed", 0) for by_status in counts.values())
    if failed:
        say(f"warning: {failed:,} prompts failed and count as zero knowledge; `show --user` says why")
    data = {
        "store": str(store.path.resolve()),
        "rows": counts,
        "dim": {level: store.dim(level) for level in store.levels},
        "fingerprint": store.fingerprint,
        "seconds": round(seconds, 2),
    }
    if as_json:
        emit(data)
        return
    for level, by_status in counts.items():
        said = ", ".join(f"{count:,} {status}" for status, count in by_status.items())
        show(f"{level}: {said}; vectors of {store.dim(level)} numbers")
    show(f"store: {data['store']} ({seconds:.1f} s)")
