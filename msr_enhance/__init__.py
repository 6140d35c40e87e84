"""Multi-scenario recommendation, enhanced with knowledge from a frozen language model.

    InteractionTable ──▶ split ──▶ ScenarioPrompt, UserPrompt ──▶ frozen LLM ──▶ KnowledgeStore
         (a log)        (cut-off)        (what may be seen)      (KnowledgeExtractor)      │
                                                                                           ▼
                     compare ◀── EnhancedModel ◀────────── enhance(your nn.Module, knowledge)

Names are imported when they are first used: `import msr_enhance` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msr_enhance.backbones.aitm import AITM
    from msr_enhance.backbones.mmoe import MMoE
    from msr_enhance.backbones.omoe import OMoE
    from msr_enhance.backbones.ple import PLE
    from msr_enhance.backbones.shared_bottom import SharedBottom
    from msr_enhance.backbones.star import STAR
    from msr_enhance.data.columns import Columns
    from msr_enhance.data.split import split_table
    from msr_enhance.data.table import InteractionTable
    from msr_enhance.errors import MsrEnhanceError
    from msr_enhance.extract.extractor import KnowledgeExtractor
    from msr_enhance.llm.huggingface import HuggingFaceLLM
    from msr_enhance.meta.config import MetaConfig
    from msr_enhance.prompts.platform import Platform
    from msr_enhance.prompts.scenario import ScenarioPrompt
    from msr_enhance.prompts.templates import Templates
    from msr_enhance.prompts.user import UserPrompt
    from msr_enhance.store.knowledge import KnowledgeStore
    from msr_enhance.train.blocks import UserBlocks
    from msr_enhance.train.compare import compare
    from msr_enhance.wrap.enhance import enhance
    from msr_enhance.wrap.explain import explain
    from msr_enhance.wrap.model import EnhancedModel

__all__ = [
    "AITM",
    "PLE",
    "STAR",
    "Columns",
    "EnhancedModel",
    "HuggingFaceLLM",
    "InteractionTable",
    "KnowledgeExtractor",
    "KnowledgeStore",
    "MMoE",
    "MetaConfig",
    "MsrEnhanceError",
    "OMoE",
    "Platform",
    "ScenarioPrompt",
    "SharedBottom",
    "Templates",
    "UserBlocks",
    "UserPrompt",
    "compare",
    "enhance",
    "explain",
    "split_table",
]

_HOMES = {
    "AITM": "backbones.aitm",
    "PLE": "backbones.ple",
    "STAR": "backbones.star",
    "Columns": "data.columns",
    "EnhancedModel": "wrap.model",
    "HuggingFaceLLM": "llm.huggingface",
    "InteractionTable": "data.table",
    "KnowledgeExtractor": "extract.extractor",
    "KnowledgeStore": "store.knowledge",
    "MMoE": "backbones.mmoe",
    "MetaConfig": "meta.config",
    "MsrEnhanceError": "errors",
    "OMoE": "backbones.omoe",
    "Platform": "prompts.platform",
    "ScenarioPrompt": "prompts.scenario",
    "SharedBottom": "backbones.shared_bottom",
    "Templates": "prompts.templates",
    "UserBlocks": "train.blocks",
    "UserPrompt": "prompts.user",
    "compare": "train.compare",
    "enhance": "wrap.enhance",
    "explain": "wrap.explain",
    "split_table": "data.split",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the file that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'msr_enhance' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"msr_enhance.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
