"""Models that cannot be read are refused by name, and those that can are not."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import KINDS, WORDS, slow_answer, tiny_model, tiny_model_of

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin
from msr_enhance.llm.cache import common_prefix
from msr_enhance.llm.capture import Depth, blocks
from msr_enhance.llm.estimate import ModelSize
from msr_enhance.llm.generation import greedy
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.llm.outline import Outline
from msr_enhance.llm.support import check_supported

_WIDE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_OWN_NAMES = {"n_embd": 32, "n_layer": 2, "n_head": 4}
_SEEN = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
_BART = {
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")},
    "d_model": 32,
    "pad_token_id": 0,
}
NO_CACHE = {
    "OpenAIGPTConfig": _OWN_NAMES,
    "RwkvConfig": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "XLNetConfig": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    "XLMConfig": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "pad_token_id": 2},
    "MambaConfig": {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
    "ReformerConfig": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [64, 192]},
}
# Folders of their masked language models load as these classes.
ENCODERS = {
    "BertConfig": "BertLMHeadModel",
    "RobertaConfig": "RobertaForCausalLM",
    "ElectraConfig": "ElectraForCausalLM",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return builtin.build()[1]


def known(model: Any, tokenizer: Any) -> Outline:
    return Outline.of(model, tokenizer, name="tiny")


@pytest.fixture(scope="module")
def gemma3n() -> Any:
    """Its layers pass on several variants of each state, in front of the rows."""
    return tiny_model_of(
        "Gemma3nTextConfig",
        {
            **_WIDE,
            **{"num_hidden_layers": 5, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 7},
            **{"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "laurel_rank": 4},
            **{"vocab_size_per_layer_input": WORDS, "altup_num_inputs": 2},
            "activation_sparsity_pattern": None,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
        },
    )


@pytest.fixture(scope="module")
def gemma3() -> Any:
    """A model that also sees; its image tower has as many layers as its decoder."""
    text = {
        **_WIDE,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": WORDS,
        "tie_word_embeddings": False,
    }
    return tiny_model_of(
        "Gemma3Config",
        {
            "text_config": text,
            "vision_config": {**_SEEN, "image_size": 8, "patch_size": 4},
            "mm_tokens_per_image": 4,
            **{"boi_token_index": 3, "eoi_token_index": 4, "image_token_index": 5},
        },
        "Gemma3ForConditionalGeneration",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_contract_is_supported(kind: str, dtype: torch.dtype, tokenizer: Any) -> None:
    model = tiny_model(kind).to(dtype)
    check_supported(model, known(model, tokenizer))


def test_the_check_changes_no_random_number_and_no_weight(tokenizer: Any) -> None:
    model = tiny_model("gpt2").train()
    before = copy.deepcopy(model.state_dict())
    states = torch.random.get_rng_state(), random.getstate()
    check_supported(model, known(model, tokenizer))
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == random.getstate()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", ENCODERS)
def test_an_encoder_is_refused_and_pointed_to_its_option(
    config: str, dtype: torch.dtype, tokenizer: Any
) -> None:
    loaded_as = ENCODERS[config]
    model = tiny_model_of(config, {**_WIDE, "pad_token_id": 0}).to(dtype)
    assert type(model).__name__ == loaded_as
    with pytest.raises(ModelError, match=rf"{loaded_as}.*later tokens.*--encoder"):
        check_supported(model, known(model, tokenizer))


def test_a_head_with_layers_of_its_own_is_refused(tokenizer: Any) -> None:
    model = tiny_model_of("BertConfig", {**_WIDE, "pad_token_id": 0, "is_decoder": True})
    with pytest.raises(ModelError, match=r"BertLMHeadModel.*output head"):
        check_supported(model, known(model, tokenizer))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("BartConfig", _BART),
        ("PegasusConfig", _BART),
        ("MBartConfig", _BART),
        ("RobertaConfig", {**_WIDE, "pad_token_id": 0, "is_decoder": True}),
    ],
)
def test_positions_that_do_not_follow_the_padding_are_refused(
    config: str, options: dict[str, Any], dtype: torch.dtype, tokenizer: Any
) -> None:
    model = tiny_model_of(config, {**options, "is_encoder_decoder": False}).to(dtype)
    with pytest.raises(ModelError, match=rf"{type(model).__name__}.*beside a longer one"):
        check_supported(model, known(model, tokenizer))


@pytest.mark.parametrize("config", NO_CACHE)
def test_a_model_without_a_cache_of_keys_is_refused(config: str, tokenizer: Any) -> None:
    model = tiny_model_of(config, NO_CACHE[config])
    with pytest.raises(ModelError, match=rf"{type(model).__name__}.*(no past_key_values|recurrent state)"):
        check_supported(model, known(model, tokenizer))


def test_a_cache_that_stays_empty_is_named() -> None:
    model = tiny_model_of("OpenAIGPTConfig", _OWN_NAMES)
    with pytest.raises(ModelError, match="left no keys"):
        greedy(model, [[1, 2], [3]], max_new_tokens=2, end_ids=())


def test_a_window_of_a_few_tokens_is_no_reason_to_refuse(tokenizer: Any) -> None:
    for window in (2, 3, 6):
        model = tiny_model_of("GPT2Config", {**_OWN_NAMES, "n_positions": window})
        check_supported(model, known(model, tokenizer))


@pytest.mark.parametrize("kind", ["mpt", "gpt_neo"])
def test_the_reader_shares_no_prefix_where_that_would_change_an_answer(kind: str, tokenizer: Any) -> None:
    llm = HuggingFaceLLM.of(tiny_model(kind, len(tokenizer)), tokenizer, name=kind, max_new_tokens=4)
    shared = "The items that this user liked last, oldest first. In shop: plain kit | cooking; "
    prompts = [shared + "bold set | music; slow report | history; plain kit | cooking.", shared]
    assert common_prefix([tokenizer(prompt)["input_ids"] for prompt in prompts])
    for prompt, beside in zip(prompts, llm.answer(prompts), strict=True):
        (alone,) = llm.answer([prompt])
        assert beside.text == alone.text
        np.testing.assert_allclose(beside.vector, alone.vector, atol=2e-5)


def test_the_reader_refuses_an_encoder(tokenizer: Any) -> None:
    model = tiny_model_of("BertConfig", {**_WIDE, "pad_token_id": 0, "vocab_size": len(tokenizer)})
    with pytest.raises(ModelError, match="--encoder"):
        HuggingFaceLLM.of(model, tokenizer, name="bert")


def test_a_recurrent_state_is_refused(tokenizer: Any) -> None:
    options = {**_WIDE, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention", "conv"]}
    model = tiny_model_of("Lfm2Config", options)
    with pytest.raises(ModelError, match=r"Lfm2ForCausalLM.*recurrent"):
        check_supported(model, known(model, tokenizer))


def test_a_model_that_fails_is_named(tokenizer: Any) -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(3, 4)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM.*fails on a few tokens: RuntimeError"):
        check_supported(model, known(model, tokenizer))


def test_no_size_is_guessed_for_a_model_without_attention() -> None:
    model = tiny_model_of("RwkvConfig", NO_CACHE["RwkvConfig"])
    with pytest.raises(ModelError, match="rwkv model has no num_attention_heads"):
        ModelSize.of(model.config, 1)


def test_layers_that_pass_on_several_states_a_token_are_refused(gemma3n: Any, tokenizer: Any) -> None:
    check_supported(gemma3n, known(gemma3n, tokenizer))
    assert Depth.of(gemma3n, None, before_norm=False).shape(gemma3n) == (32,)
    for layers, before_norm in (([1, 3], False), ([0, 5], False), (None, True)):
        with pytest.raises(ModelError, match=r"Gemma3nForCausalLM.*--before-norm"):
            Depth.of(gemma3n, layers, before_norm)


def test_the_layers_of_a_model_that_sees_are_those_of_its_decoder(gemma3: Any, tokenizer: Any) -> None:
    check_supported(gemma3, known(gemma3, tokenizer))
    assert type(blocks(gemma3)[0]).__name__ == "Gemma3DecoderLayer"
    prompts = [[11, 12, 13], [21, 22, 23, 24, 25, 26]]
    depth = Depth.of(gemma3, [0, 1, -1], before_norm=False)
    out = greedy(gemma3, prompts, max_new_tokens=3, end_ids=(), depth=depth)
    for row, prompt in enumerate(prompts):
        said, _, states, _ = slow_answer(gemma3, prompt, 3, ())
        assert out.tokens[row] == said
        wanted = torch.stack([states[number] for number in (0, 1, 3)])
        torch.testing.assert_close(out.states[row], wanted, rtol=0.0, atol=2e-5)


def test_rotations_that_change_with_the_length_agree_below_the_window(tokenizer: Any) -> None:
    """Phi-3 128k rotates otherwise beyond its original window, where a long row would turn its neighbours."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    size = {"max_position_embeddings": 256, "original_max_position_embeddings": 24}
    model = tiny_model_of("Phi3Config", {**_WIDE, **size, "rope_parameters": {**rope, "rope_theta": 1e4}})
    window = known(model, tokenizer).window
    assert window == 24
    new = 4
    draw = torch.Generator().manual_seed(1)
    prompts = [torch.randint(WORDS, (length,), generator=draw).tolist() for length in (6, window - new, 13)]
    out = greedy(model, prompts, max_new_tokens=new, end_ids=())
    for row, prompt in enumerate(prompts):
        said, _, states, _ = slow_answer(model, prompt, new, ())
        assert out.tokens[row] == said
        torch.testing.assert_close(out.states[row], states[-1], rtol=0.0, atol=2e-5)
