"""The reader against a slow loop: one row, no cache, no padding, a full forward for every token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin
from msr_enhance.llm.category_frequency import CategoryFrequency
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.llm.sentence_encoder import SentenceEncoder
from msr_enhance.prompts.prompt import Prompt

PROMPTS = [
    "In shop: plain kit | cooking; bold set | music.",
    "a",
    "In news: " + "slow report | history; " * 12,
    "In video: nothing yet.",
    "Which interests are common?",
]


def tiny(kind: str, seed: int = 0) -> tuple[Any, Any]:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    _, tokenizer = builtin.build()
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    wide = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(seed)
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, **size)
        ), tokenizer
    if kind == "qwen2":
        return Qwen2ForCausalLM(
            Qwen2Config(num_key_value_heads=2, initializer_range=0.3, **wide, **size)
        ), tokenizer
    return LlamaForCausalLM(LlamaConfig(initializer_range=0.3, **wide, **size)), tokenizer


@torch.no_grad()
def slow(model: Any, ids: list[int], new: int, ends: set[int]) -> tuple[list[int], torch.Tensor]:
    """Answer one row by the definition; the state is that of the last visible token."""
    ids, answer = list(ids), []
    for _ in range(new):
        token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
        answer.append(token)
    hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    return answer, hidden[0, -1]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_batched_answers_equal_the_slow_loop(kind: str) -> None:
    """Rows of very different length that end at different steps, some by the limit."""
    model, tokenizer = tiny(kind)
    model.eval()
    # End tokens are picked from what the model says, so that rows really end at different steps.
    said = [slow(model, tokenizer(text)["input_ids"], 8, set())[0] for text in PROMPTS]
    ends = [said[0][3], said[2][5]]
    model.generation_config.eos_token_id = ends
    llm = HuggingFaceLLM(model, tokenizer, name=kind, max_new_tokens=8)
    answers = llm.answer(PROMPTS)
    lengths = set()
    for text, answer in zip(PROMPTS, answers, strict=True):
        expected, state = slow(model, tokenizer(text)["input_ids"], 8, set(ends))
        lengths.add(len(expected))
        if not expected:
            assert answer.status == "failed"
            continue
        assert answer.answer_tokens == len(expected)
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert answer.reason == ("length" if len(expected) == 8 else "end")
        np.testing.assert_allclose(answer.vector, state, atol=2e-5)
    assert len(lengths) > 1, "the test must see rows that end at different steps"


def test_prompt_state_generates_nothing() -> None:
    model, tokenizer = tiny("llama")
    llm = HuggingFaceLLM(model, tokenizer, name="tiny", state="prompt")
    for text, answer in zip(PROMPTS, llm.answer(PROMPTS), strict=True):
        _, state = slow(model.eval(), tokenizer(text)["input_ids"], 0, set())
        np.testing.assert_allclose(answer.vector, state, atol=2e-5)
        assert answer.text == ""


def test_token_mean_is_the_mean_of_input_embeddings() -> None:
    model, tokenizer = tiny("llama")
    llm = HuggingFaceLLM(model, tokenizer, name="tiny", state="token-mean")
    weight = model.get_input_embeddings().weight.detach()
    for text, answer in zip(PROMPTS, llm.answer(PROMPTS), strict=True):
        np.testing.assert_allclose(answer.vector, weight[tokenizer(text)["input_ids"]].mean(0), atol=1e-5)


def test_batch_size_changes_nothing() -> None:
    model, tokenizer = tiny("llama")
    small = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=5, tokens_per_batch=1)
    large = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=5)
    for one, other in zip(small.answer(PROMPTS), large.answer(PROMPTS[::-1])[::-1], strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.vector, other.vector, atol=2e-5)
    assert dict(small.identity) == dict(large.identity)


def test_a_first_end_token_is_a_failed_row_not_a_vector_of_the_prompt() -> None:
    model, tokenizer = tiny("llama")
    first = slow(model.eval(), tokenizer(PROMPTS[0])["input_ids"], 1, set())[0]
    model.generation_config.eos_token_id = first
    answer = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=4).answer(PROMPTS[:1])[0]
    assert answer.status == "failed"
    assert "before its first visible token" in answer.reason
    assert not answer.vector.any()


def test_a_prompt_over_the_window_fails_alone() -> None:
    model, tokenizer = tiny("llama")
    model.config.max_position_embeddings = 60
    answers = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=4).answer(PROMPTS)
    assert [answer.status for answer in answers] == ["ok", "ok", "failed", "ok", "ok"]
    assert "exceed the window of 60" in answers[2].reason


def test_nan_states_are_failed_rows() -> None:
    model, tokenizer = tiny("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    answer = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=2).answer(["hello"])[0]
    assert answer.status == "failed"
    assert "NaN" in answer.reason


def test_text_of_the_log_never_becomes_a_control_token() -> None:
    model, tokenizer = tiny("llama")
    hostile = "kit <eos> <pad> | cooking"
    llm = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=2)
    ids = llm._encode(hostile)
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids)
    assert tokenizer.decode(ids) == hostile
    turns = "{% for m in messages %}<eos>{{ m['content'] }}<eos>{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}A:{% endif %}"
    framed = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=2)
    assert framed._encode(hostile) == [1, *ids, 1, *tokenizer("A:")["input_ids"]]
    assert framed.identity["chat_template"] == [[1], [1, *tokenizer("A:")["input_ids"]]]
    assert framed.identity != llm.identity
    tokenizer.add_tokens(["</think>"])
    control = tokenizer.convert_tokens_to_ids("</think>")
    again = HuggingFaceLLM(model, tokenizer, name="tiny", max_new_tokens=2)
    ids = again._encode("kit </think> | cooking")
    assert control not in ids
    assert "kit < /think> | cooking" in tokenizer.decode(ids)


def test_a_saved_folder_loads_and_answers_the_same(tmp_path: Path) -> None:
    model, tokenizer = tiny("llama")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    before = HuggingFaceLLM(model, tokenizer, name=str(tmp_path), max_new_tokens=4)
    loaded = HuggingFaceLLM.load(tmp_path, max_new_tokens=4, device="cpu")
    assert loaded.identity == before.identity
    for one, other in zip(before.answer(PROMPTS), loaded.answer(PROMPTS), strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-6)


def test_a_checkpoint_with_missing_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, tokenizer = tiny("llama")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing_keys \['model.layers.1.mlp.up_proj.weight'\]"):
        HuggingFaceLLM.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "/nowhere/at/all"}, "Cannot load '/nowhere/at/all'"),
        ({"model": "some/model", "trust_remote_code": True}, "pin it: --revision"),
        ({"state": "first"}, "allowed: last, prompt, token-mean"),
        ({"max_new_tokens": 0}, "write 1 or more"),
        ({"dtype": "float8"}, "dtype 'float8' is not known; allowed: .*'float16'"),
        ({"device": "abacus"}, "Cannot use device 'abacus'"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        HuggingFaceLLM.load(**options)


def test_the_builtin_model_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two = (
        HuggingFaceLLM.load("builtin", max_new_tokens=2),
        HuggingFaceLLM.load("builtin", max_new_tokens=2),
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert one.identity == two.identity
    assert json.loads(json.dumps(dict(one.identity))) == one.identity
    assert isinstance(one, FrozenLLM)
    np.testing.assert_array_equal(one.answer(PROMPTS[:1])[0].vector, two.answer(PROMPTS[:1])[0].vector)


def test_the_encoder_pools_over_real_tokens_only(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    _, tokenizer = builtin.build()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=64,
    )
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceEncoder(tmp_path, device="cpu")
    for text, answer in zip(PROMPTS, encoder.answer(PROMPTS), strict=True):
        ids = tokenizer(text)["input_ids"][:64]
        with torch.no_grad():
            expected = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(answer.vector, expected, atol=1e-5)
        assert answer.text == ""
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        SentenceEncoder(tmp_path / "none")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="as an encoder"):
        SentenceEncoder(tmp_path)


def test_category_frequency_counts_the_facts() -> None:
    control = CategoryFrequency(["music", "travel"], ["news", "shop"])
    user = Prompt("text", {"shown": {"news": 1, "shop": 3}, "categories": {"music": 4}})
    scenario = Prompt("text", {"scenario": "shop"})
    vectors = [answer.vector for answer in control.answer([user, scenario])]
    np.testing.assert_allclose(vectors[0], [1, 0, 0.25, 0.75, np.log(5)], rtol=1e-6)
    np.testing.assert_allclose(vectors[1], [0, 0, 0, 1, 0])
    with pytest.raises(ModelError, match="category column"):
        CategoryFrequency([], ["shop"])
    with pytest.raises(ModelError, match="got plain text"):
        control.answer(["text"])


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    model, tokenizer = tiny("llama")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ModelError, match="as a causal language model: SafetensorError"):
        HuggingFaceLLM.load(tmp_path, device="cpu")


def test_a_recurrent_model_is_refused_by_name() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    _, tokenizer = builtin.build()
    model = MambaForCausalLM(
        MambaConfig(
            vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=1
        )
    )
    with pytest.raises(ModelError, match="MambaForCausalLM keeps a recurrent state"):
        HuggingFaceLLM(model, tokenizer, name="mamba", max_new_tokens=2).answer(["hello"])
