"""Loading: a folder that is whole loads and answers the same, anything else is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin, checkpoint
from msr_enhance.llm.huggingface import HuggingFaceLLM

PROMPTS = ["In shop: plain kit | cooking; bold set | music.", "a", "In video: nothing yet."]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = builtin.build()[1]
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_saved_folder_answers_as_the_model_in_memory_does(saved: Path) -> None:
    tokenizer = builtin.build()[1]
    before = HuggingFaceLLM.of(
        tiny_model("llama", len(tokenizer)), tokenizer, name=str(saved), max_new_tokens=4
    )
    loaded = HuggingFaceLLM.load(saved, max_new_tokens=4, device="cpu")
    assert loaded.identity == before.identity
    for one, other in zip(before.answer(PROMPTS), loaded.answer(PROMPTS), strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-6)


def test_a_folder_is_known_by_its_content_and_its_last_name(folder: Path) -> None:
    before = HuggingFaceLLM.load(folder, device="cpu").identity
    moved = folder.parent / "elsewhere" / folder.name
    moved.parent.mkdir()
    folder.rename(moved)
    assert HuggingFaceLLM.load(f"{moved}/", device="cpu").identity == before
    config = json.loads((moved / "config.json").read_bytes())
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert HuggingFaceLLM.load(moved, device="cpu").identity != before


def test_half_precision_on_disk_is_read_as_float32_on_a_cpu(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({k: w.half() for k, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    model, _ = checkpoint.load(folder, device="cpu")
    assert model.dtype == torch.float32
    model, _ = checkpoint.load(folder, device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    with pytest.raises(ModelError, match=r"float16 on a CPU .* write --dtype float32"):
        checkpoint.load(folder, device="cpu", dtype="float16")


def test_the_outline_needs_no_weights_and_counts_them_all(folder: Path) -> None:
    model, known = checkpoint.load(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    outline = checkpoint.outline(folder)
    assert outline.parameters() == sum(weight.numel() for weight in model.parameters())
    assert (outline.name, outline.window) == (known.name, model.config.max_position_embeddings)
    for prompt in PROMPTS:
        assert outline.encode(prompt) == known.encode(prompt)
    assert checkpoint.outline("builtin").window == 8192


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"

    def write(content: dict[str, Any]) -> None:
        save_file(content, folder / "model.safetensors", {"format": "pt"})

    write({key: weight for key, weight in weights.items() if key != name})
    with pytest.raises(ModelError, match=rf"missing_keys \['{name}'\].*Random weights would be no knowledge"):
        checkpoint.load(folder, device="cpu")
    write({**weights, "model.layers.9.extra": torch.zeros(2)})
    with pytest.raises(ModelError, match=r"unexpected_keys .*layers.9.extra"):
        checkpoint.load(folder, device="cpu")
    write({**weights, name: torch.zeros(3, 3)})
    with pytest.raises(ModelError, match=r"mismatched_keys .*up_proj"):
        checkpoint.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"12345678", "its weights: SafetensorError"),
        ("model.safetensors", None, "its weights: OSError"),
        ("tokenizer.json", b"{", "its configuration or tokenizer"),
        ("tokenizer.json", None, "its configuration or tokenizer"),
        ("config.json", b"{]", "cannot be read.*Fetch the model again"),
        ("config.json", b"[]", "holds no JSON object"),
        ("config.json", None, r"holds no config\.json"),
        ("config.json", b'{"model_type": "abacus"}', "configuration"),
        (
            "config.json",
            b'{"model_type": "abacus", "auto_map": {"AutoConfig": "a.B"}}',
            "needs Python code of its repository.*--trust-remote-code",
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(
    folder: Path, file: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        checkpoint.load(folder, device="cpu")


def test_a_tokenizer_that_transformers_makes_up_is_refused(folder: Path) -> None:
    tiny_model("qwen2", 4096).save_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="knows no word of plain text"):
        checkpoint.load(folder, device="cpu")


def test_the_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    tiny_model("llama", 200).save_pretrained(folder)
    with pytest.raises(ModelError, match="ids up to 4095, and a model of 200 tokens"):
        checkpoint.load(folder, device="cpu")


def test_an_added_token_beyond_the_table_is_no_other_model(folder: Path) -> None:
    """As Gemma 3's image token; text never becomes it."""
    tokenizer = builtin.build()[1]
    tokenizer.add_tokens(["<image_soft_token>"])
    tokenizer.save_pretrained(folder)
    llm = HuggingFaceLLM.load(folder, device="cpu", max_new_tokens=2)
    (answer,) = llm.answer(["kit <image_soft_token> x"])
    assert answer.status == "ok"


def test_what_is_no_causal_model_is_refused_by_name(folder: Path) -> None:
    from transformers import T5Config, ViTConfig

    T5Config(d_model=8, num_layers=1, num_heads=1, vocab_size=4096).save_pretrained(folder)
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        checkpoint.load(folder, device="cpu")
    ViTConfig(hidden_size=8, num_hidden_layers=1).save_pretrained(folder)
    with pytest.raises(ModelError, match="'vit', of which transformers has no causal language model"):
        checkpoint.load(folder, device="cpu")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is an adapter .* merge it"):
        checkpoint.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "/nowhere/at/all"}, "neither a folder nor a model id"),
        ({"model": "some/model", "trust_remote_code": True}, "pin it: --revision"),
        ({"model": "some/model", "trust_remote_code": True, "revision": "main"}, "'main' could change"),
        ({"dtype": "float8"}, "dtype 'float8' is not known; allowed: .*'float16'"),
        ({"device": "abacus"}, "Cannot use device 'abacus'"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        HuggingFaceLLM.load(**options)


def test_a_broken_device_is_found_before_anything_is_fetched() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ModelError, match="Cannot use device 'cuda'"):
        checkpoint.load("some/model-that-does-not-exist", device="cuda")
