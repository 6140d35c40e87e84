"""Which servers a client refuses, and what a store keeps of the ones it reads."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hidden_state_server import SERVED_NEW

from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import ModelError, StoreIdentityError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.http import HttpLLM
from msr_enhance.llm.huggingface import HuggingFaceLLM


@pytest.mark.parametrize(
    ("server", "options", "message"),
    [
        ({"states": False}, {}, "--return-hidden-states-mode last"),
        ({"name": "/models/other-llama"}, {}, "runs '/models/other-llama'.*served_as='/models/other-llama'"),
        ({"name": "me/tiny-llama"}, {"served_as": "you/tiny-llama"}, "runs 'me/tiny-llama'"),
        ({"info": {"is_generation": False}}, {}, "embedding model"),
        ({"info": {"preferred_sampling_params": {"top_p": 0.5}}}, {}, "--preferred-sampling-params"),
        ({"info": {"enable_return_aux_hidden_states": True}}, {}, "inner layers"),
        ({"info": {"architectures": ["Step3p5ForCausalLM"]}}, {}, "Step3p5ForCausalLM before the final norm"),
        ({"api_key": "right"}, {"api_key": "wrong"}, "401: Unauthorized.*api_key"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_before_the_first_prompt(
    server: dict[str, Any], options: dict[str, Any], message: str, serve: Any, ask: Any
) -> None:
    started = serve(**server)
    with pytest.raises(ModelError, match=message):
        ask(started, **options)


def test_the_same_model_under_another_name_is_accepted(serve: Any, ask: Any) -> None:
    for name, options in (
        ("owner/Tiny-Llama", {}),
        ("/srv/models/tiny-llama/", {}),
        ("x", {"served_as": "x"}),
    ):
        assert ask(serve(name=name), **options).shape == (32,)
    assert ask(serve(api_key="right"), api_key="right").shape == (32,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:30000"}, "no address of a server"),
        ({"url": "http://host:port"}, "no address of a server"),
        ({"url": "http://[::1"}, "no address of a server"),
        ({"url": "http://me:secret@host"}, "write api_key"),
        ({"api_key": "a\nb"}, "characters that no key has"),
        ({"state": "token-mean"}, "allowed: .*'last'"),
        ({"max_new_tokens": 0}, "write 1 or more"),
        ({"concurrency": 0}, "write 1 or more"),
        ({"retries": -1}, "write 0 or more"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str, served_folder: Path) -> None:
    with pytest.raises(ModelError, match=message) as error:
        HttpLLM(**{"url": "http://localhost:1", "model": served_folder, **options})
    assert "secret" not in str(error.value)


def test_no_server_is_one_error(served_folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ModelError, match="no usable reply in 2 attempts: ConnectionRefusedError") as error:
        HttpLLM(url, model=served_folder, retries=1)
    assert url in str(error.value)


def test_the_identity_says_what_was_read_and_how(serve: Any, ask: Any) -> None:
    server = serve()
    one, other = ask(server, concurrency=1, timeout=9), ask(server)
    assert one.identity == other.identity
    assert json.loads(json.dumps(dict(one.identity))) == one.identity
    for state in ("last", "last_step", "prompt"):
        kept = ask(server, state=state).identity["state"]
        assert kept == {"kind": state, "norm": "after", "layers": None}
    assert one.identity["dtype"] == "float32"
    assert not any(secret in str(one.identity) for secret in ("never shown", server.url))


def test_stores_of_other_states_or_readers_never_mix(
    serve: Any, ask: Any, served_folder: Path, titled_log: Any, tmp_path: Path
) -> None:
    table = InteractionTable.from_arrays(titled_log(users=4))
    server = serve()
    store = KnowledgeExtractor(ask(server), history=3).extract(table, tmp_path / "store")
    assert store.shape("user") == (32,)
    local = HuggingFaceLLM.load(served_folder, device="cpu", max_new_tokens=SERVED_NEW)
    for llm, field in ((ask(server, state="last_step"), "last_step"), (local, "transformers")):
        with pytest.raises(StoreIdentityError, match=field):
            KnowledgeExtractor(llm, history=3).extract(table, tmp_path / "store")


def test_a_server_that_dies_loses_no_committed_row(
    serve: Any, ask: Any, titled_log: Any, tmp_path: Path
) -> None:
    table = InteractionTable.from_arrays(titled_log(users=24))
    server = serve()
    llm = ask(server, concurrency=1, state="prompt", retries=0)
    whole = KnowledgeExtractor(llm, history=3).extract(table, tmp_path / "whole")
    asked = len(server.asked)
    server.asked.clear()
    server.faults.extend(["late"] * 14)
    server.always = "drop"
    with pytest.raises(ModelError, match="no usable reply"):
        KnowledgeExtractor(llm, history=3).extract(table, tmp_path / "store")
    server.close()
    again = serve()
    revived = ask(again, concurrency=1, state="prompt")
    store = KnowledgeExtractor(revived, history=3).extract(table, tmp_path / "store")
    assert len(again.asked) < asked
    users = list(table.user_ids)
    np.testing.assert_array_equal(store.vectors("user", users), whole.vectors("user", users))
