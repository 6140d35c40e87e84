"""ChatGLM2 and ChatGLM3 weights in the native GLM classes, renamed and split while they are loaded.

transformers could do this in `from_pretrained` through a conversion mapping, but that is one global table
per model type, and its split sizes would be those of the last checkpoint registered. Here the mapping is a
value of one call: nothing global changes, and two checkpoints can load at once.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GlmForCausalLM

from msr_enhance.errors import ModelError, not_one_of
from msr_enhance.llm.chatglm.config import DTYPES, ChatGLMConfig
from msr_enhance.llm.chatglm.tensors import stored_tensors

# Theirs -> ours. Where one stored tensor becomes several, they lie one after the other in dimension 0.
_OUTER = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_INNER = {
    "input_layernorm.weight": ("input_layernorm.weight",),
    "self_attention.query_key_value.weight": tuple(f"{part}.weight" for part in _QKV),
    "self_attention.query_key_value.bias": tuple(f"{part}.bias" for part in _QKV),
    "self_attention.dense.weight": ("self_attn.o_proj.weight",),
    "post_attention_layernorm.weight": ("post_attention_layernorm.weight",),
    "mlp.dense_h_to_4h.weight": ("mlp.gate_up_proj.weight",),  # gate first, as here
    "mlp.dense_4h_to_h.weight": ("mlp.down_proj.weight",),
}
_COMPUTED = "rotary_pos_emb.inv_freq"  # a buffer, which the native class computes


class ChatGLMForCausalLM(GlmForCausalLM):  # type: ignore[no-untyped-call, unused-ignore]
    """The native GLM causal model, under the configuration of a ChatGLM checkpoint."""

    config_class = ChatGLMConfig


def load_weights(
    folder: Path, config: ChatGLMConfig, dtype: str, *, device: str | torch.device = "cpu"
) -> ChatGLMForCausalLM:
    """Load a ChatGLM2 or ChatGLM3 checkpoint, `.bin` or safetensors, in one file or in shards.

    Tensor by tensor, each goes to its dtype and device, so a checkpoint that is bound for a GPU never
    stands in main memory as a whole. On the CPU, weights that keep their dtype stay mapped to their file:
    leave it in place while the model lives.

    Args:
        folder: Folder with the weight files.
        config: From `native_config`; it is not changed.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: Where the weights go.

    Returns:
        The model in eval mode.

    Raises:
        ModelError: If a file cannot be read, or the checkpoint lacks a weight, holds an unexpected one, or
            one of another shape: nothing is ever filled with random numbers.
    """
    if dtype not in DTYPES:
        raise ModelError(not_one_of("dtype", dtype, DTYPES, "Write --dtype float32."))
    config = copy.deepcopy(config)
    kind: torch.dtype = getattr(torch, dtype)
    config.dtype = kind
    with torch.device("meta"):
        model: Any = ChatGLMForCausalLM(config)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    names = {theirs: ours for theirs, ours in _names(config.num_hidden_layers).items() if ours[0] in shapes}
    stored = {name: one for name, one in stored_tensors(folder).items() if not name.endswith(_COMPUTED)}
    _check(folder, stored, names, shapes)
    _check_class(folder, model, names)
    weights: dict[str, Tensor] = {}
    for theirs in list(stored):
        parts = torch.split(stored.pop(theirs).detach(), [shapes[ours][0] for ours in names[theirs]])
        for ours, part in zip(names[theirs], parts, strict=True):
            weights[ours] = part.to(device=device, dtype=kind)
    model.load_state_dict(weights, strict=True, assign=True)
    # Its buffers are not stored: on the meta device they were never computed.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    loaded: ChatGLMForCausalLM = model.eval()
    return loaded


def _names(layers: int) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {theirs: (ours,) for theirs, ours in _OUTER.items()}
    for layer in range(layers):
        for theirs, ours in _INNER.items():
            names[f"transformer.encoder.layers.{layer}.{theirs}"] = tuple(
                f"model.layers.{layer}.{one}" for one in ours
            )
    return names


def _check(
    folder: Path,
    stored: dict[str, Tensor],
    names: dict[str, tuple[str, ...]],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    missing = [name for name in names if name not in stored]
    unexpected = [name for name in stored if name not in names]
    wrong = []
    for name in names.keys() & stored.keys():
        rest = shapes[names[name][0]][1:]
        wanted = (sum(shapes[ours][0] for ours in names[name]), *rest)
        if tuple(stored[name].shape) != wanted:
            wrong.append(f"{name} is {tuple(stored[name].shape)} where config.json says {wanted}")
    faults = [
        f"{len(found)} {kind}: {', '.join(sorted(found)[:4])}{', ...' if len(found) > 4 else ''}"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if found
    ]
    if faults:
        raise ModelError(
            f"{folder}: the weights do not fit config.json: {'; '.join(faults)}. Random weights would be no "
            "knowledge; fetch the model again, or name a full ChatGLM2 or ChatGLM3 checkpoint."
        )


def _check_class(folder: Path, model: Any, names: dict[str, tuple[str, ...]]) -> None:
    """Refuse a future GLM class with weights or buffers that nothing here would fill."""
    filled = {ours for parts in names.values() for ours in parts}
    inside = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    left = [name for name in inside if name not in filled and not name.startswith("model.rotary_emb.")]
    if left:
        raise ModelError(
            f"{folder}: this transformers' GLM class has {', '.join(left[:5])}, which no ChatGLM checkpoint "
            "fills. Write pip install transformers==5.23.0, the version this was tested with."
        )
