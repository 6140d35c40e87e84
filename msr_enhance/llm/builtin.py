"""The built-in decoder: a tiny Llama made from a fixed seed. It is UNTRAINED and cannot reason.

It exists so that the whole way from log to comparison runs at once, without a download. Its weights
are random numbers from a fixed seed; only their scales are chosen: the first layer looks a few tokens
back, the last one spreads its attention evenly, so the state of the last token is a random projection
of the prompt's phrases. That carries how often things occur in a prompt; it carries no understanding,
and the texts it writes are noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOKENIZER = Path(__file__).with_name("builtin_tokenizer.json")
NAME = "builtin"
DESCRIPTION = "untrained tiny decoder from a fixed seed: runs everywhere, understands nothing"
SEED = 20240618
WIDTH, HEADS, LAYERS, INNER = 128, 4, 2, 256
PAD, END = "<pad>", "<eos>"


def build() -> tuple[Any, Any]:
    """The built-in model and its tokenizer, the same on every machine with the same torch.

    Returns:
        A `LlamaForCausalLM` in eval mode (float32) and a fast tokenizer.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(TOKENIZER), pad_token=PAD, eos_token=END, padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws numbers we replace: leave the caller's alone
        model: Any = LlamaForCausalLM(config)
    model.eval()
    fill(model)
    return model, tokenizer


@torch.no_grad()
def fill(model: Any) -> None:
    """Give every weight its number, from one generator of a fixed seed, in a fixed order."""
    draw = torch.Generator().manual_seed(SEED)

    def normal(weight: Tensor, scale: float) -> None:
        weight.copy_(torch.randn(weight.shape, generator=draw) * scale)

    normal(model.model.embed_tokens.weight, 1.0)
    model.model.embed_tokens.weight[:2] = 0.0  # <pad> and <eos> are never the likeliest token
    for number, layer in enumerate(model.model.layers):
        attention, last = layer.self_attn, number == LAYERS - 1
        normal(attention.q_proj.weight, 0.02 / WIDTH**0.5)
        normal(attention.k_proj.weight, 0.02 / WIDTH**0.5)
        normal(attention.v_proj.weight, 1 / WIDTH**0.5)
        normal(attention.o_proj.weight, (8.0 if last else 1.0) / WIDTH**0.5)
        normal(layer.mlp.gate_proj.weight, 1 / WIDTH**0.5)
        normal(layer.mlp.up_proj.weight, 1 / WIDTH**0.5)
        normal(layer.mlp.down_proj.weight, (0.1 if last else 1.0) / INNER**0.5)
