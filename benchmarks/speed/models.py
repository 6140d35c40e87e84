"""Random-weight models of stated sizes, prompts of realistic length, and what a figure must say of itself."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msr_enhance.data.facts import Event, UserFacts
from msr_enhance.llm import builtin
from msr_enhance.llm.chatglm.config import native_config
from msr_enhance.llm.chatglm.weights import ChatGLMForCausalLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.user import UserPrompt

CHATGLM2_6B = {
    "model_type": "chatglm",
    "_name_or_path": "THUDM/chatglm2-6b",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "ffn_hidden_size": 13696,
    "fp32_residual_connection": False,
    "hidden_size": 4096,
    "kv_channels": 128,
    "layernorm_epsilon": 1e-05,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 28,
    "padded_vocab_size": 65024,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 32768,
    "torch_dtype": "float16",
}
# name: hidden size, layers, inner size, heads, key-value heads
LLAMAS = {"tiny": (256, 4, 704, 8, 2), "small": (512, 8, 1408, 8, 2), "medium": (896, 24, 4864, 14, 2)}


def build(name: str, device: str, dtype: torch.dtype, seed: int) -> tuple[Any, Any]:
    """A model with random weights, made where it will run, and the built-in tokenizer."""
    tokenizer = builtin.build()[1]
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            if name == "6b":
                model: Any = ChatGLMForCausalLM(native_config(CHATGLM2_6B, "chatglm2-6b"))
            else:
                from transformers import LlamaConfig, LlamaForCausalLM

                hidden, layers, inner, heads, kept = LLAMAS[name]
                model = LlamaForCausalLM(
                    LlamaConfig(
                        vocab_size=len(tokenizer),
                        hidden_size=hidden,
                        num_hidden_layers=layers,
                        intermediate_size=inner,
                        num_attention_heads=heads,
                        num_key_value_heads=kept,
                        max_position_embeddings=8192,
                        tie_word_embeddings=False,
                        pad_token_id=0,
                        eos_token_id=1,
                        bos_token_id=None,
                    )
                )
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False), tokenizer


def prompts(tokenizer: Any, count: int, tokens: int, seed: int) -> list[str]:
    """User prompts of about so many tokens in the middle, with a long tail to both sides."""
    draw = np.random.default_rng(seed)
    words = ["red", "warm", "quiet", "old", "kit", "bag", "lamp", "novel", "report", "film", "tea", "shoe"]
    platform = Platform.for_scenarios(["feed", "search", "shop"])
    template = UserPrompt.named("default")

    def text(events: int) -> str:
        liked = [
            Event("", str(number), (" ".join(draw.choice(words, 3)), str(draw.choice(words))), "")
            for number in range(events)
        ]
        by_scenario = {name: liked[place::3] for place, name in enumerate(("feed", "search", "shop"))}
        return str(template.render_facts(platform, UserFacts(0, by_scenario, {})))

    per_event = (len(tokenizer(text(60))["input_ids"]) - len(tokenizer(text(0))["input_ids"])) / 60
    middle = tokens / per_event
    wide = np.clip(draw.lognormal(np.log(middle), 0.85, count), 3, 5 * middle)
    return [text(int(events)) for events in wide]


def say(text: str) -> None:
    """Words for people."""
    print(text, file=sys.stderr, flush=True)


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the figures needs to know."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    cuda = options.device.startswith("cuda")
    return {
        "options": vars(options),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip() or None,
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "msr-enhance")},
        "hardware": {
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
        },
    }
