"""A sentence-transformers model as the source of vectors: the "no reasoning" baseline. It writes no text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msr_enhance.errors import ModelError, not_one_of
from msr_enhance.llm.digests import tokenizer_digest, weights_digest
from msr_enhance.llm.hub import local_folder
from msr_enhance.llm.plain_text import plain_text
from msr_enhance.llm.protocol import Answer

# A tokenizer without a limit of its own says a number beyond any window.
_NO_LIMIT = 10**6
_OTHER_FORMATS = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]


class SentenceEncoder:
    """Sentence vectors of a sentence-transformers model; needs `pip install 'msr-enhance[encoder]'`.

    A folder that holds a plain transformers encoder is read with mean pooling, as sentence-transformers
    does. Code of a repository is never run. The model computes in float32.

    Args:
        model: A folder, or a model id of the Hub such as ``sentence-transformers/all-MiniLM-L6-v2``.
        revision: Branch, tag or commit of a Hub model.
        device: For example ``cuda`` or ``cpu``; by default a GPU when there is one.
        batch_size: Prompts at once; changes the speed only.
        prompt_name: Which of the model's own prompts (``query``, for example) is put before each text;
            by default the one that the model names as its default, if any.

    Raises:
        ModelError: sentence-transformers is missing, or the model cannot be loaded or is not whole.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        batch_size: int = 32,
        prompt_name: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ModelError(f"batch_size is {batch_size}; write 1 or more.")
        library = _library()
        folder, commit = _folder(model, revision)
        self._encoder = encoder = _loaded(library, model, folder, device)
        self._batch = batch_size
        first = encoder[0]
        self._tokenizer = first.tokenizer
        # The vector of a text must not depend on control tokens that somebody wrote into a title.
        self._tokenizer.split_special_tokens = True
        self._plain = plain_text(self._tokenizer)
        # With a chat template the library would wrap texts in a conversation; an encoder reads plain text.
        first.modality_config.pop("message", None)
        prompts: dict[str, str] = encoder.prompts
        if prompt_name is not None and prompt_name not in prompts:
            raise ModelError(not_one_of("prompt_name", prompt_name, prompts, "Or leave it out."))
        named = prompt_name or encoder.default_prompt_name
        self._before = str(prompts.get(named) or "") if named else ""
        self._limit = _window(first)
        if self._limit is not None:
            encoder.max_seq_length = self._limit
        _check_whole(first, folder, str(model))
        self._identity: dict[str, Any] = {
            "reader": "sentence-transformers",
            "model": str(model),
            "revision": commit,
            "weights": weights_digest(encoder),
            "dtype": "float32",
            "tokenizer": tokenizer_digest(self._tokenizer),
            "modules": [_described(module) for module in encoder],
            "prompt": self._before,
            "state": {"kind": "sentence", "norm": None, "layers": None},
            "prompt_limit": self._limit,
        }
        self._width = int(self._vectors(["a"]).shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one vector."""
        return (self._width,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What changes a vector."""
        return self._identity

    @property
    def prompt_limit(self) -> int | None:
        """Most tokens a prompt may have, the model's own marks included; longer ones are cut at the end."""
        return self._limit

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt as the encoder sees it, were it not cut."""
        if not prompts:
            return []
        texts = [self._before + self._plain(str(prompt)) for prompt in prompts]
        encoded = self._tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
        return [len(ids) for ids in encoded]

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """One vector a prompt; what lies past the encoder's window is not read, and `reason` says so."""
        if not prompts:
            return []
        lengths = self.count_tokens(prompts)
        vectors = self._vectors([self._plain(str(prompt)) for prompt in prompts])
        return [self._answer(length, vector) for length, vector in zip(lengths, vectors, strict=True)]

    def _vectors(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        while True:
            try:
                found = self._encoder.encode(
                    texts, prompt=self._before, batch_size=self._batch, show_progress_bar=False
                )
                return np.asarray(found, np.float32)
            except torch.OutOfMemoryError as error:
                if self._batch == 1:
                    raise ModelError(f"One text alone does not fit into memory: {_short(error)}.") from error
                self._batch //= 2

    def _answer(self, length: int, vector: np.ndarray[Any, np.dtype[np.float32]]) -> Answer:
        if not np.isfinite(vector).all():
            reason = "the vector holds NaN or infinity"
            return Answer("", np.zeros(self.shape, np.float32), length, 0, "failed", reason)
        read = length if self._limit is None else min(length, self._limit)
        cut = f"; the last {length - read} of {length} tokens were cut" if read < length else ""
        return Answer("", vector, read, 0, "ok", f"no text{cut}")


def _library() -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ModelError(
            f"A sentence encoder needs sentence-transformers ({error}); write: "
            "pip install 'msr-enhance[encoder]'"
        ) from error
    return SentenceTransformer


def _folder(model: str | Path, revision: str | None) -> tuple[Path, str | None]:
    """The model's folder with every file of it, and its commit where it came from the Hub."""
    folder, commit = local_folder(model, revision=revision, weights=False)
    if Path(model).is_dir():
        return folder, commit
    from huggingface_hub import snapshot_download

    try:
        for weights in ("*.safetensors", "*.bin"):
            folder = Path(
                snapshot_download(
                    str(model),
                    revision=commit or revision,
                    allow_patterns=[weights],
                    ignore_patterns=_OTHER_FORMATS,
                )
            )
            if any(folder.rglob(weights)):
                break
    except Exception as error:  # connection errors of whichever HTTP library the Hub's client uses
        raise ModelError(
            f"The weights of {model} could not be fetched: {_short(error)}. Run the same command again with "
            "a network, or write a local folder."
        ) from error
    return folder, commit


def _loaded(library: Any, model: str | Path, folder: Path, device: str | None) -> Any:
    for kind in _module_kinds(folder):
        if not kind.startswith("sentence_transformers."):
            raise ModelError(
                f"{model} needs code of its repository ({kind}), which is never run for an encoder; "
                "name a model that sentence-transformers loads without it."
            )
    try:
        encoder = library(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": "float32"},
        )
    except Exception as error:  # whatever a foreign checkpoint breaks, the caller gets one sentence
        raise ModelError(
            f"Cannot load {model} as a sentence encoder: {_short(error)}. Allowed: a folder or Hub id of a "
            "sentence-transformers model, or of a transformers encoder (config.json, weights, tokenizer)."
        ) from error
    tokenizer = getattr(encoder[0], "tokenizer", None)
    if not hasattr(encoder[0], "auto_model") or getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(
            f"{model} begins with {type(encoder[0]).__name__}; allowed: models that begin with a transformer "
            "and a fast tokenizer."
        )
    return encoder.eval()


def _module_kinds(folder: Path) -> list[str]:
    """The classes that a folder names, before anything of them is imported."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    try:
        return [str(module["type"]) for module in json.loads(file.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{file} cannot be read: {type(error).__name__}: {error}. Fetch the model again."
        ) from error


def _check_whole(first: Any, folder: Path, name: str) -> None:
    """Refuse a model with weights that no file holds: they are random.

    A pooling head that sentence vectors go around may be missing; it is taken out, so that the digest of
    the weights is the same each time.
    """
    network = first.auto_model
    places = [folder, *(path.parent for path in sorted(folder.glob("*/config.json")))]
    holds = (path for path in places if any(path.glob("*.safetensors")) or any(path.glob("*.bin")))
    _, info = type(network).from_pretrained(
        next(holds, folder), config=network.config, output_loading_info=True, local_files_only=True
    )
    missing = sorted(str(key) for key in [*info["missing_keys"], *info["mismatched_keys"]])
    around = "pooler_output" not in str(first.modality_config)
    if missing and around and all(key.startswith("pooler.") for key in missing):
        network.pooler = None
    elif missing:
        raise ModelError(
            f"{name} lacks weights of its class {type(network).__name__}: {missing[:5]}. Random weights "
            "would be no knowledge; fetch the model again."
        )


def _window(first: Any) -> int | None:
    """Most tokens that the encoder reads at once."""
    stated = [first.max_seq_length]
    places = getattr(first.auto_model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(places, int) and places > 0:
        stated.append(places - _first_position(first.auto_model))
    return min((int(one) for one in stated if one is not None and one < _NO_LIMIT), default=None)


def _first_position(network: Any) -> int:
    """Where positions begin: RoBERTa and its kin count on from the padding id."""
    counted = (
        module.padding_idx + 1
        for module in network.modules()
        if hasattr(module, "position_embeddings") and isinstance(getattr(module, "padding_idx", None), int)
    )
    return max(counted, default=0)


def _described(module: Any) -> list[Any]:
    """What a module is and how it is set, as plain JSON."""
    if hasattr(module, "auto_model"):
        return [type(module).__name__, type(module.auto_model).__name__]
    config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return [type(module).__name__, json.loads(json.dumps(config, default=str))]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
