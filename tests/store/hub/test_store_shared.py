"""A store goes to the Hub and comes back, by the commands and calls of its users, over the real protocol."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store.hub.server import Hub, environment

from msr_enhance.store import seal
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(
    identity={"llm": {"model": "/home/anna/models/tiny", "note": "<b>[x](http://evil)</b>"}},
    window={"protocol": "window"},
    facts={"log": "/data/anna/log.csv"},
)
COMMAND = Path(sys.executable).parent / "msr-enhance"
USERS = [-3, 7, 8, 2**40, 99]


def row(name: Any, text: str = "an answer") -> Record:
    vector = np.random.default_rng(abs(hash(str(name))) % 2**32).normal(size=6).astype(np.float32)
    return Record(name, "ok", f"prompt of somebody {name}", text, {"n": 1}, 3, 4, vector)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "knowledge"
    with StoreWriter.open(path, PROVENANCE) as writer:
        writer.append("scenario", [row("shop"), row("news")])
        writer.append("user", [row(name) for name in USERS])
        writer.append("user", [row(1234, "gone")])
        writer.drop("user", [1234])
    return path


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Callable[..., Any]:
    """Runs a command, or a program with `-c`, in a process whose Hub is on this machine."""

    def call(*words: Any, code: int = 0, home: str = "home", **more: str) -> Any:
        first = words[0] == "-c"
        start = [sys.executable, *map(str, words)] if first else [str(COMMAND), *map(str, words)]
        done = subprocess.run(
            start,
            env={**os.environ, **environment(hub.url, tmp_path / home), **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        return done

    return call


def pushed(done: Any) -> dict[str, Any]:
    return json.loads(done.stdout)


def test_a_store_goes_to_the_hub_and_comes_back(
    hub: Hub, store: Path, run: Callable[..., Any], tmp_path: Path
):
    """Private, without texts, under keyed ids, in one commit; and whoever has the key finds everybody."""
    done = run("store", "push", store, "own/store", "--json")
    facts = pushed(done)
    made = hub.repositories["own/store"]
    assert made.private
    assert len(made.commits) == 2  # the empty repository, and the push
    assert facts["commit"] == made.refs["main"]
    assert "5 user rows; ids keyed hashes" in done.stderr
    assert "prompts and answers: no" in done.stderr
    names = set(made.head)
    assert {"README.md", "users.jsonl", "scenarios.jsonl"} < names
    assert not [name for name in names if name.startswith(("txt-", "del-", "lock"))]
    everything = b"".join(made.head.values())
    for secret in (b"somebody", b"an answer", b"anna", b"gone", (1234).to_bytes(8, "little", signed=True)):
        assert secret not in everything
    key = Path(facts["key_file"])
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().strip().encode() not in everything
    assert not any((name).to_bytes(8, "little", signed=True) in everything for name in (-3, 2**40))

    program = f"""
import json
from msr_enhance import KnowledgeStore
store = KnowledgeStore.from_pretrained("own/store", key={str(key)!r})
print(json.dumps([store.vectors("user", {USERS}).tolist(), store.vectors("scenario", ["news"]).tolist(),
                  store.commit, store.ids("user")]))
"""
    users, news, commit, ids = json.loads(run("-c", program).stdout)
    plain = KnowledgeStore.load(store)
    assert np.array_equal(np.array(users, np.float32), plain.vectors("user", USERS))
    assert np.array_equal(np.array(news, np.float32), plain.vectors("scenario", ["news"]))
    assert commit == made.refs["main"]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in ids)
    lines = [json.loads(line) for line in made.head["users.jsonl"].splitlines()]
    assert [line["id"] for line in lines] == ids
    assert lines[0].keys() == {"id", "status", "prompt_tokens", "answer_tokens"}

    run("store", "pull", "own/store", "--out", tmp_path / "pulled")
    pulled = KnowledgeStore.load(tmp_path / "pulled", verify=True, key=key)
    assert np.array_equal(pulled.vectors("user", USERS), plain.vectors("user", USERS))
    assert hub.leaked == []


def test_the_same_store_again_makes_no_commit(hub: Hub, store: Path, run: Callable[..., Any]):
    first = pushed(run("store", "push", store, "own/store", "--json"))
    again = run("store", "push", store, "own/store", "--json")
    assert pushed(again)["commit"] == first["commit"]
    assert "nothing to push" in again.stderr
    with StoreWriter.open(store, PROVENANCE) as writer:
        writer.append("user", [row(5)])
    third = pushed(run("store", "push", store, "own/store", "--json"))
    assert third["commit"] != first["commit"]
    head = hub.repositories["own/store"].head
    assert sum(name.startswith("manifest-") for name in head) == 1
    assert sum(name.startswith("vec-") for name in head) == 2  # the shard before is gone


def test_the_public_reads_it_only_where_its_name_was_typed_twice(
    hub: Hub, store: Path, run: Callable[..., Any]
):
    assert "type its name" in run("store", "push", store, "own/open", "--public", "own/other", code=6).stderr
    assert "own/open" not in hub.repositories
    done = run("store", "push", store, "own/open", "--public", "own/open")
    assert "EVERYBODY" in done.stderr
    assert not hub.repositories["own/open"].private
    assert "is public" in run("store", "push", store, "own/open", code=6).stderr


def test_texts_and_ids_leave_when_asked(hub: Hub, store: Path, run: Callable[..., Any]):
    with StoreWriter.open(store, PROVENANCE) as writer:
        writer.append("user", [row(5, "write to anna@example.org")])
    done = run("store", "push", store, "own/texts", "--texts", "--raw-ids", "--json")
    assert pushed(done)["traces"] == {"e-mail addresses": 1, "the user's own id": 1}  # 2**40 is in its prompt
    assert "1 texts hold e-mail addresses" in done.stderr
    head = hub.repositories["own/texts"].head
    rows = {line["id"]: line for line in map(json.loads, head["users.jsonl"].splitlines())}
    assert rows[7]["answer"] == "an answer"
    assert rows[7]["prompt"] == "prompt of somebody 7"
    assert set(rows) == {*USERS, 5}
    refused = run("store", "push", store, "own/all", "--texts", "--public", "own/all", code=6)
    assert "1 with e-mail addresses" in refused.stderr
    assert "own/all" not in hub.repositories


def test_scenarios_alone_tell_of_no_user(hub: Hub, store: Path, run: Callable[..., Any]):
    run("store", "push", store, "own/scenes", "--scenarios-only")
    head = hub.repositories["own/scenes"].head
    assert "users.jsonl" not in head
    assert not (store.parent / "knowledge.idkey").exists()
    program = "from msr_enhance import KnowledgeStore as K; print(K.from_pretrained('own/scenes').levels)"
    assert run("-c", program).stdout.strip() == "('scenario',)"


def test_the_card_is_read_as_text(store: Path, run: Callable[..., Any], tmp_path: Path):
    run("store", "push", store, "own/store", "--dry-run", "--folder", tmp_path / "look")
    text = (tmp_path / "look" / "README.md").read_text()
    assert "<b>" not in text
    assert "](http" not in text.replace("](https://arxiv.org/abs/2406.12529)", "")
    assert "anna" not in text
    assert "not\nanonymous" in text
    assert text.startswith("---\nlicense: other\n")
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(snippet, "card", "exec")


def test_only_the_shards_that_are_asked_for_are_fetched(
    hub: Hub, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(seal, "FULL", 8)
    monkeypatch.setattr(seal, "RUN", 4)
    path = tmp_path / "wide"
    with StoreWriter.open(path, PROVENANCE) as writer:
        for start in range(0, 40, 8):
            writer.append("user", [row(name) for name in range(start, start + 8)])
    store = KnowledgeStore.load(path)
    assert len(store._manifest.shards) == 5
    assert store._manifest.index
    monkeypatch.undo()
    names = [*(file.name for file in store._manifest.files()), store._manifest.name]
    hub.add("own/wide", **{name.replace(".", "__"): (path / name).read_bytes() for name in names})
    before = len(hub.asked)
    program = """
from msr_enhance import KnowledgeStore
store = KnowledgeStore.from_pretrained("own/wide")
print(store.count("user"), store.vectors("user", [3, 1]).shape)
"""
    assert run("-c", program).stdout.strip() == "40 (2, 6)"
    got = {line for line in hub.asked[before:] if line.startswith("GET") and "vec-" in line}
    assert len(got) == 1
    assert store._manifest.entries("user")[0].vectors.name in next(iter(got))


def test_a_moved_branch_changes_nothing_for_who_has_opened(hub: Hub, store: Path, run: Callable[..., Any]):
    run("store", "push", store, "own/store", "--raw-ids")
    old = hub.repositories["own/store"].refs["main"]
    with StoreWriter.open(store, PROVENANCE) as writer:
        writer.drop("user", [7])
    program = f"""
import subprocess, sys
from msr_enhance import KnowledgeStore
store = KnowledgeStore.from_pretrained("own/store")
done = subprocess.run([{str(COMMAND)!r}, "store", "push", {str(store)!r}, "own/store", "--raw-ids"])
assert done.returncode == 0
print(store.vectors("user", [7]).shape, store.commit, store.newest().count("user"), store.newest().commit)
"""
    words = run("-c", program).stdout.splitlines()[-1].split()
    assert words[0:2] == ["(1,", "6)"]
    assert words[2] == old
    assert words[3] == "4"
    assert words[4] == hub.repositories["own/store"].refs["main"] != old


def test_a_damaged_file_on_the_hub_is_an_error(hub: Hub, store: Path, run: Callable[..., Any]):
    run("store", "push", store, "own/store", "--raw-ids")
    hub.fail("GET .*(vec-|/own/store/[0-9a-f]{64})", "wrong", times=99)
    program = """
from msr_enhance import KnowledgeStore
KnowledgeStore.from_pretrained("own/store", verify=True)
"""
    assert "StoreCorruptError" in run("-c", program, code=1).stderr
