"""A model's files in a local folder: as they are, or fetched from the Hub at one commit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from msr_enhance.errors import ModelError

_WORDS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_WEIGHTS = (("model*.safetensors", "*.safetensors"), ("pytorch_model*.bin", "*.bin"))


def local_folder(
    model: str | Path, *, revision: str | None = None, weights: bool = True, code: bool = False
) -> tuple[Path, str | None]:
    """The folder with a model's files; what is missing is fetched from the Hub.

    A file of the Hub's cache is whole or absent, so an interrupted download goes on where it stopped.
    No code of the repository is fetched unless it is asked for, and a repository that has only `.bin`
    shards is read as it is: nothing is sent to a conversion service.

    Args:
        model: A folder, or a model id of the Hub.
        revision: Branch, tag or commit.
        weights: Whether weights are needed too, not only configuration and tokenizer.
        code: Whether Python files are fetched; the caller has checked that this was asked for.

    Returns:
        The folder, and the commit where it came from the Hub.

    Raises:
        ModelError: If it is no model, or cannot be fetched; says why.
    """
    if Path(model).is_dir():
        _refuse_adapter(str(model), [path.name for path in Path(model).iterdir()])
        if not (Path(model) / "config.json").is_file():
            raise ModelError(
                f"{model} holds no config.json. Allowed: 'builtin', a folder with config.json, weights and "
                "tokenizer, or a model id of the Hub."
            )
        return Path(model), None
    name = str(model)
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", name):
        raise ModelError(
            f"{name!r} is neither a folder nor a model id of the Hub (owner/name). "
            "Write 'builtin', a folder with config.json, or an id such as THUDM/chatglm2-6b."
        )
    return _fetched(name, revision, weights, code)


def read_config(folder: Path) -> dict[str, Any]:
    """The raw `config.json` of a folder.

    Raises:
        ModelError: If it is no JSON object.
    """
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} cannot be read: {error}. Fetch the model again."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{folder / 'config.json'} holds no JSON object. Fetch the model again.")
    return content


def _fetched(name: str, revision: str | None, weights: bool, code: bool) -> tuple[Path, str | None]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    try:
        info = HfApi().model_info(name, revision=revision, timeout=20)
        files = [sibling.rfilename for sibling in info.siblings or []]
        _refuse_adapter(name, files)
        patterns = [*_WORDS, *(["*.py"] if code else []), *(_weight_files(name, files) if weights else [])]
        # By the name that was asked for: the cache then knows it without a network too.
        return _named(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except hub.GatedRepoError as error:
        raise ModelError(f"{name} is gated: accept its terms on the Hub and run `hf auth login`.") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is not on the Hub, or is private and no token is set. Check the spelling (owner/name), "
            "write a local folder, or run `hf auth login`."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision {revision!r}; write a branch, tag or commit it has."
        ) from error
    except ModelError:
        raise
    except Exception as error:  # connection errors of whichever HTTP library the Hub's client uses
        return _cached(name, revision, weights, error)


def _refuse_adapter(name: str, files: list[str]) -> None:
    if "adapter_config.json" in files:
        raise ModelError(
            f"{name} is an adapter (adapter_config.json), not a whole model; merge it into its base model "
            "first (peft: merge_and_unload, then save_pretrained) and name that folder."
        )


def _weight_files(name: str, files: list[str]) -> list[str]:
    """Safetensors where the repository has them, else `.bin` shards; only those that transformers reads."""
    for preferred, suffix in _WEIGHTS:
        stem, end = preferred.split("*")
        if any("/" not in file and file.startswith(stem) and file.endswith(end) for file in files):
            return [preferred]
        if any("/" not in file and file.endswith(suffix[1:]) for file in files):
            return [suffix]
    raise ModelError(
        f"{name} has no safetensors and no pytorch_model*.bin weights (it may be a GGUF, adapter or dataset "
        "repository); name a transformers checkpoint."
    )


def _cached(name: str, revision: str | None, weights: bool, error: Exception) -> tuple[Path, str | None]:
    """What an earlier run fetched whole, for machines without a network."""
    from huggingface_hub import snapshot_download

    try:
        patterns = list(_WORDS)
        folder = Path(
            snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=patterns)
        )
        if weights:  # a second look: which weights there are is only known from the folder
            patterns += _weight_files(name, [path.name for path in folder.iterdir()])
            snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=patterns)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError("config.json was not fetched yet")
    except Exception as absent:
        raise ModelError(
            f"{name} could not be fetched: {type(error).__name__}: {str(error).strip()[:300]}. Without a "
            "network write a local folder, or 'builtin'; after an interrupted download run the same command "
            "again, finished files are kept."
        ) from absent
    return _named(folder)


def _named(folder: str | Path) -> tuple[Path, str]:
    """A snapshot's folder and its commit, which is the folder's name."""
    return Path(folder), Path(folder).name
