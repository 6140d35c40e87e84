"""Fetching a model, from a Hub on this machine, in a process of its own as users have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub

from msr_enhance.errors import ModelError
from msr_enhance.llm.hub import local_folder, read_config

CONFIG = b'{"model_type": "llama"}'
BIN = {"config.json": CONFIG, "pytorch_model-1.bin": b"a" * 9000, "pytorch_model-2.bin": b"b" * 9000}
REPOSITORIES = {
    "own/both": {**BIN, "model.safetensors": b"c" * 9000, "tokenizer.model": b"t", "code.py": b"print(1)"},
    "own/bins": {**BIN, "tokenizer.json": b"{}", "training_args.bin": b"pickle"},
    "own/gguf": {"config.json": CONFIG, "model.gguf": b"g"},
}
SCRIPT = """
import json, sys
from msr_enhance.errors import ModelError
from msr_enhance.llm.hub import local_folder
for options in json.loads(sys.argv[1]):
    try:
        folder, commit = local_folder(**options)
        print(json.dumps([sorted(path.name for path in folder.iterdir()), commit]))
    except ModelError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(REPOSITORIES)
    yield server
    server.close()


def asked(cache: Path, endpoint: str, *options: dict[str, Any], **environment: str) -> list[Any]:
    """What `local_folder` gives in a fresh process: names and commit, or the message of its error."""
    own = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(options)],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_only_what_is_needed_is_fetched_at_one_commit(tmp_path: Path, hub: Hub) -> None:
    both, words, code, bins, gguf, none, revision = asked(
        tmp_path,
        hub.url,
        {"model": "own/both", "weights": False},
        {"model": "own/both"},
        {"model": "own/both", "code": True},
        {"model": "own/bins", "revision": COMMIT},
        {"model": "own/gguf"},
        {"model": "own/none"},
        {"model": "own/both", "revision": "v9"},
    )
    assert both == [["config.json", "tokenizer.model"], COMMIT]
    assert words == [["config.json", "model.safetensors", "tokenizer.model"], COMMIT]
    assert "code.py" in code[0]
    assert bins == [["config.json", "pytorch_model-1.bin", "pytorch_model-2.bin", "tokenizer.json"], COMMIT]
    assert "training_args.bin" not in hub.asked
    assert "no safetensors and no pytorch_model" in gguf
    assert "own/none is not on the Hub" in none
    assert "no revision 'v9'" in revision


def test_an_interrupted_download_is_named_goes_on_and_then_works_without_a_network(
    tmp_path: Path, hub: Hub
) -> None:
    hub.cut = {"pytorch_model-2.bin"}
    (broken,) = asked(tmp_path, hub.url, {"model": "own/bins"})
    assert "own/bins could not be fetched" in broken
    assert "run the same command again, finished files are kept" in broken
    nowhere = "http://127.0.0.1:9"
    (partial,) = asked(tmp_path, nowhere, {"model": "own/bins"}, HF_HUB_OFFLINE="1")
    assert "own/bins could not be fetched" in partial
    hub.cut, before = set(), hub.asked.count("pytorch_model-1.bin")
    (whole,) = asked(tmp_path, hub.url, {"model": "own/bins"})
    assert whole[1] == COMMIT
    assert hub.asked.count("pytorch_model-1.bin") == before
    for environment in ({"HF_HUB_OFFLINE": "1"}, {}):
        (cached,) = asked(tmp_path, nowhere, {"model": "own/bins"}, **environment)
        assert cached == whole


def test_no_network_and_nothing_fetched_is_one_sentence(tmp_path: Path) -> None:
    (message,) = asked(tmp_path, "http://127.0.0.1:9", {"model": "THUDM/chatglm2-6b"})
    assert message.startswith("THUDM/chatglm2-6b could not be fetched")
    assert "write a local folder, or 'builtin'" in message


@pytest.mark.parametrize("name", ["a/b/c", "/no/such/folder", "own/na me", "", "own/\n"])
def test_a_name_that_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ModelError, match=r"neither a folder nor a model id|holds no config"):
        local_folder(name)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[]", b"\xff\xfe"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"config\.json"):
            read_config(tmp_path)
