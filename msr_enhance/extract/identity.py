"""What the rows of an extraction are made of: what a store compares before it is continued."""

from __future__ import annotations

import importlib.metadata
import platform as machine

from msr_enhance.data.digest import rows_digest
from msr_enhance.data.split import Split
from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.budget import token_limit
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.templates import Templates
from msr_enhance.store.manifest import Provenance


def provenance_of(
    llm: FrozenLLM,
    templates: Templates,
    platform: Platform,
    history: int,
    table: InteractionTable,
    split: Split,
) -> Provenance:
    """Identity, window and facts of an extraction; see `KnowledgeExtractor` for the arguments."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy")}
    limit = token_limit(llm)  # part of every long prompt; most readers name it themselves
    prompt_limit = {} if limit is None or "prompt_limit" in llm.identity else {"prompt_limit": limit}
    return Provenance(
        identity={
            "llm": dict(llm.identity),
            "templates": {
                "scenario": templates.scenario.fingerprint(),
                "user": templates.user.fingerprint(),
            },
            "platform": platform.model_dump(mode="json"),
            "history": history,
            **prompt_limit,
            "scenarios": list(table.scenarios),
            "seen_rows": split.window.digest,
            "seen_texts": rows_digest(table, split.seen, texts=True),
        },
        window=split.window.model_dump(mode="json"),
        facts={
            "template_names": [templates.scenario.name, templates.user.name],
            "split": split.reason,
            "log": table.fingerprint(),
            "versions": {"python": machine.python_version(), **versions},
        },
    )
