"""Against what the published ChatGLM2 code computed (../shared/data beside the checkout)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from msr_enhance.llm.chatglm.chat import chat_format
from msr_enhance.llm.chatglm.config import native_config
from msr_enhance.llm.chatglm.tokenizer import load_tokenizer
from msr_enhance.llm.chatglm.weights import load_weights

FOLDER = Path(__file__).parents[3] / "shared/data/chatglm2_tiny"
NAME = "THUDM/chatglm2-6b"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared checkpoint is not here")


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "config.json").read_bytes()))


@pytest.fixture(scope="module")
def model(raw: dict[str, Any]) -> Any:
    return load_weights(FOLDER, native_config(raw, NAME), "float32")


@pytest.fixture(scope="module")
def tokenizer(raw: dict[str, Any]) -> Any:
    return load_tokenizer(FOLDER, raw)


@pytest.fixture(scope="module")
def states() -> dict[str, Any]:
    with np.load(FOLDER / "expected_float32.npz", allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@pytest.fixture(scope="module")
def tokens() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "expected_tokens.json").read_bytes()))


@torch.inference_mode()
def forward(model: Any, ids: Any, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States `[layers + 1, batch, tokens, dim]` with the last before the norm, after it, and last logits."""
    before: list[Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: before.append(args[0]))
    try:
        out = model(torch.as_tensor(ids), output_hidden_states=True, logits_to_keep=1, **options)
    finally:
        handle.remove()
    layers = torch.stack([*out.hidden_states[:-1], before[0]])
    return layers.numpy(), out.hidden_states[-1].numpy(), out.logits[:, -1].numpy()


@torch.inference_mode()
def generate(model: Any, ids: Any, mask: Any, new: int, ends: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Greedy ids `[batch, new]`, and the last position's state before the norm `[new, batch, dim]`."""
    before: list[Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: before.append(args[0][:, -1].clone()))
    try:
        out = model.generate(
            torch.as_tensor(ids),
            attention_mask=torch.as_tensor(mask),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=0,
        )
    finally:
        handle.remove()
    return out[:, ids.shape[1] :].numpy(), torch.stack(before).numpy()


@pytest.mark.parametrize("number", range(7))
def test_every_layer_of_single_prompts(model: Any, states: dict[str, Any], number: int) -> None:
    expected = {
        key: states[f"s{number}_{key}"] for key in ("ids", "hs", "final", "logits", "gen", "gen_hs_last")
    }
    layers, final, logits = forward(model, expected["ids"])
    np.testing.assert_allclose(layers, expected["hs"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(final, expected["final"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5, rtol=0)
    ids, last = generate(model, expected["ids"], np.ones_like(expected["ids"]), 16, ends=[])
    assert ids.tolist() == expected["gen"].tolist()
    np.testing.assert_allclose(last, expected["gen_hs_last"], atol=1e-5, rtol=0)


def test_a_left_padded_batch(model: Any, states: dict[str, Any]) -> None:
    ids, mask = states["b_input_ids"], states["b_attention_mask"]
    places = torch.as_tensor(states["b_position_ids"])
    layers, final, logits = forward(model, ids, attention_mask=torch.as_tensor(mask), position_ids=places)
    real = mask.astype(bool)
    np.testing.assert_allclose(layers[:, real], states["b_hs"][:, real], atol=1e-5, rtol=0)
    np.testing.assert_allclose(final[real], states["b_final"][real], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits, states["b_logits"], atol=1e-5, rtol=0)
    answers, last = generate(model, ids, mask, 16, ends=[])
    assert answers.tolist() == states["b_gen"].tolist()
    np.testing.assert_allclose(last, states["b_gen_hs_last"], atol=1e-5, rtol=0)


def test_rows_that_end_at_different_steps(model: Any, states: dict[str, Any]) -> None:
    ids, mask, ends = states["b_input_ids"], states["b_attention_mask"], states["e_eos"].tolist()
    answers, last = generate(model, ids, mask, 16, ends=ends)
    assert answers.tolist() == states["e_gen"].tolist()
    assert (states["e_gen"] == 0).any()  # some rows did end early
    alive = np.ones(len(ids), bool)
    for step, row in enumerate(states["e_gen"].T):
        np.testing.assert_allclose(last[step, alive], states["e_gen_hs_last"][step, alive], atol=1e-5, rtol=0)
        alive &= ~np.isin(row, ends)
    # The forward over prompt and answer: what an extra step must give.
    whole = states["e_seq"]
    full = np.concatenate([mask, np.ones_like(answers)], 1)
    places = torch.as_tensor(np.maximum(full.cumsum(1) - 1, 0))
    layers, final, _ = forward(model, whole, attention_mask=torch.as_tensor(full), position_ids=places)
    for row, answer in enumerate(states["e_gen"]):
        said = np.flatnonzero(np.isin(answer, ends))
        seen = slice(int((1 - mask[row]).sum()), ids.shape[1] + (int(said[0]) + 1 if len(said) else 16))
        np.testing.assert_allclose(
            layers[-1, row, seen], states["e_full_prenorm"][row, seen], atol=1e-5, rtol=0
        )
        np.testing.assert_allclose(final[row, seen], states["e_full_final"][row, seen], atol=1e-5, rtol=0)


def test_every_string_gives_the_published_ids_and_text(tokenizer: Any, tokens: dict[str, Any]) -> None:
    assert len(tokens["rows"]) == 1110
    for row in tokens["rows"]:
        ids = row["ids"]
        assert tokenizer(row["s"])["input_ids"] == ids, row["s"]
        assert tokenizer.decode(ids) == row["dec"], row["s"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == row["dec_skip"], row["s"]
        assert tokenizer.decode(ids[2:]) == row["dec_noprefix"], row["s"]
        assert tokenizer.decode(ids[3:]) == row["tail"], row["s"]
        assert tokenizer.decode([*ids, 2]) == row["dec_eos"], row["s"]


def test_batches_pairs_and_truncation_are_the_published_ones(tokenizer: Any, tokens: dict[str, Any]) -> None:
    texts = tokens["batch"]["s"]
    batch = tokenizer(texts, padding=True)
    assert batch["input_ids"] == tokens["batch"]["ids"]
    assert batch["attention_mask"] == tokens["batch"]["mask"]
    cut = tokenizer(texts, padding=True, truncation=True, max_length=12)
    assert cut["input_ids"] == tokens["trunc"]["ids"]
    assert cut["attention_mask"] == tokens["trunc"]["mask"]
    assert tokenizer("hello", "world")["input_ids"] == tokens["pair"]
    assert tokenizer("hello", add_special_tokens=False)["input_ids"] == tokens["no_special"]


def test_the_chat_formats_have_the_published_ids(
    tokenizer: Any, raw: dict[str, Any], tokens: dict[str, Any]
) -> None:
    two, three = (chat_format(tokenizer, raw, name) for name in (NAME, "THUDM/chatglm3-6b"))
    assert two is not None
    assert three is not None
    expected = [
        64790,
        64792,
        790,
        30951,
        517,
        30910,
        30939,
        30996,
        13,
        13,
        54761,
        31211,
        5473,
        13,
        13,
        55437,
        31211,
    ]
    assert two.encode("hi") == expected  # prompt 4 of the oracle
    assert three.encode("hi") == [64790, 64792, 64795, 30910, 13, 14980, 64796]
    assert three.end_ids == {64795, 64797}
    # History is not offered, but the last round of the published prompt has the same form.
    last = tokens["chat"].split("[Round 2]")[1]
    assert last == f"{two.before}q2{two.after}".removeprefix("[Round 1]")
