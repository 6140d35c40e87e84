"""The arithmetic of time and memory: against counters inside real models, and against a clock."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tiny_models import KINDS, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin, token_budget
from msr_enhance.llm.estimate import ModelSize, Seconds, forecast, roofline, tokens_at_once
from msr_enhance.llm.hardware import Hardware
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.llm.outline import Outline, outline
from msr_enhance.llm.weightless import Weightless

ONLY_PRODUCTS = Hardware("cpu", "float32", flops=1.0, bandwidth=1e30, launch=0.0)
ONLY_BYTES = Hardware("cpu", "float32", flops=1e30, bandwidth=1.0, launch=0.0)
ONLY_STARTS = Hardware("cpu", "float32", flops=1e30, bandwidth=1e30, launch=1.0)
# Their weights are all multiplied with every token; position tables (GPT-2, OPT) are not, and a tiny
# model's are as large as its layers.
COUNTED = ["llama", "qwen2", "qwen3", "gemma", "phi", "phi3", "gpt_neox", "bloom", "glm", "glm4"]


def counted(model):
    return sum(weight.numel() for weight in model.parameters())


def chatglm2_6b():
    """The published sizes, by transformers' own class."""
    from transformers import GlmConfig

    return GlmConfig(
        vocab_size=65_024,
        hidden_size=4_096,
        intermediate_size=13_696,
        num_hidden_layers=28,
        num_attention_heads=32,
        num_key_value_heads=2,
        head_dim=128,
        attention_bias=True,
        tie_word_embeddings=False,
        pad_token_id=0,
        dtype="float16",
    )


# sizes


def test_chatglm2_6b():
    """Published: 6.24 B parameters; 2 groups of 128 for keys and for values in each of 28 layers."""
    config = chatglm2_6b()
    parameters = Outline("chatglm2", None, config, builtin.build()[1]).parameters()
    size = ModelSize.of(config, parameters)
    assert parameters == 6_243_584_000
    assert size.weight_bytes("float16") == 12_487_168_000
    assert size.kv_bytes("float16") == 28_672
    assert size.kv_bytes("float32") == 57_344


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_of_a_token_is_what_a_real_cache_holds(kind):
    from transformers import DynamicCache

    model = tiny_model(kind)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.arange(5)[None] + 3, past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 5 * ModelSize.of(model.config, counted(model)).kv_bytes("float32") == held


@pytest.mark.parametrize("shape", [(1, 40), (3, 17)])
@pytest.mark.parametrize("kind", COUNTED)
def test_the_products_are_what_a_counter_in_torch_counts(kind, shape):
    from transformers import DynamicCache

    model = tiny_model(kind)
    model.set_attn_implementation("eager")  # the counter does not see into the others
    size = ModelSize.of(model.config, counted(model))
    rows, tokens = shape
    cache = DynamicCache(config=model.config)
    ids = torch.randint(3, 190, shape)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as prefill:
            model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
        with FlopCounterMode(display=False) as step:
            model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=1)
    ours = roofline(size, ONLY_PRODUCTS, prompt_tokens=tokens, new_tokens=1, batch=rows)
    assert ours.prefill == pytest.approx(prefill.get_total_flops(), rel=0.06)
    assert ours.decode == pytest.approx(step.get_total_flops(), rel=0.06)


def test_a_mixture_multiplies_only_the_experts_a_token_meets():
    model = tiny_model("qwen3_moe")
    size = ModelSize.of(model.config, counted(model))
    experts = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    assert size.experts == experts
    assert size.used == 0.5
    half = roofline(size, ONLY_PRODUCTS, prompt_tokens=9, new_tokens=0).prefill
    whole = roofline(replace(size, used=1.0), ONLY_PRODUCTS, prompt_tokens=9, new_tokens=0).prefill
    assert whole - half == pytest.approx(2 * 9 * experts / 2)
    one, four = (roofline(size, ONLY_BYTES, prompt_tokens=1, new_tokens=1, batch=n).decode for n in (1, 4))
    cache = 1.5 * size.kv_bytes("float32")
    assert four - 4 * cache - (one - cache) == pytest.approx(4 * experts / 2), "four rows meet every expert"


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_reads_each_weight_once_but_the_embeddings(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=90, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    config.tie_word_embeddings = tied
    model = LlamaForCausalLM(config)
    size = ModelSize.of(config, counted(model))
    looked_up = 0 if tied else model.get_input_embeddings().weight.numel()
    read = 4 * (counted(model) - looked_up)
    alone = roofline(size, ONLY_BYTES, prompt_tokens=10, new_tokens=1)
    assert alone.decode == read + 10.5 * size.kv_bytes("float32")
    assert alone.prefill == read
    full = roofline(size, ONLY_BYTES, prompt_tokens=10, new_tokens=1, batch=8)
    assert full.decode - alone.decode == pytest.approx(7 * 10.5 * size.kv_bytes("float32"))
    half = roofline(size, replace(ONLY_BYTES, dtype="bfloat16"), prompt_tokens=10, new_tokens=1)
    assert half.decode == alone.decode / 2


# the roofline


def test_a_shared_prefix_is_paid_once():
    size = ModelSize.of(chatglm2_6b(), 6_243_584_000)
    whole = roofline(size, ONLY_PRODUCTS, prompt_tokens=500, new_tokens=0, batch=8)
    shared = roofline(size, ONLY_PRODUCTS, prompt_tokens=500, new_tokens=0, batch=8, shared_tokens=400)
    assert whole.prefill / shared.prefill == pytest.approx(8 * 500 / (8 * 100 + 400), rel=0.05)
    assert shared.prefill > roofline(size, ONLY_PRODUCTS, prompt_tokens=100, new_tokens=0, batch=8).prefill


def test_each_pass_takes_the_longer_of_products_and_bytes():
    size = ModelSize.of(chatglm2_6b(), 6_243_584_000)
    shape = {"prompt_tokens": 1_500, "new_tokens": 300, "batch": 16}
    both = Hardware("cuda", "bfloat16", flops=790e12, bandwidth=4.3e12, launch=5e-6)
    products = roofline(size, replace(both, bandwidth=1e30), **shape)
    reads = roofline(size, replace(both, flops=1e30), **shape)
    together = roofline(size, both, **shape)
    assert together.prefill == max(products.prefill, reads.prefill) == products.prefill
    assert together.decode == max(products.decode, reads.decode) == reads.decode
    assert together.floor == together.prefill + together.decode
    assert together.total == together.floor + together.starts
    # By hand: 24,000 tokens x 2 x 5.71e9; 300 steps over 11.95 GB of weights and 26,400 tokens of cache.
    assert together.prefill == pytest.approx(16 * 1500 * 2 * 5.71e9 / 790e12, rel=0.1)
    assert together.decode == pytest.approx(300 * (11.95e9 + 16 * 1650 * 28_672) / 4.3e12, rel=0.01)


def test_starting_operations_costs_by_pass_and_layer_not_by_row():
    size = ModelSize.of(chatglm2_6b(), 6_243_584_000)
    starts = {
        (new, rows): roofline(size, ONLY_STARTS, prompt_tokens=9, new_tokens=new, batch=rows).starts
        for new in (0, 1, 10)
        for rows in (1, 32)
    }
    assert starts[0, 1] == starts[0, 32]
    assert starts[1, 1] == 2 * starts[0, 1]
    assert starts[10, 32] == 11 * starts[0, 1]
    assert starts[0, 1] > 28


def test_a_forecast_is_the_sum_of_its_batches():
    size = ModelSize.of(chatglm2_6b(), 6_243_584_000)
    hardware = Hardware("cpu", "float32", flops=1e11, bandwidth=2e10, launch=5e-6)
    batches = [[10, 12, 30], [700], [900, 1_000]]
    parts = [
        roofline(size, hardware, prompt_tokens=max(batch), new_tokens=64, batch=len(batch))
        for batch in batches
    ]
    whole = forecast(size, hardware, batches, new_tokens=64)
    assert whole.full_length == pytest.approx(sum(part.total for part in parts))
    assert 0 < whole.ending_at_once < whole.full_length
    assert whole.batches == 3
    tenfold = forecast(size, hardware, batches, new_tokens=64, scale=10)
    assert tenfold.full_length == pytest.approx(10 * whole.full_length)
    assert tenfold.batches == 30
    assert forecast(size, hardware, [], new_tokens=64).full_length == 0
    shared = forecast(size, hardware, batches, new_tokens=64, shared_tokens=9)
    assert shared.ending_at_once < whole.ending_at_once
    only_read = forecast(size, hardware, batches, new_tokens=0)
    assert only_read.ending_at_once <= only_read.full_length < whole.full_length


# the reader's own plan


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("memory", [20e3, 80e9, None])
def test_batches_fit_into_the_memory_that_the_device_has(monkeypatch, memory, device):
    model = tiny_model("glm")
    size = ModelSize.of(model.config, counted(model))
    monkeypatch.setattr(token_budget, "memory_of", lambda _: memory and (int(memory), 0))
    there = SimpleNamespace(
        device=torch.device(device), parameters=model.parameters, config=model.config, dtype=torch.float32
    )
    tokens = token_budget.tokens_that_fit(there)
    assert tokens == tokens_at_once(size, "float32", device, memory and int(memory))
    if memory is None:
        assert tokens == 32_768
    elif memory == 80e9:
        held = size.weight_bytes("float32") + tokens * size.kv_bytes("float32")
        assert (tokens == 32_768) if device == "cpu" else (0.4 * memory < held < 0.85 * memory)
    else:
        assert tokens == 1, "too small a device still reads one row after the other"


def test_a_reader_without_weights_counts_as_the_real_one():
    real = HuggingFaceLLM.load("builtin", max_new_tokens=32, max_prompt_tokens=700)
    none = Weightless(outline("builtin"), max_new_tokens=32, max_prompt_tokens=700)
    prompts = ["In shop: plain kit | cooking.", "a", "</s> <eos> and 例え\n" * 9]
    assert none.count_tokens(prompts) == real.count_tokens(prompts)
    assert none.prompt_limit == real.prompt_limit == 700
    assert none.shape == real.shape
    two = Weightless(outline("builtin"), max_new_tokens=32, layers=[0, -1])
    assert two.shape == HuggingFaceLLM.load("builtin", max_new_tokens=32, layers=[0, -1]).shape
    assert two.prompt_limit == HuggingFaceLLM.load("builtin", max_new_tokens=32).prompt_limit
    assert Weightless(outline("builtin"), max_new_tokens=32, state="prompt").new_tokens == 0
    with pytest.raises(ModelError, match="without its weights"):
        none.answer(prompts)
    with pytest.raises(ModelError, match="--max-new-tokens"):
        Weightless(outline("builtin"), max_new_tokens=9_000)


def test_time_grows_with_everything():
    size = ModelSize.of(chatglm2_6b(), 6_243_584_000)
    hardware = Hardware("cpu", "float32", flops=1e11, bandwidth=2e10, launch=5e-6)
    base = {"prompt_tokens": 100, "new_tokens": 10, "batch": 2}
    for name in base:
        grown: list[Seconds] = [
            roofline(size, hardware, **{**base, name: base[name] * factor}) for factor in (1, 2, 4)
        ]
        assert all(small.total < large.total for small, large in pairwise(grown))
