"""The guide of `doctor`: published sizes, and whether they fit."""

from __future__ import annotations

import pytest
import torch

from msr_enhance.cli import model_guide
from msr_enhance.llm.estimate import ModelSize
from msr_enhance.llm.hardware import Hardware


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Qwen2.5-0.5B", (151_936, 896, 4_864, 24, 14, 2, True)),
        ("Qwen2.5-3B", (151_936, 2_048, 11_008, 36, 16, 2, True)),
        ("Qwen2.5-14B", (152_064, 5_120, 13_824, 48, 40, 8, False)),
        ("Qwen2.5-32B", (152_064, 5_120, 27_648, 64, 40, 8, False)),
        ("Llama-3.1-8B", (128_256, 4_096, 14_336, 32, 32, 8, False)),
        ("Llama-3.1-70B", (128_256, 8_192, 28_672, 80, 64, 8, False)),
        ("ChatGLM2-6B", (65_024, 4_096, 13_696, 28, 32, 2, False)),
    ],
)
def test_the_sizes_are_those_of_the_published_configurations(name, sizes):
    import transformers

    kind = {"Q": "Qwen2Config", "L": "LlamaConfig", "C": "GlmConfig"}[name[0]]
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    options = dict(zip((*keys, "num_key_value_heads", "tie_word_embeddings"), sizes, strict=True))
    if kind == "GlmConfig":
        options |= {"head_dim": 128, "attention_bias": True, "pad_token_id": 0}
    config = getattr(transformers, kind)(**options)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    counted = sum(weight.numel() for weight in model.parameters())
    assert model_guide.KNOWN[name] == ModelSize.of(config, counted)


@pytest.mark.parametrize(
    ("device", "dtype", "gigabytes", "fits"),
    [
        ("cuda", "float16", 16, True),
        ("cuda", "float16", 12, False),
        ("cuda", "bfloat16", 80, True),
        ("cpu", "float32", 24, False),
        ("cpu", "float32", 36, True),
        ("cpu", "bfloat16", 18, True),
    ],
)
def test_whether_chatglm2_6b_fits(device, dtype, gigabytes, fits):
    """Weights alone: 12.5 GB in half precision, 25 GB in float32."""
    hardware = Hardware(device, dtype, flops=1e14, bandwidth=1e12, launch=5e-6)
    memory = int(gigabytes * 1e9)
    found = {fit.model: fit for fit in model_guide.fits(hardware, (memory, memory))}
    assert found["ChatGLM2-6B"].fits is fits
    assert found["ChatGLM2-6B"].needs > (25e9 if dtype == "float32" else 12.5e9)
    assert found["ChatGLM2-6B"].rows >= 1
    assert model_guide.fits(hardware, None)[0].fits is None
