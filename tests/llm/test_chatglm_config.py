"""A ChatGLM `config.json` becomes GLM's, and everything that GLM cannot say is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chatglm_checkpoint import CODE, CURRENT, FIRST

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm.config import is_chatglm, native_config
from msr_enhance.llm.chatglm.family import generation, is_base

SIX_B = {
    **CURRENT,
    "ffn_hidden_size": 13696,
    "hidden_size": 4096,
    "kv_channels": 128,
    "num_attention_heads": 32,
    "num_layers": 28,
    "padded_vocab_size": 65024,
    "seq_length": 32768,
}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in CURRENT.items() if key not in keys}


def test_the_published_configuration_becomes_glms() -> None:
    config = native_config(SIX_B, "THUDM/chatglm2-6b")
    assert config.model_type == "chatglm"
    expected = {
        "vocab_size": 65024,
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "num_hidden_layers": 28,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "attention_bias": True,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "bos_token_id": None,
        "dtype": torch.float16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    }
    assert {key: getattr(config, key) for key in expected} == expected


def test_the_first_revision_gives_the_same_configuration() -> None:
    current = native_config(CURRENT, "THUDM/chatglm2-6b").to_dict()
    assert native_config(FIRST, "THUDM/chatglm2-6b").to_dict() == current
    # No part of ours may lean on values that v4 left out of the file.
    short = without("use_cache", "rmsnorm", "post_layer_norm", "eos_token_id", "original_rope", "auto_map")
    assert native_config(short, "THUDM/chatglm2-6b").to_dict() == current


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (CURRENT, True),
        (FIRST, True),
        ({"auto_map": CODE}, True),
        ({"padded_vocab_size": 1, "kv_channels": 1, "multi_query_group_num": 1}, True),
        ({"model_type": "chatglm", "position_encoding_2d": True}, True),  # so that it is refused by name
        ({"model_type": "glm", "auto_map": CODE}, False),
        ({"model_type": "llama"}, False),
        ({"auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"}}, False),
        ({"auto_map": ["configuration_chatglm"], "kv_channels": 1}, False),
        ({}, False),
    ],
)
def test_a_chatglm_is_known_by_its_type_its_code_or_its_sizes(raw: dict[str, Any], expected: bool) -> None:
    assert is_chatglm(raw) is expected


REFUSED = [
    ({"position_encoding_2d": True}, r"first-generation ChatGLM-6B.*chatglm2-6b"),
    ({"inner_hidden_size": 16384}, r"first-generation"),
    ({"padded_vocab_size": 151552}, r"GLM-4 that needs its repository's own code.*-hf"),
    ({"vision_config": {"hidden_size": 8}}, r"reads images"),
    ({"quantization_bit": 4}, r"quantization_bit 4; an int4 or int8 repository.*--dtype bfloat16"),
    ({"quantization_bit": 8}, r"quantization_bit 8"),
    ({"quantization_config": {"bits": 4}}, r"a quantization_config"),
    ({"pre_seq_len": 128}, r"p-tuned \(pre_seq_len 128\).*tuned from"),
    ({"multi_query_attention": False}, r"multi_query_attention is False .*only True"),
    ({"rmsnorm": False}, r"rmsnorm is False"),
    ({"post_layer_norm": False}, r"post_layer_norm is False"),
    ({"add_bias_linear": True}, r"add_bias_linear is True .*only False"),
    ({"apply_residual_connection_post_layernorm": True}, r"apply_residual_connection_post_layernorm is True"),
    ({"fp32_residual_connection": True}, r"fp32_residual_connection is True"),
    ({"original_rope": False}, r"original_rope is False"),
    ({"rmsnorm": "yes"}, r"rmsnorm is 'yes'"),
    ({"add_qkv_bias": 1}, r"add_qkv_bias is 1 .*true, false"),
    ({"num_layers": None}, r"num_layers is None .*whole number from 1"),
    ({"num_layers": 10**9}, r"num_layers is 1000000000"),
    ({"hidden_size": 32.0}, r"hidden_size is 32.0"),
    ({"seq_length": True}, r"seq_length is True"),
    ({"multi_query_group_num": 3}, r"4 heads in 3 groups"),
    ({"kv_channels": 6}, r"width 6"),
    ({"layernorm_epsilon": 0}, r"layernorm_epsilon is 0"),
    ({"layernorm_epsilon": float("nan")}, r"layernorm_epsilon is nan"),
    ({"rope_ratio": "50"}, r"rope_ratio is '50'"),
    ({"eos_token_id": 512}, r"eos_token_id is 512 .*below 512"),
    ({"pad_token_id": [0]}, r"pad_token_id is \[0\]"),
    ({"torch_dtype": "int8"}, r"torch_dtype is 'int8'.*float32, bfloat16, float16"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_represented_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s)mine/chatglm2.*{message}"):
        native_config({**CURRENT, **change}, "mine/chatglm2")


def test_null_and_zero_in_the_flags_of_others_are_no_reason_to_refuse() -> None:
    raw = {
        **CURRENT,
        "pre_seq_len": None,
        "quantization_bit": 0,
        "prefix_projection": False,
        "rope_ratio": None,
    }
    assert native_config(raw, "chatglm2").to_dict() == native_config(CURRENT, "chatglm2").to_dict()


def test_a_missing_layout_flag_means_what_the_published_code_takes() -> None:
    with pytest.raises(ModelError, match="multi_query_attention is False by default"):
        native_config(without("multi_query_attention"), "chatglm2")
    assert native_config(without("add_qkv_bias"), "chatglm2").attention_bias is False
    assert native_config(without("torch_dtype"), "chatglm2").dtype == torch.float32


def test_rope_ratio_stretches_positions_in_chatglm2_and_raises_the_base_in_chatglm3() -> None:
    raw = {**without("_name_or_path"), "rope_ratio": 50}
    two = native_config(raw, "THUDM/chatglm2-6b-32k").rope_parameters
    assert two == {
        "rope_type": "linear",
        "factor": 50.0,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
    }
    three = native_config(raw, "THUDM/chatglm3-6b-32k").rope_parameters
    assert three == {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5}
    with pytest.raises(ModelError, match=r"rope_ratio is 50.*neither.*Name the folder"):
        native_config(raw, "/data/mine")
    assert native_config({**raw, "rope_ratio": 1}, "/data/mine").rope_parameters["rope_type"] == "default"


@pytest.mark.parametrize(
    ("name", "kept", "expected", "base"),
    [
        ("THUDM/chatglm2-6b", None, 2, False),
        ("THUDM/ChatGLM3-6B-128k", None, 3, False),
        ("THUDM/chatglm3-6b-base", None, 3, True),
        ("/cache/models--THUDM--chatglm3-6b-base/snapshots/0123abcd", None, 3, True),
        ("/models/chatglm2/chatglm3-6b/", None, 3, False),
        ("/models/chatglm3/from-chatglm2-to-chatglm3", None, 3, False),
        ("/models/mine", "THUDM/chatglm3-6b-base", 3, True),
        ("/models/mine", "THUDM/chatglm2-6b", 2, False),
        ("/models/chatglm2-mine", "THUDM/chatglm3-6b-base", 2, False),
        ("/models/mine-base/", "THUDM/chatglm3-6b", 3, True),
        ("/models/mine", None, None, False),
        ("/models/mine", 7, None, False),
    ],
)
def test_the_name_tells_the_generation(name: str, kept: Any, expected: int | None, base: bool) -> None:
    raw = {"_name_or_path": kept}
    assert generation(raw, name) == expected
    assert is_base(raw, name) is base
