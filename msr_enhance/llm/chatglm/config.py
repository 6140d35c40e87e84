"""A ChatGLM2 or ChatGLM3 `config.json` as the configuration of the native GLM classes.

Both are the GLM architecture under other names. What that architecture cannot say is refused by name;
what is passed over (dropout, `apply_query_key_layer_scaling`, `attention_softmax_in_fp32`, `use_cache`)
changes no answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import GlmConfig

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm import family

is_chatglm = family.is_chatglm

ROPE_BASE = 10_000.0
DTYPES = ("float32", "bfloat16", "float16")
# Size: (ours, theirs, the largest that is believed).
_SIZES = {
    "vocab_size": ("padded_vocab_size", 1 << 22),
    "hidden_size": ("hidden_size", 1 << 20),
    "intermediate_size": ("ffn_hidden_size", 1 << 22),
    "num_hidden_layers": ("num_layers", 1 << 10),
    "num_attention_heads": ("num_attention_heads", 1 << 14),
    "num_key_value_heads": ("multi_query_group_num", 1 << 14),
    "head_dim": ("kv_channels", 1 << 14),
    "max_position_embeddings": ("seq_length", 1 << 30),
}
# Flag: (what the published code takes when it is not written, what GLM can represent, what else it would be).
_FLAGS = {
    "multi_query_attention": (False, True, "keys and values for every head, in another layout"),
    "rmsnorm": (True, True, "LayerNorm in place of RMSNorm"),
    "post_layer_norm": (True, True, "no norm after the last layer"),
    "add_bias_linear": (False, False, "biases in every linear layer"),
    "apply_residual_connection_post_layernorm": (False, False, "residuals taken after the norm"),
    "fp32_residual_connection": (False, False, "residuals in float32"),
    "original_rope": (True, True, "another rotary embedding, which the published code lacks too"),
}


class ChatGLMConfig(GlmConfig):  # type: ignore[no-untyped-call, unused-ignore]
    """Configuration of a native GLM model whose weights come from a ChatGLM checkpoint."""

    model_type = "chatglm"


def native_config(raw: Mapping[str, Any], name: str) -> ChatGLMConfig:
    """Translate a raw `config.json`.

    Args:
        raw: Its content; current and first revisions.
        name: Name of the model or path of its folder. It tells ChatGLM2 from ChatGLM3 where that matters
            (`rope_ratio`).

    Returns:
        The configuration. `dtype` is the checkpoint's own.

    Raises:
        ModelError: If the checkpoint is another model, or says something that GLM cannot represent.
    """
    family.refuse_others(raw, name)
    for flag, (default, allowed, meaning) in _FLAGS.items():
        seen = raw.get(flag, default)
        if seen is not allowed:
            raise ModelError(
                f"{name}: {flag} is {seen!r:.60}{'' if flag in raw else ' by default'} in config.json "
                f"({meaning}); only {allowed} can be read. "
                "Name a checkpoint of ChatGLM2-6B's or ChatGLM3-6B's architecture."
            )
    sizes: dict[str, Any] = {ours: _size(raw, theirs, most, name) for ours, (theirs, most) in _SIZES.items()}
    heads, groups, width = sizes["num_attention_heads"], sizes["num_key_value_heads"], sizes["head_dim"]
    if heads % groups or width % 4:
        raise ModelError(
            f"{name}: config.json has {heads} heads in {groups} groups of width {width}; the groups must "
            "divide the heads, and the width must be a multiple of 4. Fetch the model again."
        )
    bias = raw.get("add_qkv_bias", False)
    if not isinstance(bias, bool):
        raise ModelError(f"{name}: add_qkv_bias is {bias!r:.60} in config.json; allowed: true, false.")
    return ChatGLMConfig(
        **sizes,
        rms_norm_eps=_number(raw, "layernorm_epsilon", name),
        attention_bias=bias,
        hidden_act="silu",
        rope_parameters=_rope(raw, name),
        tie_word_embeddings=False,  # the published code never ties, whatever its config says
        pad_token_id=_token(raw, "pad_token_id", 0, sizes["vocab_size"], name),
        eos_token_id=_token(raw, "eos_token_id", 2, sizes["vocab_size"], name),
        bos_token_id=None,
        dtype=_dtype(raw, name),
    )


def _rope(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Rotary embedding. `rope_ratio` stretches positions in ChatGLM2 and raises the base in ChatGLM3."""
    ratio = _number(raw, "rope_ratio", name) if raw.get("rope_ratio") is not None else 1.0
    plain = {"rope_type": "default", "rope_theta": ROPE_BASE, "partial_rotary_factor": 0.5}
    if ratio == 1.0:
        return plain
    match family.generation(raw, name):
        case 2:
            return {**plain, "rope_type": "linear", "factor": ratio}
        case 3:
            return {**plain, "rope_theta": ROPE_BASE * ratio}
    raise ModelError(
        f"{name}: rope_ratio is {ratio:g}, which means stretched positions in ChatGLM2 and a larger rotary "
        "base in ChatGLM3, and neither the name nor _name_or_path says which it is. Name the folder, for "
        "example, chatglm2-6b-32k or chatglm3-6b-32k."
    )


def _size(raw: Mapping[str, Any], key: str, most: int, name: str) -> int:
    seen = raw.get(key)
    if isinstance(seen, bool) or not isinstance(seen, int) or not 1 <= seen <= most:
        raise ModelError(
            f"{name}: {key} is {seen!r:.60} in config.json; allowed: a whole number from 1 to {most}. "
            "Fetch the model again, or name a checkpoint of ChatGLM2 or ChatGLM3."
        )
    return seen


def _number(raw: Mapping[str, Any], key: str, name: str) -> float:
    seen = raw.get(key)
    if isinstance(seen, bool) or not isinstance(seen, int | float) or not 0 < seen < math.inf:
        raise ModelError(f"{name}: {key} is {seen!r:.60} in config.json; allowed: a number above 0.")
    return float(seen)


def _token(raw: Mapping[str, Any], key: str, default: int, vocabulary: int, name: str) -> int:
    seen = default if raw.get(key) is None else raw[key]
    if isinstance(seen, bool) or not isinstance(seen, int) or not 0 <= seen < vocabulary:
        raise ModelError(
            f"{name}: {key} is {seen!r:.60} in config.json; allowed: one id below {vocabulary}. "
            f"The published configurations say {default}."
        )
    return seen


def _dtype(raw: Mapping[str, Any], name: str) -> str:
    """Dtype of the stored weights; the published code reads an unnamed one as float32."""
    seen = str(raw.get("torch_dtype") or raw.get("dtype") or "float32").removeprefix("torch.")
    if seen not in DTYPES:
        raise ModelError(f"{name}: torch_dtype is {seen!r:.60} in config.json; allowed: {', '.join(DTYPES)}.")
    return seen
