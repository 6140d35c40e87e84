"""Sentence vectors against a plain loop over one text at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoder import ENCODER_WINDOW, MARKS, encoder_model, encoder_tokenizer, save_plain, save_whole

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import ModelError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.protocol import CountsTokens, FrozenLLM
from msr_enhance.llm.sentence_encoder import SentenceEncoder

TEXTS = [
    "plain kit | cooking; bold set | music.",
    "a",
    "slow report | history; " * 12,
    "nothing yet.",
    "kit [SEP] [MASK] [PAD] | cooking",
]


@pytest.fixture(scope="module")
def model() -> Any:
    return encoder_model()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save_plain(tmp_path / "plain")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return save_whole(tmp_path / "whole")


def load(folder: Path, **options: Any) -> SentenceEncoder:
    return SentenceEncoder(folder, device="cpu", **options)


@torch.no_grad()
def states(model: Any, text: str) -> tuple[torch.Tensor, int]:
    """Last hidden states `[tokens, dim]` of one text cut at the window, and its whole length."""
    words = encoder_tokenizer()
    inner = words(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids = [words.cls_token_id, *inner[: ENCODER_WINDOW - 2], words.sep_token_id]
    return model(torch.tensor([ids])).last_hidden_state[0], len(inner) + 2


def test_a_plain_folder_is_pooled_over_the_real_tokens_of_each_text(plain: Path, model: Any) -> None:
    encoder = load(plain)
    assert all(isinstance(encoder, kind) for kind in (FrozenLLM, CountsTokens))
    assert (encoder.shape, encoder.prompt_limit) == ((32,), ENCODER_WINDOW)
    lengths = encoder.count_tokens(TEXTS)
    for text, answer, length in zip(TEXTS, encoder.answer(TEXTS), lengths, strict=True):
        expected, whole_length = states(model, text)
        assert length == whole_length
        np.testing.assert_allclose(answer.vector, expected.mean(0), atol=1e-5)
        assert (answer.text, answer.status, answer.answer_tokens) == ("", "ok", 0)
        assert answer.prompt_tokens == min(length, ENCODER_WINDOW)
        cut = f"no text; the last {length - ENCODER_WINDOW} of {length} tokens were cut"
        assert answer.reason == (cut if length > ENCODER_WINDOW else "no text")
    assert max(lengths) > ENCODER_WINDOW


def test_a_folder_says_itself_how_to_pool_and_what_to_put_before(whole: Path, model: Any) -> None:
    for options, before in (({}, "query: "), ({"prompt_name": "none"}, "")):
        encoder = load(whole, **options)
        for text, answer in zip(TEXTS, encoder.answer(TEXTS), strict=True):
            first = states(model, before + text)[0][0]
            np.testing.assert_allclose(answer.vector, first / first.norm(), atol=1e-5)
        assert encoder.count_tokens(["a"]) == [states(model, before + "a")[1]]
    with pytest.raises(ModelError, match=r"prompt_name 'queri' is not known.*Did you mean 'query'"):
        load(whole, prompt_name="queri")


def test_text_of_the_log_never_becomes_a_control_token(plain: Path) -> None:
    words = encoder_tokenizer()
    words.add_tokens(["</think>"])
    words.save_pretrained(plain)
    encoder = load(plain)
    seen: list[Any] = []
    encoder._encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]["input_ids"]))
    encoder.answer(["kit [SEP][CLS] [MASK] [PAD] </think> | cooking"])
    (ids,) = seen[0].tolist()
    marks = set(words.convert_tokens_to_ids([*MARKS, "</think>"])) - {words.unk_token_id}
    assert [one for one in ids if one in marks] == [words.cls_token_id, words.sep_token_id]
    assert (ids[0], ids[-1]) == (words.cls_token_id, words.sep_token_id)


def test_batch_size_and_order_change_nothing(plain: Path) -> None:
    small, large = load(plain, batch_size=1), load(plain)
    for one, other in zip(small.answer(TEXTS), large.answer(TEXTS[::-1])[::-1], strict=True):
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)
    assert small.identity == large.identity
    assert small.answer([]) == small.count_tokens([]) == []


def test_the_identity_names_what_changes_a_vector(plain: Path, whole: Path) -> None:
    one = load(plain)
    assert json.loads(json.dumps(dict(one.identity))) == one.identity
    one.answer(TEXTS)
    assert one.identity == load(plain).identity
    other = load(whole)
    assert one.identity["weights"] == other.identity["weights"]
    assert one.identity["modules"] != other.identity["modules"]
    assert other.identity["prompt"] == "query: "
    assert other.identity != load(whole, prompt_name="none").identity


def test_positions_that_begin_later_leave_a_shorter_window(tmp_path: Path) -> None:
    """RoBERTa's table has a place for the padding id, and its tokenizer may state no limit."""
    model = encoder_model("Roberta", pad_token_id=0)
    model.save_pretrained(tmp_path)
    encoder_tokenizer().save_pretrained(tmp_path)
    encoder = load(tmp_path)
    assert encoder.prompt_limit == ENCODER_WINDOW - 1
    assert encoder.answer([TEXTS[2]])[0].prompt_tokens == ENCODER_WINDOW - 1


def test_an_encoder_with_a_chat_template_still_reads_plain_text(plain: Path, model: Any) -> None:
    encoder_tokenizer(
        chat_template="{% for m in messages %}[CLS]{{ m['content'] }}[SEP]{% endfor %}"
    ).save_pretrained(plain)
    (answer,) = load(plain).answer(TEXTS[:1])
    np.testing.assert_allclose(answer.vector, states(model, TEXTS[0])[0].mean(0), atol=1e-5)


def test_prompts_over_the_window_lose_their_oldest_rows_and_not_their_end(
    plain: Path, titled_log: Any, tmp_path: Path
) -> None:
    encoder_model(max_position_embeddings=400).save_pretrained(plain)
    encoder = load(plain)
    table = InteractionTable.from_arrays(titled_log(users=3, each=200))
    store = KnowledgeExtractor(encoder, history=100).extract(table, tmp_path / "store")
    for user in table.user_ids:
        record = store.record("user", user)
        assert (record.status, record.text) == ("truncated", "")
        assert record.facts["reason"] == "no text"
        assert sum(record.facts["dropped"].values()) > 0
        assert record.prompt_tokens == encoder.count_tokens([record.prompt])[0] <= 400


def test_scenarios_are_known_to_an_encoder_with_a_small_window(
    plain: Path, titled_log: Any, tmp_path: Path
) -> None:
    table = InteractionTable.from_arrays(titled_log(users=3))
    whole = KnowledgeExtractor(_encoder(plain, 2_000)).extract(table, tmp_path / "whole")
    longest = max(whole.record("scenario", name).prompt_tokens for name in table.scenarios)
    encoder = _encoder(plain, longest - 10)
    store = KnowledgeExtractor(encoder).extract(table, tmp_path / "store")
    assert store.statuses("scenario") == ["truncated", "truncated"]
    records = [store.record("scenario", name) for name in table.scenarios]
    assert [record.facts["dropped"] for record in records] == [["shop"], ["feed"]]
    for record in records:
        assert record.prompt_tokens == encoder.count_tokens([record.prompt])[0] < longest - 10
        assert record.facts["reason"] == "no text", "nothing was cut at the end"
    assert np.abs(records[0].vector - records[1].vector).max() > 1e-4


def _encoder(folder: Path, window: int) -> SentenceEncoder:
    encoder_model(max_position_embeddings=window).save_pretrained(folder)
    return load(folder)
