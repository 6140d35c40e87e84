"""The reader: what it answers, what it refuses, and what it does when memory runs out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import slow_answer, tiny_model

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin, huggingface
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.llm.protocol import CountsTokens, FrozenLLM, PlansBatches

PROMPTS = [
    "In shop: plain kit | cooking; bold set | music.",
    "a",
    "In news: " + "slow report | history; " * 12,
    "In video: nothing yet.",
    "Which interests are common?",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return builtin.build()[1]


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return tiny_model("llama", len(tokenizer))


def reader(model: Any, tokenizer: Any, **options: Any) -> HuggingFaceLLM:
    return HuggingFaceLLM.of(model, tokenizer, name="tiny", **options)


def test_answers_are_those_of_the_slow_loop_in_any_order_and_batch(model: Any, tokenizer: Any) -> None:
    alone = [slow_answer(model, tokenizer(text)["input_ids"], 5, ())[0] for text in PROMPTS]
    end = next(token for token in alone[0] if token not in {said[0] for said in alone})
    model.generation_config.eos_token_id = [end]
    small = reader(model, tokenizer, max_new_tokens=5, tokens_per_batch=1)
    large = reader(model, tokenizer, max_new_tokens=5)
    answers = small.answer(PROMPTS)
    for text, one, other in zip(PROMPTS, answers, large.answer(PROMPTS[::-1])[::-1], strict=True):
        ids = tokenizer(text)["input_ids"]
        said, ended, states, _ = slow_answer(model, ids, 5, {end, tokenizer.eos_token_id})
        assert one.text == other.text == tokenizer.decode(said, skip_special_tokens=True)
        assert (one.prompt_tokens, one.answer_tokens) == (len(ids), len(said))
        assert one.reason == ("end" if ended else "length")
        np.testing.assert_allclose(one.vector, states[-1], atol=2e-5)
        np.testing.assert_allclose(other.vector, states[-1], atol=2e-5)
    assert {answer.reason for answer in answers} == {"end", "length"}
    assert dict(small.identity) == dict(large.identity)


def test_it_plans_every_prompt_once_by_length_within_the_budget(model: Any, tokenizer: Any) -> None:
    llm = reader(model, tokenizer, max_new_tokens=3, tokens_per_batch=60)
    assert isinstance(llm, FrozenLLM)
    assert isinstance(llm, CountsTokens)
    assert isinstance(llm, PlansBatches)
    lengths = llm.count_tokens(PROMPTS)
    assert lengths == [len(tokenizer(text)["input_ids"]) for text in PROMPTS]
    batches = llm.batches(PROMPTS)
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(len(PROMPTS)))
    assert all(len(rows) * (max(lengths[r] for r in rows) + 3) <= 60 for rows in batches if len(rows) > 1)
    assert 1 < len(batches) < len(PROMPTS)


@pytest.mark.parametrize("fits", [0, 110, 130, 250])
def test_a_batch_that_does_not_fit_is_halved_and_only_its_rows_are_read_again(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    expected = reader(model, tokenizer, max_new_tokens=4).answer(PROMPTS)
    true_greedy, read = huggingface.greedy, []

    def tokens(prompts: Sequence[Sequence[int]]) -> int:
        return len(prompts) * (max(map(len, prompts)) + 4)

    def greedy(model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> Any:
        if tokens(prompts) > fits:
            kind = (torch.OutOfMemoryError, RuntimeError)[len(prompts) % 2]
            raise kind("CUDA out of memory")
        read.extend(map(len, prompts))
        return true_greedy(model, prompts, **options)

    monkeypatch.setattr(huggingface, "greedy", greedy)
    llm = reader(model, tokenizer, max_new_tokens=4)
    answers = llm.answer(PROMPTS)
    if not fits:
        assert {answer.reason for answer in answers} == {"out of memory, alone in its batch"}
        assert {answer.status for answer in answers} == {"failed"}
        return
    lengths = llm.count_tokens(PROMPTS)
    assert max(lengths) + 4 < 110 < tokens([[0] * max(lengths)] * 2), "one row fits, all rows do not"
    assert sorted(read) == sorted(lengths), "a row was read twice or never"
    for one, other in zip(answers, expected, strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.vector, other.vector, atol=2e-5)
    for rows in llm.batches(PROMPTS):
        assert tokens([[0] * lengths[row] for row in rows]) <= fits, "the size that works is not remembered"


def test_other_errors_of_the_model_are_not_taken_for_missing_memory(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(huggingface, "greedy", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        reader(model, tokenizer).answer(PROMPTS)


def test_the_prompts_state_generates_nothing(model: Any, tokenizer: Any) -> None:
    llm = reader(model, tokenizer, state="prompt")
    for text, answer in zip(PROMPTS, llm.answer(PROMPTS), strict=True):
        _, _, states, _ = slow_answer(model, tokenizer(text)["input_ids"], 0, ())
        np.testing.assert_allclose(answer.vector, states[-1], atol=2e-5)
        assert (answer.text, answer.reason) == ("", "no text")


def test_token_mean_is_the_mean_of_input_embeddings(model: Any, tokenizer: Any) -> None:
    weight = model.get_input_embeddings().weight.detach()
    answers = reader(model, tokenizer, state="token-mean").answer(PROMPTS)
    for text, answer in zip(PROMPTS, answers, strict=True):
        np.testing.assert_allclose(answer.vector, weight[tokenizer(text)["input_ids"]].mean(0), atol=1e-5)


def test_several_layers_are_one_vector_each(model: Any, tokenizer: Any) -> None:
    llm = reader(model, tokenizer, max_new_tokens=3, layers=[1, -1])
    assert llm.shape == (2, 32)
    for text, answer in zip(PROMPTS, llm.answer(PROMPTS), strict=True):
        _, _, states, _ = slow_answer(model, tokenizer(text)["input_ids"], 3, {tokenizer.eos_token_id})
        np.testing.assert_allclose(answer.vector, torch.stack([states[1], states[3]]), atol=2e-5)


def test_every_option_that_changes_a_vector_changes_the_identity(model: Any, tokenizer: Any) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"state": "last_step"},
        {"state": "prompt"},
        {"state": "token-mean"},
        {"layers": [1, 2]},
        {"layers": [2, 1]},
        {"before_norm": True},
        {"max_new_tokens": 8},
        {"max_prompt_tokens": 64},
    ]
    seen = [json.dumps(dict(reader(model, tokenizer, **each).identity), sort_keys=True) for each in options]
    assert len(set(seen)) == len(options)
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 5e5}
    seen.append(json.dumps(dict(reader(model, tokenizer).identity), sort_keys=True))
    assert len(set(seen)) == len(options) + 1, "a number of config.json that changes every vector"
    model.lm_head.weight.data[0] += 1
    assert json.dumps(dict(reader(model, tokenizer).identity), sort_keys=True) not in seen


def test_a_first_end_token_is_a_failed_row_not_a_vector_of_the_prompt(model: Any, tokenizer: Any) -> None:
    first = slow_answer(model, tokenizer(PROMPTS[0])["input_ids"], 1, ())[0]
    model.generation_config.eos_token_id = first
    answer = reader(model, tokenizer, max_new_tokens=4).answer(PROMPTS[:1])[0]
    assert answer.status == "failed"
    assert "before its first visible token" in answer.reason
    assert not answer.vector.any()


def test_a_prompt_over_the_window_fails_alone(model: Any, tokenizer: Any) -> None:
    model.config.max_position_embeddings = 60
    llm = reader(model, tokenizer, max_new_tokens=4)
    assert llm.prompt_limit == 56
    answers = llm.answer([*PROMPTS, ""])
    assert [answer.status for answer in answers] == ["ok", "ok", "failed", "ok", "ok", "failed"]
    assert "56 leave room for 4 of an answer" in answers[2].reason
    assert answers[5].reason == "the prompt has no tokens"
    assert reader(model, tokenizer, max_new_tokens=4, max_prompt_tokens=20).prompt_limit == 20
    with pytest.raises(ModelError, match="window of 60 tokens, which 60 tokens of answer fill"):
        reader(model, tokenizer, max_new_tokens=60)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_a_failed_row_and_spares_its_neighbours(
    model: Any, tokenizer: Any, broken: float
) -> None:
    expected = reader(model, tokenizer, max_new_tokens=2).answer(PROMPTS)
    word = tokenizer(" report")["input_ids"]  # only the third prompt holds it
    with torch.no_grad():
        model.get_input_embeddings().weight[word] = broken
    answers = reader(model, tokenizer, max_new_tokens=2).answer(PROMPTS)
    assert [answer.status for answer in answers] == ["ok", "ok", "failed", "ok", "ok"]
    assert "NaN or infinity" in answers[2].reason
    for row in (0, 1, 3, 4):
        np.testing.assert_allclose(answers[row].vector, expected[row].vector, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "first"}, "allowed: 'last', 'last_step', 'prompt', 'token-mean'"),
        ({"max_new_tokens": 0}, "write 1 or more"),
        ({"layers": [9]}, "from 0 .embedding. to 3"),
        ({"state": "token-mean", "layers": [1]}, "runs no layer"),
    ],
)
def test_mistakes_are_named(model: Any, tokenizer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        reader(model, tokenizer, **options)


def test_a_recurrent_model_is_refused_by_name(tokenizer: Any) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    size = {"vocab_size": len(tokenizer), "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}
    with pytest.raises(ModelError, match="MambaForCausalLM keeps a recurrent state"):
        reader(MambaForCausalLM(MambaConfig(**size, eos_token_id=1)), tokenizer)


def test_the_builtin_model_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two = (HuggingFaceLLM.load("builtin", max_new_tokens=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.identity == two.identity
    assert json.loads(json.dumps(dict(one.identity))) == one.identity
    np.testing.assert_array_equal(one.answer(PROMPTS[:1])[0].vector, two.answer(PROMPTS[:1])[0].vector)
