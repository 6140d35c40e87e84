"""First weights with which copying is learnt in minutes: heads that look back, and induction heads.

Layer 0: three heads look 1, 2 and 3 tokens back (RoPE gives the offset). Later layers: heads whose query is
what a token is and whose key is what stood before a token (induction), one that finds equal tokens, and free
ones. Everything is trained from there on; the result is an ordinary Llama.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDTH, HEADS, LAYERS, INNER, THETA = 128, 4, 5, 192, 500_000.0
DEPTH = WIDTH // HEADS
_CONSTANT = 0.3
"""Channel 0 of every embedding, which the heads of layer 0 read to know nothing but the offset."""


def config(vocabulary: int, pad: int, end: int, window: int) -> Any:
    """The configuration of the decoder."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=window,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=pad,
        eos_token_id=end,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )


@torch.no_grad()
def fill(model: Any, draw: torch.Generator) -> None:
    """Set the first weights."""
    base = model.model
    base.embed_tokens.weight.normal_(0, 0.1, generator=draw)
    base.embed_tokens.weight[:, 0] = _CONSTANT
    looking = _look_back(base.layers[0], draw)
    for number, layer in enumerate(base.layers):
        for weight in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight):
            weight.normal_(0, WIDTH**-0.5, generator=draw)
        layer.mlp.down_proj.weight.normal_(0, 0.1 * INNER**-0.5, generator=draw)
        if number:
            _match(layer, looking, number, (0.15, 0.15, 0.5, 0.5)[number - 1], draw)


def _look_back(layer: Any, draw: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Layer 0: heads 0 to 2 copy the content of 1, 2, 3 tokens before; gives their value and output maps."""
    attention, half = layer.self_attn, DEPTH // 2
    speed = THETA ** (-torch.arange(half) / half)
    found = []
    for head in range(HEADS):
        rows = slice(head * DEPTH, (head + 1) * DEPTH)
        value, out = _orthogonal(draw), _orthogonal(draw)
        attention.v_proj.weight[rows] = value
        attention.o_proj.weight[:, rows] = 0.2 * out.T
        if head == HEADS - 1:
            attention.q_proj.weight[rows] = 0.3 * _orthogonal(draw)
            attention.k_proj.weight[rows] = 0.3 * _orthogonal(draw)
            continue
        size = (10 * DEPTH**0.5 / 8.4) ** 0.5 * (torch.arange(half) < 6)
        turn = speed * (head + 1)
        for weight in (attention.q_proj.weight, attention.k_proj.weight):
            weight[rows] = 0
        attention.q_proj.weight[rows, 0] = torch.cat([size * turn.cos(), -size * turn.sin()])
        attention.k_proj.weight[rows, 0] = torch.cat([size, torch.zeros(half)])
        found.append((value, out))
    return found


def _match(
    layer: Any, looking: list[tuple[Tensor, Tensor]], number: int, strength: float, draw: torch.Generator
) -> None:
    """Later layers: query and key meet where tokens are equal, or where one follows the other's equal."""
    attention = layer.self_attn
    # Fast-turning pairs know no meaning over a hundred tokens: less weight for them.
    steady = torch.where(torch.arange(DEPTH) % (DEPTH // 2) < 6, 0.3, 1.0)[:, None]
    for head in range(HEADS):
        rows = slice(head * DEPTH, (head + 1) * DEPTH)
        value = _orthogonal(draw)
        attention.v_proj.weight[rows] = value
        attention.o_proj.weight[:, rows] = strength * value.T
        if number > 2 or head < 2:
            seen, written = looking[head % len(looking)]
            query, key = seen, written
        else:
            # Where the same token, or the one before it, stood before: equal words end alike.
            query = key = looking[head - 2][1]
        attention.q_proj.weight[rows] = 2.0 * steady * query
        attention.k_proj.weight[rows] = 2.0 * key


def _orthogonal(draw: torch.Generator) -> Tensor:
    """`[DEPTH, WIDTH]` with orthonormal rows that do not read channel 0."""
    square = torch.linalg.qr(torch.randn(WIDTH - 1, DEPTH, generator=draw))[0].T
    return torch.cat([torch.zeros(DEPTH, 1), square], dim=1)
