"""Converted weights against a plain GLM that was filled by hand."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from chatglm_checkpoint import CURRENT, FIRST, LAYER, by_hand, states, write_checkpoint
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from msr_enhance.llm.chatglm.config import native_config
from msr_enhance.llm.chatglm.weights import load_weights

IDS = torch.tensor([[300, 301, 17, 4, 99, 2, 404, 33, 258, 300, 7, 500]])
BATCH = torch.tensor([[0, 0, 0, 41, 77, 5], [9, 300, 41, 2, 8, 6]])
MASK = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
# Other sizes of the three parts of query_key_value, and one part without a bias.
OTHER = {**CURRENT, "num_attention_heads": 6, "multi_query_group_num": 3, "num_layers": 1, "hidden_size": 24}


def load(folder: Path, raw: dict[str, Any] = CURRENT, name: str = "chatglm2", dtype: str = "float32") -> Any:
    return load_weights(folder, native_config(raw, name), dtype)


def furthest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("chatglm")
    tensors = write_checkpoint(folder)
    return load(folder), tensors


@pytest.mark.parametrize(
    ("kind", "shards", "raw"),
    [
        ("bin", 3, CURRENT),
        ("bin", 1, FIRST),
        ("safetensors", 3, FIRST),
        ("safetensors", 1, CURRENT),
        ("bin", 2, OTHER),
        ("safetensors", 2, {**OTHER, "add_qkv_bias": False}),
    ],
)
def test_every_layout_gives_the_states_of_glm_filled_by_hand(
    tmp_path: Path, kind: str, shards: int, raw: dict[str, Any]
) -> None:
    tensors = write_checkpoint(tmp_path, raw, kind=kind, shards=shards)
    model, expected = load(tmp_path, raw), by_hand(tensors, raw)
    assert furthest(states(model, IDS), states(expected, IDS)) == 0
    batch = [states(one, BATCH, attention_mask=MASK) for one in (model, expected)]
    assert furthest(*batch) == 0
    answers = [one.generate(IDS, max_new_tokens=6, do_sample=False).tolist() for one in (model, expected)]
    assert answers[0] == answers[1]
    assert not model.training


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": "qvk"},
        {"swapped": True},
        {"rope": {"rope_theta": 10100.0}},
        {"rope": {"partial_rotary_factor": 1.0}},
        {"rms_norm_eps": 1.5625e-7},
    ],
)
def test_the_comparison_sees_a_wrong_conversion(whole: tuple[Any, Any], wrong: dict[str, Any]) -> None:
    model, tensors = whole
    assert furthest(states(model, IDS), states(by_hand(tensors), IDS)) == 0
    assert furthest(states(model, IDS), states(by_hand(tensors, **wrong), IDS)) > 1e-5


def test_every_stored_tensor_matters(whole: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """A weight that the comparison could not see might as well be random."""
    model, tensors = whole
    expected = states(model, IDS)
    for name, tensor in tensors.items():
        if name.endswith("inv_freq"):
            continue
        changed = by_hand({**tensors, name: tensor * 1.25})
        assert furthest(expected, states(changed, IDS)) > 1e-3, name


def test_the_32k_relatives_rotate_as_each_generation_means_it(tmp_path: Path) -> None:
    raw = {**CURRENT, "rope_ratio": 4, "_name_or_path": ""}
    tensors = write_checkpoint(tmp_path, raw)
    plain, places = by_hand(tensors), torch.arange(IDS.shape[1])[None]
    two = load(tmp_path, raw, "THUDM/chatglm2-6b-32k")
    # Stretched positions: token n stands where token n / 4 of the plain model would.
    assert furthest(states(two, IDS), states(plain, IDS, position_ids=places / 4)) < 1e-5
    assert furthest(states(two, IDS), states(plain, IDS)) > 1e-3
    three = load(tmp_path, raw, "THUDM/chatglm3-6b-32k")
    expected = by_hand(tensors, rope={"rope_theta": 40000.0})
    assert furthest(states(three, IDS), states(expected, IDS)) == 0
    assert furthest(states(three, IDS), states(two, IDS)) > 1e-3


def test_half_precision_is_converted_while_loading_and_rotations_stay_exact(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    config = native_config(CURRENT, "chatglm2")
    for dtype in (torch.float16, torch.bfloat16):
        model = load_weights(tmp_path, config, str(dtype).removeprefix("torch."))
        assert {weight.dtype for weight in model.parameters()} == {dtype}
        assert model.config.dtype == model.dtype == dtype
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32
        stored = tensors["transformer.output_layer.weight"].to(dtype)
        assert torch.equal(model.lm_head.weight, stored)
    assert config.dtype == torch.float16  # the caller's own stays as it was


def test_two_checkpoints_of_different_sizes_load_one_after_the_other_and_at_once(tmp_path: Path) -> None:
    folders = {}
    for number, raw in enumerate((CURRENT, OTHER)):
        folders[number] = (tmp_path / str(number), raw)
        write_checkpoint(*folders[number], seed=number)
    expected = [states(load(*folders[number]), IDS) for number in folders]
    turns = [0, 1] * 6
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda number: load(*folders[number]), turns))
    for number, model in zip(turns, models, strict=True):
        assert furthest(states(model, IDS), expected[number]) == 0


def test_loading_is_quiet_and_changes_nothing_global(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "modeling_chatglm.py").write_text("raise SystemExit('code of the folder ran')")
    (tmp_path / "configuration_chatglm.py").write_text("raise SystemExit('code of the folder ran')")
    started: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))
    before = (torch.get_rng_state(), torch.get_default_dtype())
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_default_dtype() == before[1]
    assert get_checkpoint_conversion_mapping("chatglm") is None
    assert not started  # transformers would ask a conversion service in one
    assert capfd.readouterr() == ("", "")


def test_weights_in_full_precision_and_in_double_are_read_too(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    for kind in (torch.float32, torch.float64):
        torch.save({name: one.to(kind) for name, one in tensors.items()}, tmp_path / "pytorch_model.bin")
        assert furthest(states(load(tmp_path), IDS), states(by_hand(tensors), IDS)) == 0


def test_parameters_in_a_bin_file_and_files_of_old_torch_are_read(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    content = {name: torch.nn.Parameter(one) for name, one in tensors.items()}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert f"{LAYER}.2.mlp.dense_4h_to_h.weight" in content
    model = load(tmp_path)
    assert furthest(states(model, IDS), states(by_hand(tensors), IDS)) == 0
