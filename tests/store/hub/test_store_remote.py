"""A store that lives on the Hub: opened, kept open, sent to other processes, and read without a network.

It proves: a local folder never stands in for the Hub, the cache answers for every commit whose files it
has and says so, no token leaves with a pickled store, and nothing is fetched for nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store.hub.server import TOKEN, Hub, environment

from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import MANIFEST_BYTES, Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(identity={"llm": {"model": "tiny"}}, window={"protocol": "window"})
PULL = "from msr_enhance.cli.app import app; app()"
HEAD = """
import json, sys, warnings
from msr_enhance import KnowledgeStore
warnings.simplefilter("always")
"""
NOWHERE = "http://127.0.0.1:9"


def row(name: int) -> Record:
    vector = np.random.default_rng(name).normal(size=6).astype(np.float32)
    return Record(name, "ok", f"prompt {name}", "an answer", {"n": 1}, 3, 4, vector)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "knowledge"
    append(path, range(400))
    return path


def append(path: Path, names: Any) -> None:
    with StoreWriter.open(path, PROVENANCE) as writer:
        writer.append("user", [row(name) for name in names])


def files_of(path: Path) -> dict[str, bytes]:
    manifest = KnowledgeStore.load(path)._manifest
    names = [*(file.name for file in manifest.files()), manifest.name]
    return {name.replace(".", "__"): (path / name).read_bytes() for name in names}


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Callable[..., Any]:
    """Runs a program in a process whose Hub is on this machine; the lines it printed."""

    def call(program: str, *words: Any, code: int = 0, **more: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", program if program == PULL else HEAD + program, *map(str, words)],
            env={**os.environ, **environment(hub.url, tmp_path / "home"), **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done

    return call


def test_a_folder_of_the_same_name_never_stands_in_for_the_hub(
    hub: Hub, store: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    first = hub.add("own/store", **files_of(store)).refs["main"]
    append(store, [777])
    program = """
import shutil
store = KnowledgeStore.from_pretrained("own/store")
shutil.copytree(sys.argv[1], "own/store")
assert store.newest() is store
assert KnowledgeStore.from_pretrained("own/store").commit is None
print(KnowledgeStore.from_pretrained("hf://datasets/own/store").commit)
print(KnowledgeStore.from_pretrained("hf://datasets/own/store@main").newest().count("user"))
"""
    assert run(program, store).stdout.split() == [first, "400"]
    done = run(PULL, "store", "pull", "own/store", "--out", "pulled", "--json")
    assert json.loads(done.stdout) == {
        "store": str(tmp_path / "pulled"),
        "commit": first,
        "fingerprint": KnowledgeStore.load(tmp_path / "pulled", verify=True).fingerprint,
        "rows": {"user": 400},
        "note": "",
    }
    assert KnowledgeStore.load(tmp_path / "pulled").count("user") == 400
    for only_here in (store, "./own/store"):
        done = run(PULL, "store", "pull", only_here, "--out", "other", code=6)
        assert "names no dataset repository" in done.stderr
    assert not (tmp_path / "other").exists()


def test_a_place_that_a_pull_cannot_write_to_is_refused_before_the_hub_is_asked(
    hub: Hub, store: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    hub.add("own/store", **files_of(store))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    for out, said in (("file", "is a file"), ("full", "holds 'notes'"), (store, "holds '")):
        assert said in run(PULL, "store", "pull", "own/store", "--out", out, code=6).stderr
    assert hub.asked == []


def test_a_commit_that_changes_only_the_card_leaves_a_cached_store_readable_offline(
    hub: Hub, store: Path, run: Callable[..., Any]
) -> None:
    made = hub.add("own/store", **files_of(store))
    read = """
store = KnowledgeStore.from_pretrained("own/store", verify=not sys.argv[1:])
print(store.commit, store.vectors("user", range(400)).shape)
"""
    assert run(read).stdout.split() == [made.refs["main"], "(400,", "6)"]
    now = made.put(README__md=b"# hello")
    assert run("print(KnowledgeStore.from_pretrained('own/store').commit)").stdout.split() == [now]
    for cut_off in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}):
        done = run(read, "as it comes", **cut_off)
        assert done.stdout.split() == [now, "(400,", "6)"]
        assert f"UserWarning: own/store: commit {now} of the cache is read, which may be old." in done.stderr
    done = run(PULL, "store", "pull", "own/store", "--out", "copy", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(done.stdout)["note"].startswith(f"commit {now} of the cache is read")
    assert f"warning: commit {now} of the cache is read" in done.stderr


def test_files_that_the_cache_has_of_another_commit_are_not_asked_for_again(
    hub: Hub, store: Path, run: Callable[..., Any]
) -> None:
    made = hub.add("own/store", **files_of(store))
    run("KnowledgeStore.from_pretrained('own/store', verify=True)")
    now = made.put(README__md=b"# hello")
    before = len(hub.asked)
    program = """
store = KnowledgeStore.from_pretrained("own/store", verify=True)
print(store.commit, store.vectors("user", [3]).shape)
"""
    assert run(program).stdout.split() == [now, "(1,", "6)"]
    assert len(hub.asked) == before + 2  # the commit, and that its manifest is the one of before
    assert hub.count("/vec-") == 1  # by the process before


def test_what_the_cache_lacks_names_the_commits_it_has(
    hub: Hub, store: Path, run: Callable[..., Any]
) -> None:
    made = hub.add("own/store", **files_of(store))
    first = made.refs["main"]
    run("KnowledgeStore.from_pretrained('own/store', verify=True)")
    append(store, [777])
    made.put(**files_of(store))
    run("KnowledgeStore.from_pretrained('own/store')")
    read = "print(KnowledgeStore.from_pretrained('own/store', {}).text('user', 777 if {} else 3))"
    done = run(read.format(None, True), code=1, HF_HUB_OFFLINE="1")
    assert "is not in the cache" in done.stderr
    assert f"to be named as revision: {first}." in done.stderr
    done = run(read.format(repr(first), False), HF_HUB_OFFLINE="1")
    assert done.stdout.strip() == "an answer"


def test_newest_never_goes_back_to_what_the_cache_knows(
    hub: Hub, store: Path, run: Callable[..., Any]
) -> None:
    made = hub.add("own/store", **files_of(store))
    first = made.refs["main"]
    append(store, [777])
    made.put(**files_of(store))
    program = f"""
import pathlib
store = KnowledgeStore.from_pretrained("own/store")
ref, = pathlib.Path("home").rglob("refs/main")
KnowledgeStore.from_pretrained("own/store", {first!r})
ref.write_text({first!r})
assert store.newest() is store
print(store.commit)
"""
    hub.fail("GET /api/datasets/own/store$", how="then", times=1)
    hub.fail("GET /api/datasets/own/store$", how="lost", times=99)
    done = run(program)
    assert done.stdout.split() == [made.refs["main"]]
    assert f"UserWarning: own/store: commit {first} of the cache is read" in done.stderr


def test_a_pickled_store_holds_no_token_and_opens_where_the_cache_is_gone(
    hub: Hub, store: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    made = hub.add("own/store", **files_of(store))
    program = f"""
import pickle
store = KnowledgeStore.from_pretrained("own/store", token={TOKEN!r})
store.vectors("user", [3])
data = pickle.dumps(store)
assert {TOKEN.encode()!r} not in data
open("pickled", "wb").write(data)
"""
    run(program, HF_TOKEN="")
    made.put(README__md=b"# moved on")
    read = """
import pickle
store = pickle.load(open("pickled", "rb"))
print(store.commit, store.vectors("user", [3, 399]).shape)
"""
    commit = next(oid for oid, commit in made.commits.items() if commit.parent and oid != made.refs["main"])
    asked = len(hub.asked)
    assert run(read, HF_TOKEN="").stdout.split() == [commit, "(2,", "6)"]
    assert len(hub.asked) == asked  # all of it is in the cache
    home = str(tmp_path / "another")
    done = run(read, HF_HOME=home, HF_TOKEN="", code=1)
    assert "own/store is no dataset repository of the Hub, or is private and no token" in done.stderr
    done = run(read, HF_HOME=home, HF_HUB_OFFLINE="1", code=1)
    assert "StoreIOError: own/store: HF_HUB_OFFLINE is set" in done.stderr
    assert run(read, HF_HOME=home).stdout.split() == [commit, "(2,", "6)"]


def test_a_manifest_larger_than_any_is_refused_before_it_is_fetched(
    hub: Hub, run: Callable[..., Any]
) -> None:
    made = hub.add("own/store", **{"manifest-1__json": b"{" + b" " * MANIFEST_BYTES})
    done = run("KnowledgeStore.from_pretrained('own/store')", code=1)
    said = f"StoreCorruptError: own/store@{made.refs['main'][:12]}/manifest-1.json has {MANIFEST_BYTES + 1:,}"
    assert said in done.stderr
    assert hub.count("/resolve/") == 0


def test_the_manifest_of_a_repository_is_told_and_none_where_there_is_none(
    hub: Hub, store: Path, run: Callable[..., Any]
) -> None:
    made = hub.add("own/store", **files_of(store))
    made.put(**{name: None for name in files_of(store) if not name.startswith("manifest")})
    hub.add("own/other", notes__txt=b"mine")
    program = """
from msr_enhance.store.hub.remote import remote_manifest
print(remote_manifest("own/store", None, None).store)
print(remote_manifest("own/other", None, None), remote_manifest("own/none", "draft", None))
remote_manifest("own/store", sys.argv[1] or None, None)
"""
    there = KnowledgeStore.load(store)._manifest.store
    done = run(program, "draft", code=1)
    assert done.stdout.split() == [there, "None", "None"]
    assert "own/store has no revision 'draft'" in done.stderr
    done = run(program, "", code=1, HF_HUB_OFFLINE="1")  # the cache has it, and may be old
    assert done.stdout == ""
    assert "StoreIOError: own/store: what it holds now is not known; commit" in done.stderr


def test_rows_after_the_first_ask_nobody_and_a_file_that_changed_is_looked_at_again(
    hub: Hub, store: Path, run: Callable[..., Any]
) -> None:
    hub.add("own/store", **files_of(store))
    program = """
import time
import huggingface_hub
from msr_enhance import KnowledgeStore
store = KnowledgeStore.from_pretrained("own/store")
first = store.vectors("user", [3])
real, asked = huggingface_hub.hf_hub_download, []
huggingface_hub.hf_hub_download = lambda *given, **named: asked.append(given) or real(*given, **named)
for _ in range(100):
    assert (store.vectors("user", [3]) == first).all()
print(len(asked))
path = next(store.path.glob("vec-*")).resolve()
path.write_bytes(path.read_bytes()[:-1])
try:
    store.vectors("user", [3])
except Exception as error:
    print(type(error).__name__)
assert (store.vectors("user", [3]) == first).all()  # fetched again
print(len(asked))
"""
    assert run(program).stdout.split() == ["0", "StoreCorruptError", "1"]
