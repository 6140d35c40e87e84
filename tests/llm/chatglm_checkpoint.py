"""Tiny random checkpoints in ChatGLM's own layout, and the same weights put into GLM by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sentencepiece_file import entries, model_bytes
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM

CODE = {
    "AutoConfig": "configuration_chatglm.ChatGLMConfig",
    "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
}
# What the repository of ChatGLM2-6B says, at a tiny size.
CURRENT: dict[str, Any] = {
    "_name_or_path": "THUDM/chatglm2-6b",
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "auto_map": CODE,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "ffn_hidden_size": 40,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "hidden_size": 32,
    "kv_channels": 8,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 3,
    "original_rope": True,
    "padded_vocab_size": 512,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 256,
    "use_cache": True,
    "torch_dtype": "float16",
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FIRST = {key: value for key, value in CURRENT.items() if key not in {"model_type", "pad_token_id"}}
LAYER = "transformer.encoder.layers"


def stored(raw: Mapping[str, Any] = CURRENT, seed: int = 0) -> dict[str, Tensor]:
    """Random float16 tensors under ChatGLM's names; scales at which every part matters."""
    draw = torch.Generator().manual_seed(seed)
    wide, inner, head = raw["hidden_size"], raw["ffn_hidden_size"], raw["kv_channels"]
    heads, groups = raw["num_attention_heads"] * head, raw["multi_query_group_num"] * head

    def normal(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=draw) * (1.5 / shape[-1] ** 0.5)).half()

    def near_one() -> Tensor:
        return (1 + 0.3 * torch.randn(wide, generator=draw)).half()

    tensors = {
        "transformer.embedding.word_embeddings.weight": normal(raw["padded_vocab_size"], wide) * 4,
        "transformer.rotary_pos_emb.inv_freq": torch.rand(head // 4, generator=draw).half(),
    }
    for layer in range(raw["num_layers"]):
        at = f"{LAYER}.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": near_one(),
            f"{at}.self_attention.query_key_value.weight": normal(heads + 2 * groups, wide),
            f"{at}.self_attention.query_key_value.bias": normal(heads + 2 * groups),
            f"{at}.self_attention.dense.weight": normal(wide, heads),
            f"{at}.post_attention_layernorm.weight": near_one(),
            f"{at}.mlp.dense_h_to_4h.weight": normal(2 * inner, wide),
            f"{at}.mlp.dense_4h_to_h.weight": normal(wide, inner),
        }
    tensors["transformer.encoder.final_layernorm.weight"] = near_one()
    tensors["transformer.output_layer.weight"] = normal(raw["padded_vocab_size"], wide) * 3
    if not raw["add_qkv_bias"]:
        tensors = {name: one for name, one in tensors.items() if not name.endswith("query_key_value.bias")}
    return tensors


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], kind: str = "bin", shards: int = 3
) -> list[Path]:
    """Weight files as the Hub has them; layers straddle the borders of the shards."""
    stem, end = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
    names = list(tensors)
    files, places = [], {}
    for shard in range(shards):
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        file = folder / (f"{stem}-{shard + 1:05d}-of-{shards:05d}.{end}" if shards > 1 else f"{stem}.{end}")
        content = {name: tensors[name] for name in part}
        torch.save(content, file) if kind == "bin" else save_file(content, file)
        files.append(file)
        places |= dict.fromkeys(part, file.name)
    if shards > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": places}
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))
    return files


def write_checkpoint(
    folder: Path, raw: Mapping[str, Any] = CURRENT, *, seed: int = 0, kind: str = "bin", shards: int = 3
) -> dict[str, Tensor]:
    """A whole checkpoint with its tokenizer; gives back its tensors."""
    tensors = stored(raw, seed)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(raw)))
    (folder / "tokenizer.model").write_bytes(model_bytes(entries()))
    write_weights(folder, tensors, kind, shards)
    return tensors


@torch.no_grad()
def by_hand(
    tensors: Mapping[str, Tensor],
    raw: Mapping[str, Any] = CURRENT,
    rope: Mapping[str, Any] | None = None,
    order: str = "qkv",
    swapped: bool = False,
    **changes: Any,
) -> Any:
    """A plain GLM with these weights, each put in its place by a line of its own.

    The last four arguments make wrong ones, to see that a comparison can fail.
    """
    head = raw["kv_channels"]
    options: dict[str, Any] = {
        "vocab_size": raw["padded_vocab_size"],
        "hidden_size": raw["hidden_size"],
        "intermediate_size": raw["ffn_hidden_size"],
        "num_hidden_layers": raw["num_layers"],
        "num_attention_heads": raw["num_attention_heads"],
        "num_key_value_heads": raw["multi_query_group_num"],
        "head_dim": head,
        "rms_norm_eps": 1e-5,
        "attention_bias": raw["add_qkv_bias"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            **(rope or {}),
        },
        "pad_token_id": 0,
        "eos_token_id": 2,
    }
    model: Any = GlmForCausalLM(GlmConfig(**options | changes))
    queries, keys = raw["num_attention_heads"] * head, raw["multi_query_group_num"] * head
    cut = {"q": slice(0, queries), "k": slice(queries, queries + keys), "v": slice(queries + keys, None)}
    model.model.embed_tokens.weight.copy_(tensors["transformer.embedding.word_embeddings.weight"])
    model.model.norm.weight.copy_(tensors["transformer.encoder.final_layernorm.weight"])
    model.lm_head.weight.copy_(tensors["transformer.output_layer.weight"])
    for number, layer in enumerate(model.model.layers):
        at, attention = f"{LAYER}.{number}", layer.self_attn
        layer.input_layernorm.weight.copy_(tensors[f"{at}.input_layernorm.weight"])
        layer.post_attention_layernorm.weight.copy_(tensors[f"{at}.post_attention_layernorm.weight"])
        for part in ("weight", "bias") if raw["add_qkv_bias"] else ("weight",):
            fused = tensors[f"{at}.self_attention.query_key_value.{part}"]
            getattr(attention.q_proj, part).copy_(fused[cut[order[0]]])
            getattr(attention.k_proj, part).copy_(fused[cut[order[1]]])
            getattr(attention.v_proj, part).copy_(fused[cut[order[2]]])
        attention.o_proj.weight.copy_(tensors[f"{at}.self_attention.dense.weight"])
        gate_up = tensors[f"{at}.mlp.dense_h_to_4h.weight"]
        layer.mlp.gate_up_proj.weight.copy_(gate_up.roll(raw["ffn_hidden_size"], 0) if swapped else gate_up)
        layer.mlp.down_proj.weight.copy_(tensors[f"{at}.mlp.dense_4h_to_h.weight"])
    return model.eval()


@torch.inference_mode()
def states(model: Any, ids: Tensor, **options: Any) -> list[Tensor]:
    """Hidden states of every layer, and the logits."""
    out = model(ids, output_hidden_states=True, **options)
    return [*out.hidden_states, out.logits]
