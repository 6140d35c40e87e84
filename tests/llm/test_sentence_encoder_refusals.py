"""What a sentence encoder refuses, and what it does when numbers or memory fail."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import COMMIT, Hub
from tiny_encoder import encoder_tokenizer, save_plain, save_whole

from msr_enhance.errors import ModelError
from msr_enhance.llm.sentence_encoder import SentenceEncoder

TEXTS = ["plain kit | cooking; bold set | music.", "a", "slow report | history; " * 12]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save_plain(tmp_path / "plain")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return save_whole(tmp_path / "whole")


def load(folder: Path, **options: Any) -> SentenceEncoder:
    return SentenceEncoder(folder, device="cpu", **options)


def weights_without(folder: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def test_missing_weights_are_refused_but_for_a_head_that_nobody_reads(plain: Path) -> None:
    before = load(plain).answer(TEXTS)
    weights_without(plain, "pooler")
    one, two = load(plain), load(plain)
    assert one.identity == two.identity
    np.testing.assert_array_equal(one.answer(TEXTS)[0].vector, before[0].vector)
    weights_without(plain, "layer.1.output")
    with pytest.raises(ModelError, match=r"lacks weights .*layer\.1\.output.*Random weights"):
        load(plain)


def test_code_of_a_repository_is_never_run(whole: Path) -> None:
    mark = whole / "ran"
    (whole / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Module: pass\n")
    modules = json.loads((whole / "modules.json").read_text())
    modules[0]["type"] = "evil.Module"
    (whole / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"needs code of its repository \(evil.Module\)"):
        load(whole)
    assert not mark.exists()


def test_code_for_a_model_type_is_never_run(plain: Path) -> None:
    mark = plain / "ran"
    (plain / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = json.loads((plain / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (plain / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="as a sentence encoder"):
        load(plain)
    assert not mark.exists()


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return open, (str(self.mark), "w")


def test_a_pickle_with_code_is_refused(plain: Path) -> None:
    (plain / "model.safetensors").unlink()
    with (plain / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"weight": Evil(plain / "ran")}, file)
    with pytest.raises(ModelError, match="as a sentence encoder"):
        load(plain)
    assert not (plain / "ran").exists()


def test_what_cannot_be_loaded_is_one_sentence(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="abacus"):
        SentenceEncoder(plain, device="abacus")
    with pytest.raises(ModelError, match="batch_size is 0"):
        load(plain, batch_size=0)
    (plain / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="as a sentence encoder: SafetensorError"):
        load(plain)
    (plain / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load(plain)
    (plain / "modules.json").write_text("{")
    (plain / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"modules\.json cannot be read"):
        load(plain)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'msr-enhance\[encoder\]'"):
        load(plain)


def test_a_hub_id_without_a_network_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="nobody/no-such-encoder could not be fetched"):
        SentenceEncoder("nobody/no-such-encoder")


FETCH = """
import json
from huggingface_hub import constants
from msr_enhance.llm.sentence_encoder import _folder
for offline in (False, True):
    constants.HF_HUB_OFFLINE = offline
    folder, commit = _folder("own/encoder", None)
    print(json.dumps([sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")), commit]))
"""


def test_a_hub_model_is_fetched_whole_without_code_and_then_needs_no_network(tmp_path: Path) -> None:
    wanted = ["1_Pooling/config.json", "2_Dense/model.safetensors", "config.json", "model.safetensors"]
    others = ["modeling.py", "onnx/model.safetensors", "pytorch_model.bin"]
    hub = Hub({"own/encoder": dict.fromkeys((*wanted, *others), b"{}")})
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    words = [sys.executable, "-c", FETCH]
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, check=False)
    hub.close()
    assert done.returncode == 0, done.stderr
    online, offline = map(json.loads, done.stdout.splitlines())
    assert online == offline == [wanted, COMMIT]


def test_what_does_not_begin_with_a_transformer_is_refused(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(encoder_tokenizer().backend_tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="begins with StaticEmbedding"):
        load(tmp_path)


def test_broken_numbers_are_a_failed_row(plain: Path) -> None:
    encoder = load(plain)
    with torch.no_grad():
        encoder._encoder[0].auto_model.encoder.layer[1].output.dense.bias[0] = float("nan")
    (answer,) = encoder.answer(TEXTS[:1])
    assert (answer.status, answer.reason) == ("failed", "the vector holds NaN or infinity")
    assert not answer.vector.any()


def test_less_memory_means_smaller_batches(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(plain, batch_size=8)
    expected = encoder.answer(TEXTS)
    real, asked = encoder._encoder.encode, []

    def cramped(texts: Any, *, batch_size: int, **options: Any) -> Any:
        asked.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(texts, batch_size=batch_size, **options)

    monkeypatch.setattr(encoder._encoder, "encode", cramped)
    for one, other in zip(encoder.answer(TEXTS), expected, strict=True):
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)
    assert asked == [8, 4, 2]
