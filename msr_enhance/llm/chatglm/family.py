"""Which member of the ChatGLM family a checkpoint is, read from its `config.json` and its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from msr_enhance.errors import ModelError

_OLDEST_KEYS = ("position_encoding_2d", "inner_hidden_size")
_SHAPE_KEYS = ("padded_vocab_size", "kv_channels", "multi_query_group_num")
_VISION_KEYS = ("vision_config", "image_size", "boi_token_id", "eoi_token_id")
_GLM4_VOCABULARY = 151552
_PUBLISHED = "THUDM/chatglm2-6b or THUDM/chatglm3-6b"


def is_chatglm(raw: Mapping[str, Any]) -> bool:
    """Whether a raw `config.json` is one of the ChatGLM family, supported or not.

    The first revisions of ChatGLM2 name no `model_type`; their `auto_map` or their sizes tell.
    """
    kind = raw.get("model_type")
    if kind:
        return bool(kind == "chatglm")
    code = raw.get("auto_map")
    named = isinstance(code, Mapping) and "configuration_chatglm" in str(code.get("AutoConfig"))
    return named or all(key in raw for key in _SHAPE_KEYS)


def generation(raw: Mapping[str, Any], name: str) -> Literal[2, 3] | None:
    """ChatGLM2 or ChatGLM3, which share configuration, keys and tokenizer; None where nothing tells.

    The name is asked first, its last part before its folders, then the name that the configuration keeps
    (`_name_or_path`).
    """
    word = speaking_part(raw, name)
    if word is None:
        return None
    return 2 if "chatglm2" in word else 3


def is_base(raw: Mapping[str, Any], name: str) -> bool:
    """Whether the checkpoint is a base model (``...-base``), which has no chat format."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
    return last.endswith("-base") or (speaking_part(raw, name) or "").endswith("-base")


def speaking_part(raw: Mapping[str, Any], name: str) -> str | None:
    """The part of a name that says ChatGLM2 or ChatGLM3, in lower case."""
    for source in (name, str(raw.get("_name_or_path") or "")):
        for part in reversed(re.split(r"[/\\]", source.lower())):
            if ("chatglm2" in part) != ("chatglm3" in part):
                return part
    return None


def refuse_others(raw: Mapping[str, Any], name: str) -> None:
    """Refuse the relatives that are other models, each by name.

    Raises:
        ModelError: For first-generation ChatGLM, GLM-4 with its own code, vision models, quantised and
            p-tuned checkpoints; says what to write instead.
    """
    if any(key in raw for key in _OLDEST_KEYS):
        raise ModelError(
            f"{name} is a first-generation ChatGLM-6B, another architecture than its successors. "
            f"Write --model {_PUBLISHED}."
        )
    if any(raw.get(key) for key in _VISION_KEYS):
        raise ModelError(
            f"{name} is a GLM that reads images; only text models can be read. Write --model {_PUBLISHED}."
        )
    if raw.get("padded_vocab_size") == _GLM4_VOCABULARY:
        raise ModelError(
            f"{name} is a GLM-4 that needs its repository's own code. The same weights run without it: "
            "write the repository whose name ends in -hf, for example --model THUDM/glm-4-9b-chat-hf."
        )
    bits, packed = raw.get("quantization_bit"), raw.get("quantization_config")
    if bits or packed:
        seen = f"quantization_bit {_short(bits)}" if bits else "a quantization_config"
        raise ModelError(
            f"{name} has packed weights ({seen}; an int4 or int8 repository), which cannot be read. Write "
            f"the full model, {_PUBLISHED}, and --dtype bfloat16 where memory is short."
        )
    if raw.get("pre_seq_len"):
        raise ModelError(
            f"{name} is p-tuned (pre_seq_len {_short(raw['pre_seq_len'])}): its prefix stands before every "
            "layer's keys and values and cannot be read. Write the model it was tuned from, "
            f"{_PUBLISHED}, or a checkpoint whose weights were tuned in full or merged."
        )


def _short(value: object) -> str:
    return f"{value!r:.60}"
