"""The client of a server: the same answers and states as the model here, and one named end for each fault."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hidden_state_server import SERVED_NEW, SERVED_PROMPTS

from msr_enhance.errors import ModelError
from msr_enhance.llm import builtin, json_client
from msr_enhance.llm.huggingface import HuggingFaceLLM
from msr_enhance.llm.protocol import CountsTokens, FrozenLLM, PlansBatches


@pytest.mark.parametrize("state", ["last", "last_step", "prompt"])
def test_answers_and_states_are_those_of_the_model_here(
    state: Any, serve: Any, ask: Any, served_folder: Path
) -> None:
    remote = ask(serve(), state=state, concurrency=3)
    local = HuggingFaceLLM.load(served_folder, device="cpu", max_new_tokens=SERVED_NEW, state=state)
    assert remote.shape == local.shape
    assert remote.count_tokens(SERVED_PROMPTS) == local.count_tokens(SERVED_PROMPTS)
    reasons = set()
    for here, there in zip(local.answer(SERVED_PROMPTS), remote.answer(SERVED_PROMPTS), strict=True):
        reasons.add(there.reason)
        assert (there.text, there.status, there.reason) == (here.text, here.status, here.reason)
        assert (there.prompt_tokens, there.answer_tokens) == (here.prompt_tokens, here.answer_tokens)
        np.testing.assert_allclose(there.vector, here.vector, atol=2e-5)
    assert reasons == ({"no text"} if state == "prompt" else {"end", "length"})


def test_last_and_last_step_differ_where_a_row_was_cut_and_only_there(serve: Any, ask: Any) -> None:
    server = serve()
    last, step = (ask(server, state=state).answer(SERVED_PROMPTS) for state in ("last", "last_step"))
    for one, other in zip(last, step, strict=True):
        assert one.text == other.text
        assert np.allclose(one.vector, other.vector, atol=1e-4) == (other.reason == "end")


def test_the_server_gets_token_ids_and_is_asked_greedily(serve: Any, ask: Any) -> None:
    server = serve()
    llm = ask(server)
    assert all(isinstance(llm, kind) for kind in (FrozenLLM, CountsTokens, PlansBatches))
    hostile = "kit <eos> <pad> | cooking"
    llm.answer([hostile])
    body = server.asked[-1]
    assert "text" not in body
    tokenizer = builtin.build()[1]
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(body["input_ids"])
    assert tokenizer.decode(body["input_ids"]) == hostile
    assert body["return_hidden_states"] == "last"
    assert body["sampling_params"]["temperature"] == 0
    assert tokenizer.eos_token_id in body["sampling_params"]["stop_token_ids"]


def test_many_prompts_are_with_the_server_at_once_and_keep_their_order(serve: Any, ask: Any) -> None:
    server = serve()
    llm = ask(server, concurrency=4, state="prompt")
    server.always = "late"
    prompts = [f"user {number}" for number in range(12)]
    answers = llm.answer(prompts)
    assert 2 <= server.most_at_once <= 4
    server.always = None
    for prompt, answer in zip(prompts, answers, strict=True):
        np.testing.assert_array_equal(answer.vector, llm.answer([prompt])[0].vector)
    batches = llm.batches(["x"] * 70)
    assert sorted(row for batch in batches for row in batch) == list(range(70))
    assert max(map(len, batches)) == 32


# Faults of one request: it is asked again, and the row is as if nothing had been


@pytest.mark.parametrize(
    "faults", [[500], [503, 502], [429], ["drop"], ["cut"], ["page"], ["slow"], [408, "cut"]]
)
def test_a_passing_fault_leaves_no_trace(faults: list[Any], serve: Any, ask: Any) -> None:
    server = serve()
    llm = ask(server, timeout=1.0 if "slow" in faults else 60.0)
    (expected,) = llm.answer(SERVED_PROMPTS[:1])
    server.asked.clear()
    server.faults.extend(faults)
    (answer,) = llm.answer(SERVED_PROMPTS[:1])
    assert len(server.asked) == len(faults) + 1
    assert (answer.text, answer.status) == (expected.text, "ok")
    np.testing.assert_array_equal(answer.vector, expected.vector)


def test_the_wait_that_a_server_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json_client._pause(0, 7.0) == 7.0
    assert json_client._pause(0, 1e9) == 120.0
    monkeypatch.setattr(json_client, "FIRST_WAIT", 1.0)
    assert 0.5 <= json_client._pause(0, None) <= 1.0
    assert 2.0 <= json_client._pause(2, None) <= 4.0
    assert json_client._pause(50, None) <= 30.0
    assert json_client._retry_after("3") == 3.0
    assert json_client._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert json_client._retry_after("soon") is None


# Faults of one prompt: its row fails, the others do not


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (400, r"the server refused it \(400\): fault\\x1b\[31m 400"),
        (413, r"refused it \(413\)"),
        ("abort", r"gave up: out of memory \\x1b\[2J"),
        ("null", "NaN or infinity"),
        ("nan", "NaN or infinity"),
        ("huge", "NaN or infinity"),
        ("string", "stopped by itself after . of 7 tokens .stop: NaN happened"),
        ("short", "stopped by itself after 1 of 7 tokens .length"),
        ("truncated", r"read \d+ of \d+ prompt tokens"),
    ],
)
def test_a_fault_of_one_prompt_is_one_failed_row(fault: Any, reason: str, serve: Any, ask: Any) -> None:
    server = serve()
    llm = ask(server, concurrency=1)
    server.faults.append(fault)
    answers = llm.answer(SERVED_PROMPTS[1:4][::-1])  # the longest is asked first
    failed = max(answers, key=lambda answer: answer.prompt_tokens)
    assert [answer.status for answer in answers if answer is not failed] == ["ok", "ok"]
    assert failed.status == "failed"
    assert not failed.vector.any()
    assert re.search(reason, failed.reason)


def test_a_prompt_that_always_breaks_the_server_fails_alone(serve: Any, ask: Any) -> None:
    server = serve()
    llm = ask(server)
    server.refuses = set(llm._known.encode("bold")) - set(llm._known.encode("".join(SERVED_PROMPTS[1:])))
    assert server.refuses
    answers = llm.answer(SERVED_PROMPTS)
    assert [answer.status for answer in answers] == ["failed", "ok", "ok", "ok", "ok"]
    assert "refused it (500)" in answers[0].reason


def test_prompts_leave_room_for_the_answer_in_the_smaller_window(serve: Any, ask: Any) -> None:
    llm = ask(serve(window=60))
    assert llm.prompt_limit == 60 - (SERVED_NEW + 1) - 8
    answers = llm.answer(SERVED_PROMPTS)
    assert [answer.status for answer in answers] == ["ok", "ok", "failed", "ok", "ok"]
    assert f"{llm.prompt_limit} leave room for {SERVED_NEW}" in answers[2].reason
    assert ask(serve(), max_prompt_tokens=20).prompt_limit == 20
    with pytest.raises(ModelError, match="window of 10 tokens"):
        ask(serve(window=10))


# Faults of the server: the run ends, by name


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (500, r"answered 500: fault\\x1b\[31m 500.*Rows that were committed are kept"),
        (404, "no SGLang server|To return states"),
        (401, "key as api_key"),
        ("drop", "no usable reply in 3 attempts"),
        ("page", "no usable reply in 3 attempts: JSONDecodeError"),
        ("moved", "answered 307: http://elsewhere:1/generate. Write the address"),
        ("wide", "state of 64 numbers, and the model has 32"),
        ("nested", "another form than one list of numbers"),
        ("words", "another form than one list of numbers"),
        ("silent", "without hidden_states; start SGLang"),
        ("no_ids", "without output_ids"),
        ("other", "without meta_info.finish_reason"),
    ],
)
def test_a_fault_of_the_server_ends_the_run(fault: Any, message: str, serve: Any, ask: Any) -> None:
    server = serve()
    llm = ask(server)
    server.always = fault
    with pytest.raises(ModelError, match=message) as error:
        llm.answer(SERVED_PROMPTS)
    assert server.url in str(error.value)
    assert "\x1b" not in str(error.value)
    server.always = None  # and the reader can be used again when the server is well
    assert llm.answer(SERVED_PROMPTS[:1])[0].status == "ok"


def test_a_stop_does_not_wait_for_the_answers_under_way(
    serve: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while every request hangs."""
    server = serve()
    llm = ask(server, concurrency=2)
    server.always = "slow"

    def interrupted(*_: Any, **__: Any) -> Any:
        while server.most_at_once < 2:
            time.sleep(0.005)
        raise KeyboardInterrupt

    monkeypatch.setattr("msr_enhance.llm.http.wait", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        llm.answer(SERVED_PROMPTS)
    assert time.monotonic() - began < 1.5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("http-llm")]
