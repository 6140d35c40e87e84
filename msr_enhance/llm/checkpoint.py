"""Load a causal model: the built-in one, a folder, or a Hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin
from msr_enhance.llm.chatglm.family import is_chatglm
from msr_enhance.llm.chatglm.weights import load_weights
from msr_enhance.llm.hardware import default_dtype, usable_device
from msr_enhance.llm.hub import local_folder, read_config
from msr_enhance.llm.outline import Outline, cannot_load, check_pinned, outline, read_outline

__all__ = ["Outline", "load", "outline"]


def load(
    model: str | Path = builtin.NAME,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    chat: bool = True,
) -> tuple[Any, Outline]:
    """Load a model for reading.

    Args:
        model: As in `outline`.
        revision: As in `outline`.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default float32 on a CPU (half precision is
            many times slower there) and the checkpoint's own on a GPU.
        device: For example ``cuda`` or ``cpu``; by default a GPU when there is one.
        trust_remote_code: As in `outline`.
        chat: As in `outline`.

    Returns:
        The model in eval mode on its device, and its outline.

    Raises:
        ModelError: If it cannot be loaded, or its weights do not fit its class.
    """
    place = usable_device(device)
    dtype = None if dtype is None else default_dtype(dtype, place.type)
    if str(model) == builtin.NAME:
        decoder, tokenizer = builtin.build()
        decoder = decoder.to(getattr(torch, dtype or "float32")).to(place)
        return decoder, Outline(builtin.NAME, None, decoder.config, tokenizer)
    check_pinned(model, revision, trust_remote_code)
    folder, commit = local_folder(model, revision=revision, code=trust_remote_code)
    known = read_outline(folder, str(model), commit or revision, trust_remote_code, chat)
    chosen = default_dtype(dtype, place.type, known.config.get_text_config().dtype)
    try:
        if is_chatglm(read_config(folder)):
            network: Any = load_weights(folder, known.config, chosen, device=place)
        else:
            network = _load_native(folder, known, chosen)
        return network.eval().to(place), known
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{model} does not fit into the memory of {place}: {str(error).splitlines()[0]} "
            "Write --dtype bfloat16, or take a smaller model."
        ) from error


def _load_native(folder: Path, known: Outline, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told apart and refused right below, by name
            local_files_only=True,
            trust_remote_code=known.remote_code,
        )
    except Exception as error:  # as above
        raise cannot_load(known.name, "its weights", error) from error
    network, info = loaded
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info.get(kind):
            raise ModelError(
                f"{known.name} does not fit its class {type(network).__name__}: {kind} "
                f"{sorted(map(str, info[kind]))[:5]}. Random weights would be no knowledge; "
                "use the repository's transformers-native checkpoint."
            )
    return network
