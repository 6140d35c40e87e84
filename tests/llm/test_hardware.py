"""Measured speed, and the estimate that rests on it against a clock: ratios only, never a time."""

from __future__ import annotations

import math
import time

import pytest
import torch

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin
from msr_enhance.llm.estimate import WITHIN, ModelSize, forecast
from msr_enhance.llm.hardware import default_dtype, measure
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.llm.token_budget import planned


def test_the_measured_rate_is_the_rate_of_a_product():
    found = measure("cpu", "float32", width=512)
    left, right = torch.rand(512, 512), torch.rand(512, 512)
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        left @ right
        taken.append(time.perf_counter() - started)
    rate = 2 * 512**3 / min(taken)
    assert rate / 4 < found.flops < rate * 4
    assert 1e8 < found.bandwidth < 1e13
    assert 1e-8 < found.launch < 1e-2


def test_a_device_that_is_not_there():
    with pytest.raises(ModelError, match=r"Cannot use device 'gpu9': .* Write --device cpu"):
        measure("gpu9")


def test_half_precision_is_never_chosen_for_a_cpu():
    assert default_dtype(None, "cpu", torch.float16) == "float32"
    assert default_dtype(None, "cuda", torch.float16) == "float16"
    assert default_dtype(None, "cuda:1", "bfloat16") == "bfloat16"
    assert default_dtype("bfloat16", "cpu", torch.float16) == "bfloat16"
    assert default_dtype(None, "cuda", None) == "float32"
    with pytest.raises(ModelError, match="float16 on a CPU"):
        default_dtype("float16", "cpu")
    with pytest.raises(ModelError, match="'float8' is not known"):
        default_dtype("float8", "cuda")


# against a clock

WIDE = {"hidden_size": 512, "intermediate_size": 1_376, "num_hidden_layers": 3, "num_attention_heads": 8}


@pytest.fixture(scope="module")
def wide_model():
    """12 M weights: large enough that products, not the starting of them, take the time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    _, tokenizer = builtin.build()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**WIDE, vocab_size=len(tokenizer), max_position_embeddings=4_096))
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None  # no answer ends early: the estimate is for full length
    return model, tokenizer


@pytest.mark.parametrize(("rows", "words", "new"), [(6, 80, 2), (4, 20, 16), (1, 100, 12)])
def test_a_run_takes_what_was_said_within_the_stated_factor(wide_model, rows, words, new):
    """Ratios only: both sides run on this machine, in this process, at this moment."""
    llm = HuggingFaceLLM.of(*wide_model, name="wide", max_new_tokens=new)
    size = ModelSize.of(wide_model[0].config, sum(weight.numel() for weight in wide_model[0].parameters()))
    prompts = [
        f"user {row} likes " + " ".join(f"w{(row + 3) * word % 97}" for word in range(words + row))
        for row in range(rows)
    ]
    ratios = []
    for _ in range(3):
        hardware = measure("cpu", "float32", width=size.hidden)
        started = time.perf_counter()
        answers = llm.answer(prompts)
        taken = time.perf_counter() - started
        lengths = [answer.prompt_tokens for answer in answers]
        assert {answer.answer_tokens for answer in answers} == {new}
        batches = [[lengths[at] for at in batch] for batch in planned(lengths, new, 32_768)]
        said = forecast(size, hardware, batches, new_tokens=new)
        assert said.ending_at_once < said.full_length
        ratios.append(taken / said.full_length)
    print(f"{rows} rows, {max(lengths)} + {new} tokens: measured / estimated = {sorted(ratios)}")
    # A machine that is busy just once would spoil one of them.
    closest = min(ratios, key=lambda ratio: abs(math.log(ratio)))
    assert 1 / WITHIN < closest < WITHIN
