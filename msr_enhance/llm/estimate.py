"""The time and memory that reading needs, by arithmetic: a decoder's roofline on measured hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from msr_enhance.errors import ModelError
from msr_enhance.llm.hardware import BYTES, Hardware

WITHIN = 5.0
"""A full-length run takes between the estimate divided by this and the estimate times this."""

# Measured on Llama, GPT-2, GLM and Qwen3 classes of transformers 5.23, counted in `Hardware.launch`.
_STARTS_PER_LAYER, _STARTS_PER_PASS = 40, 150
# Numbers of working memory that a token takes while it is prefilled, in hidden sizes: the MLP's two
# inner vectors are 5 to 8 of them.
_WORK = 12
_CPU_TOKENS = 32_768


@dataclass(frozen=True)
class ModelSize:
    """What decides the cost of a decoder.

    Attributes:
        parameters: Weights in all.
        layers: Decoder layers.
        hidden: Width of a state.
        attention: Query heads times the size of a head.
        kv: Numbers of keys and values that one token leaves in the caches of all layers.
        table: Weights that are only looked up: an input embedding that is no output head too.
        head: Weights of the output head, used once a step, not once a prompt token.
        experts: Weights of all experts of a mixture; 0 for a dense model.
        used: Share of the experts that one token passes through.
    """

    parameters: int
    layers: int
    hidden: int
    attention: int
    kv: int
    table: int = 0
    head: int = 0
    experts: int = 0
    used: float = 1.0

    @classmethod
    def of(cls, config: Any, parameters: int) -> Self:
        """Read the sizes from a transformers configuration.

        Args:
            config: Of a decoder; of a multimodal model its text part counts.
            parameters: All weights; `Outline.parameters()` counts them without memory.

        Raises:
            ModelError: If it is no configuration of a decoder with attention.
        """
        text = config.get_text_config()
        needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        missing = [name for name in needed if not isinstance(getattr(text, name, None), int)]
        if missing:
            raise ModelError(
                f"The configuration of a {text.model_type} model has no {missing[0]}, so it is no decoder "
                "with attention; name a model that generates text with attention in every layer."
            )
        hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
        heads = int(text.num_attention_heads)
        size = int(getattr(text, "head_dim", None) or hidden // heads)
        kv = 2 * size * int(getattr(text, "num_key_value_heads", None) or heads)
        if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
            kv = 2 * size  # Falcon and StarCoder name no number of heads; the newer Falcon unfolds its own
        if getattr(text, "kv_lora_rank", None):  # multi-head latent attention, whose cache is unfolded
            kv = heads * (int(text.qk_nope_head_dim) + int(text.qk_rope_head_dim) + int(text.v_head_dim))
        words = int(text.vocab_size) * hidden
        tied = bool(getattr(text, "tie_word_embeddings", False) or config.tie_word_embeddings)
        experts, used = _mixture(text, hidden, layers)
        return cls(
            parameters=parameters,
            layers=layers,
            hidden=hidden,
            attention=heads * size,
            kv=layers * kv,
            table=0 if tied else words,
            head=words,
            experts=min(experts, parameters),
            used=used,
        )

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of all weights."""
        return self.parameters * BYTES[dtype]

    def kv_bytes(self, dtype: str) -> int:
        """Bytes that one token takes in the key-value cache, over all layers."""
        return self.kv * BYTES[dtype]

    def memory_bytes(self, dtype: str, cached_tokens: int, prefill_tokens: int) -> int:
        """About what reading needs: weights, a cache, and what a prefill works in.

        Args:
            dtype: Of the weights.
            cached_tokens: Tokens of prompt and answer in a batch.
            prefill_tokens: Tokens that go through the layers at once.
        """
        work = prefill_tokens * _WORK * self.hidden * BYTES[dtype]
        return self.weight_bytes(dtype) + cached_tokens * self.kv_bytes(dtype) + work


def tokens_at_once(size: ModelSize, dtype: str, device: str, memory: int | None) -> int:
    """Tokens of prompt and answer that `HuggingFaceLLM` reads together when nothing else is asked for.

    Args:
        size: The decoder.
        dtype: Of its weights.
        device: Where it runs.
        memory: Bytes that the device has in all; None where the system does not say.
    """
    if memory is None:
        return _CPU_TOKENS
    gpu = device.startswith("cuda")
    # Part of the memory is left to the activations of the prefill, and on a CPU to everybody else.
    free = (0.85 if gpu else 0.5) * memory - size.weight_bytes(dtype)
    fitting = max(1, int(max(0.0, free) * 0.6) // size.kv_bytes(dtype))
    return fitting if gpu else min(_CPU_TOKENS, fitting)


@dataclass(frozen=True)
class Seconds:
    """Time of one batch by part.

    Attributes:
        prefill: Reading the prompts.
        decode: Writing the answers.
        starts: Starting the operations of every pass; what small models spend most on.
    """

    prefill: float
    decode: float
    starts: float

    @property
    def floor(self) -> float:
        """The roofline: no program on this hardware is faster, whatever it starts."""
        return self.prefill + self.decode

    @property
    def total(self) -> float:
        """The roofline and the starts, as if they never overlapped."""
        return self.floor + self.starts


def roofline(
    size: ModelSize,
    hardware: Hardware,
    *,
    prompt_tokens: int,
    new_tokens: int,
    batch: int = 1,
    shared_tokens: int = 0,
) -> Seconds:
    """Time of one batch when products run at the measured rate and every byte is read once.

    Each pass takes the longer of its products and its reading. The prefill multiplies every weight but
    the embeddings with each token; a decoding step reads every weight and the cache so far. Attention
    counts whole squares, since a padded batch passes a mask and kernels then skip nothing.

    Args:
        size: The decoder.
        hardware: What was measured, in the dtype of the weights.
        prompt_tokens: Tokens of each prompt, padding included.
        new_tokens: Passes after the prefill: tokens of the longest answer; 0 only reads.
        batch: Prompts at once.
        shared_tokens: First tokens that all prompts share and that are read once.
    """
    width = BYTES[hardware.dtype]
    body = size.parameters - size.table - size.head
    active = body - size.experts * (1 - size.used)
    square = 4 * size.layers * size.attention

    fresh = batch * (prompt_tokens - shared_tokens)
    products = 2 * active * (fresh + shared_tokens) + 2 * size.head * batch
    products += square * (fresh * prompt_tokens + shared_tokens**2)
    prefill = max(products / hardware.flops, width * (body + size.head) / hardware.bandwidth)

    context = prompt_tokens + new_tokens / 2
    products = batch * (2 * (active + size.head) + square * context)
    touched = size.experts * min(1.0, batch * size.used)
    read = width * (body - size.experts + touched + size.head)
    read += batch * context * size.kv_bytes(hardware.dtype)
    decode = new_tokens * max(products / hardware.flops, read / hardware.bandwidth)

    passes = 1 + new_tokens + (1 if shared_tokens else 0)
    starts = passes * (_STARTS_PER_PASS + _STARTS_PER_LAYER * size.layers) * hardware.launch
    return Seconds(prefill, decode, starts)


@dataclass(frozen=True)
class Forecast:
    """What a whole run takes; every number is an estimate.

    Attributes:
        ending_at_once: Seconds when every answer has one token, at the roofline.
        full_length: Seconds when every answer is as long as allowed, starts of operations included.
        batches: Batches of the run.
    """

    ending_at_once: float
    full_length: float
    batches: int


def forecast(
    size: ModelSize,
    hardware: Hardware,
    batches: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    scale: float = 1.0,
    shared_tokens: int = 0,
) -> Forecast:
    """Sum the roofline over planned batches.

    Args:
        size: The decoder.
        hardware: What was measured.
        batches: Prompt lengths in tokens, batch by batch.
        new_tokens: Longest answer; 0 where nothing is written.
        scale: How many times the batches given make up the run, where they are a sample of it.
        shared_tokens: First tokens that all prompts share.
    """
    least = most = 0.0
    for lengths in batches:
        shape = {"prompt_tokens": max(lengths), "batch": len(lengths)}
        shared = min(shared_tokens, *lengths) if len(lengths) > 1 else 0
        one = roofline(size, hardware, **shape, new_tokens=min(1, new_tokens), shared_tokens=shared)
        full = roofline(size, hardware, **shape, new_tokens=new_tokens)
        least, most = least + one.floor, most + full.total
    return Forecast(least * scale, most * scale, round(len(batches) * scale))


def _mixture(text: Any, hidden: int, layers: int) -> tuple[int, float]:
    """Weights of all experts, and the share a token passes through."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    count = next((int(value) for name in names if (value := getattr(text, name, None))), 0)
    chosen = int(getattr(text, "num_experts_per_tok", None) or 0)
    inner = getattr(text, "moe_intermediate_size", None) or getattr(text, "intermediate_size", None)
    if not (count and chosen and inner):
        return 0, 1.0
    dense = int(getattr(text, "first_k_dense_replace", None) or 0)
    return (layers - dense) * count * 3 * hidden * int(inner), chosen / count
