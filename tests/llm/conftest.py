"""A saved tiny model, served by a small server with the requests and answers of SGLang."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hidden_state_server import SERVED_NEW, SERVED_PROMPTS, HiddenStateServer
from tiny_models import slow_answer, tiny_model

from msr_enhance.llm import builtin, json_client
from msr_enhance.llm.http import HttpLLM


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model; its answers to `SERVED_PROMPTS` end at different steps, some by the limit."""
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    _, tokenizer = builtin.build()
    model = tiny_model("llama", len(tokenizer))
    texts = (SERVED_PROMPTS[0], SERVED_PROMPTS[2])
    early, late = (slow_answer(model, tokenizer(text)["input_ids"], SERVED_NEW + 1, ())[0] for text in texts)
    firsts = {early[0], late[0]}
    # One row ends early, and one where it has said all that it may say.
    model.generation_config.eos_token_id = [
        next(token for token in early if token not in firsts),
        next(token for token in late[SERVED_NEW:] if token not in firsts),
    ]
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def served_model(served_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(served_folder, dtype="float32").eval()


@pytest.fixture
def serve(
    served_model: Any, served_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., HiddenStateServer]]:
    """Starts servers of the model, with the options of `HiddenStateServer`; nobody waits before a retry."""
    monkeypatch.setattr(json_client, "FIRST_WAIT", 0.001)
    running = []

    def start(**options: Any) -> HiddenStateServer:
        ends = set(served_model.generation_config.eos_token_id)
        server = HiddenStateServer(served_model, ends, **{"name": str(served_folder), **options}).__enter__()
        running.append(server)
        return server

    yield start
    for server in running:
        server.close()


@pytest.fixture
def ask(served_folder: Path) -> Callable[..., HttpLLM]:
    """Makes a client of a server."""

    def make(server: HiddenStateServer, **options: Any) -> HttpLLM:
        given = {"max_new_tokens": SERVED_NEW, "retries": 2, **options}
        return HttpLLM(server.url, model=served_folder, **given)

    return make
