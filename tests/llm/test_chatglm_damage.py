"""Weight files that are not whole, not plain, or another model's: refused, never filled at random."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chatglm_checkpoint import CURRENT, LAYER, stored, write_checkpoint, write_weights
from safetensors.torch import save_file

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm.config import native_config
from msr_enhance.llm.chatglm.weights import load_weights

INDEX = "pytorch_model.bin.index.json"
SHARD = "pytorch_model-00002-of-00003.bin"
FUSED = f"{LAYER}.1.self_attention.query_key_value.weight"
Tensors = dict[str, Any]


class Call:
    """Pickled, it asks the reader to run a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return stored()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path)
    return tmp_path


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        load_weights(folder, native_config(CURRENT, "chatglm2"), "float32")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(FUSED), rf"1 missing: {FUSED}\. Random weights"),
        (lambda t: t.pop("transformer.output_layer.weight"), "1 missing: transformer.output_layer.weight"),
        (
            lambda t: t.pop(f"{LAYER}.0.self_attention.query_key_value.bias"),
            "1 missing: .*query_key_value.bias",
        ),
        (
            lambda t: t.update({"classifier_head.weight": torch.ones(2)}),
            "1 unexpected: classifier_head.weight",
        ),
        (
            lambda t: t.update({f"{LAYER}.3.input_layernorm.weight": torch.ones(32)}),
            r"1 unexpected: .*layers\.3\.",
        ),
        (
            lambda t: t.update({FUSED: t[FUSED][:-1]}),
            rf"of another shape: {FUSED} is \(63, 32\) where .* \(64, 32\)",
        ),
        (lambda t: t.update({FUSED: t[FUSED].T.contiguous()}), r"of another shape: .* is \(32, 64\)"),
        (
            lambda t: t.update({"transformer.embedding.word_embeddings.weight": torch.ones(500, 32)}),
            r"of another shape: .*word_embeddings.weight is \(500, 32\) where config.json says \(512, 32\)",
        ),
        (lambda t: t.update({FUSED: t[FUSED].to(torch.int8)}), rf"'{FUSED}' is torch.int8.*Packed"),
        (lambda t: t.clear(), r"24 missing: .*, \.\.\."),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, tensors: Tensors, kind: str, change: Callable[[Tensors], Any], message: str
) -> None:
    changed = dict(tensors)
    change(changed)
    write_weights(tmp_path, changed, kind, shards=1)
    refused(tmp_path, message)


def test_native_names_are_not_taken_for_chatglms(tmp_path: Path, tensors: Tensors) -> None:
    write_weights(tmp_path, {name.replace("transformer.", "model."): one for name, one in tensors.items()})
    refused(tmp_path, r"24 missing: .*24 unexpected: ")


def test_an_interrupted_download_names_the_missing_shards(folder: Path) -> None:
    (folder / SHARD).unlink()
    refused(folder, rf"lacks 1 of 3 weight files: {SHARD}\. The download was interrupted")
    (folder / INDEX).unlink()
    refused(folder, "holds no weights; looked for: model.safetensors, .*pytorch_model.bin.index.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tensor file",
        b"PK\x03\x04 half a zip file",
        b"\x80\x02}q\x00.",  # a pickled dict of nothing, without torch's frame
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    ],
)
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_file_that_holds_no_tensors_is_named(
    tmp_path: Path, tensors: Tensors, kind: str, content: bytes
) -> None:
    file = write_weights(tmp_path, tensors, kind)[1]
    file.write_bytes(content)
    said = "git lfs pull" if content.startswith(b"version") else "cannot be read as plain tensors"
    refused(tmp_path, rf"{file.name}.*{said}")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, tensors: Tensors, kind: str) -> None:
    file = write_weights(tmp_path, tensors, kind)[0]
    whole = file.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 100):
        file.write_bytes(whole[:kept])
        refused(tmp_path, rf"{file.name} cannot be read as plain tensors")


def test_a_pickle_that_wants_to_run_something_is_refused_and_does_not_run(
    folder: Path, tensors: Tensors
) -> None:
    mark = folder / "it-ran"
    for zipped in (True, False):
        torch.save({**tensors, "more": Call(mark)}, folder / SHARD, _use_new_zipfile_serialization=zipped)
        refused(folder, rf"{SHARD} cannot be read as plain tensors")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list, not tensors by name"),
        ({"epoch": 3}, "'epoch' is int"),
        ({3: torch.ones(2)}, "3 is torch.float32; allowed: plain"),
        ({"a": torch.ones(2, 2).to_sparse()}, "'a' is torch.float32; allowed: plain"),
        ({"a": torch.ones(2, device="meta")}, "'a' is torch.float32; allowed: plain"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, "'a' is torch.float8_e4m3fn"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict' is dict"),
    ],
)
def test_a_bin_file_holds_plain_tensors_by_name_and_nothing_else(
    folder: Path, content: Any, message: str
) -> None:
    torch.save(content, folder / SHARD)
    refused(folder, rf"{SHARD}.*{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("\ud800", "cannot be read"),
        ("[]", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": {"a": "../pytorch_model.bin"}}', r"names '\.\./pytorch_model.bin' as a shard"),
        ('{"weight_map": {"a": "/etc/passwd.bin"}}', "names '/etc/passwd.bin' as a shard"),
        (
            '{"weight_map": {"a": "modeling_chatglm.py"}}',
            r"names 'modeling_chatglm.py' as a shard.*\.bin file",
        ),
        ('{"weight_map": {"a": null}}', "names 'None' as a shard"),
        ('{"weight_map": {"a": "gone.bin"}}', "lacks 1 of 1 weight files: gone.bin"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(folder: Path, content: str, message: str) -> None:
    (folder / INDEX).write_bytes(content.encode("utf-8", "surrogatepass"))
    refused(folder, rf"{message}")


def test_a_tensor_that_two_shards_hold_is_refused(folder: Path, tensors: Tensors) -> None:
    name = "transformer.encoder.final_layernorm.weight"
    torch.save({name: tensors[name]}, folder / SHARD)
    refused(folder, f"holds {name} a second time")


def test_safetensors_come_before_bin_files(folder: Path, tensors: Tensors) -> None:
    for file in folder.glob("*.bin"):
        file.write_bytes(b"damaged")
    save_file(tensors, folder / "model.safetensors")
    load_weights(folder, native_config(CURRENT, "chatglm2"), "float32")


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(
        ModelError, match="dtype 'int8' is not known; allowed: 'float32', 'bfloat16', 'float16'"
    ):
        load_weights(folder, native_config(CURRENT, "chatglm2"), "int8")


def test_a_zip_file_without_tensors_is_refused(folder: Path) -> None:
    with zipfile.ZipFile(folder / SHARD, "w") as file:
        file.writestr("readme.txt", json.dumps({}))
    refused(folder, f"{SHARD} cannot be read as plain tensors")
