"""Causal models of many types, made on the spot, and a slow loop that answers by the definition."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from msr_enhance.llm.chatglm.config import ChatGLMConfig
from msr_enhance.llm.chatglm.weights import ChatGLMForCausalLM

WORDS = 200
# Untied: with tied embeddings a random model says its last word for ever.
_SIZE = {"pad_token_id": None, "eos_token_id": None, "bos_token_id": None, "tie_word_embeddings": False}
_WIDE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_GROUPED = {**_WIDE, "num_key_value_heads": 2}
_OWN_NAMES = {"n_embd": 32, "n_layer": 3, "n_head": 4}
_WINDOW = {"sliding_window": 7, "max_position_embeddings": 128}

# Name: (name of its configuration, options). Up to a "-", the name is the type of the model.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _GROUPED),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 8}),
    "mistral": ("MistralConfig", {**_GROUPED, "sliding_window": None}),
    "mistral-window": ("MistralConfig", {**_GROUPED, **_WINDOW}),
    "gemma": ("GemmaConfig", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**_GROUPED, **_WINDOW, "head_dim": 8}),
    "gemma3_text": ("Gemma3TextConfig", {**_GROUPED, **_WINDOW, "head_dim": 8}),
    "phi": ("PhiConfig", _WIDE),
    "phi3": ("Phi3Config", _WIDE),
    "gpt2": ("GPT2Config", _OWN_NAMES),
    "gpt_neox": ("GPTNeoXConfig", _WIDE),
    "opt": ("OPTConfig", {**_WIDE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt-narrow": ("OPTConfig", {**_WIDE, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "glm": ("GlmConfig", {**_GROUPED, "head_dim": 8}),
    "glm4": ("Glm4Config", {**_GROUPED, "head_dim": 8}),
    "chatglm": ("ChatGLMConfig", {**_GROUPED, "head_dim": 8, "attention_bias": True}),
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 3, "n_heads": 4, "expansion_ratio": 2}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            **{"hidden_size": 32, "intermediate_size": 48, "num_layers": 3, "num_heads": 4, "window_size": 7},
            "attention_types": [[["global", "local", "global"], 1]],
        },
    ),
    "cohere": ("CohereConfig", _GROUPED),
    "falcon": ("FalconConfig", {**_WIDE, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon-one": ("FalconConfig", {**_WIDE, "new_decoder_architecture": False, "multi_query": True}),
    "falcon-alibi": (
        "FalconConfig",
        {**_WIDE, "alibi": True, "new_decoder_architecture": False, "multi_query": False},
    ),
    "granite": ("GraniteConfig", _GROUPED),
    "mixtral": ("MixtralConfig", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmo2": ("Olmo2Config", _GROUPED),
    "smollm3": ("SmolLM3Config", {**_GROUPED, "use_sliding_window": False}),
    "stablelm": ("StableLmConfig", _GROUPED),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
}


def tiny_model(kind: str, vocabulary: int = WORDS) -> Any:
    """A random model of `KINDS`; see `tiny_model_of`."""
    name, options = KINDS[kind]
    return tiny_model_of(name, {**options, "vocab_size": vocabulary})


def tiny_model_of(config_name: str, options: dict[str, Any], class_name: str | None = None) -> Any:
    """A random model whose answers vary: wide weights, so that no token is said for ever.

    The class is that of `AutoModelForCausalLM`, unless it is named.
    """
    import transformers

    settings = {**_SIZE, "vocab_size": WORDS, **options}
    torch.manual_seed(7)
    model: Any
    if config_name == "ChatGLMConfig":
        model = ChatGLMForCausalLM(ChatGLMConfig(**settings))
    elif class_name is not None:
        model = getattr(transformers, class_name)(getattr(transformers, config_name)(**settings))
    else:
        config = getattr(transformers, config_name)(**settings)
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1.5 * weight.shape[-1] ** -0.5)
            else:  # norms and biases: away from the values that hide mistakes
                weight.add_(0.2 * torch.randn(weight.shape))
    return model.eval()


@torch.no_grad()
def slow_answer(
    model: Any, prompt: Sequence[int], new: int, ends: Collection[int]
) -> tuple[list[int], bool, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """One row, no cache, no padding, a full forward for every token.

    Returns:
        The visible answer; whether it ended by itself; all layers' states `[dim]` at the last visible
        token; and those that predicted the last token said, an end token included.
    """
    ids = list(prompt)
    predicting: tuple[torch.Tensor, ...] = ()
    while True:
        out = model(torch.tensor([ids]), output_hidden_states=True)
        states = tuple(layer[0, -1] for layer in out.hidden_states)
        token = int(out.logits[0, -1].argmax())
        said = ids[len(prompt) :]
        if token in ends:
            return said, True, states, states if len(said) < new else predicting
        if len(said) == new:
            return said, False, states, predicting or states
        predicting = states
        ids.append(token)
