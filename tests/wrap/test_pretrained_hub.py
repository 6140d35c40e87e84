"""A model goes to a Hub on this machine and comes back, over the real protocol, in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_hub import ModelHub
from programs import Programs
from saving import files, make, make_store
from store.hub.server import TOKEN, environment

from msr_enhance.errors import EnhanceError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.card import card

START = """
import hashlib, json, sys, warnings
import torch
from saving import fresh, load, make, make_store, out, vocabulary
from in_house import KEYS
from msr_enhance.errors import MsrEnhanceError
from msr_enhance.store.knowledge import KnowledgeStore
store = KnowledgeStore.load("store")

def digest(model):
    return hashlib.sha256(out(model.eval()).numpy().tobytes()).hexdigest()

def tried(call):
    try:
        return str(call())
    except MsrEnhanceError as error:
        return f"{type(error).__name__}: {error}"

def moved(model):
    with torch.no_grad():
        next(model.meta.parameters()).add_(1)
    return model

def say(**facts):
    print(json.dumps(facts))
"""


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    server = ModelHub()
    yield server
    server.close()


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    made.close()


@pytest.fixture
def run(hub: ModelHub, programs: Programs, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs a program in a process whose Hub is on this machine; what it says."""
    make_store(tmp_path / "store")

    def call(program: str, home: str = "home", **more: str) -> dict[str, Any]:
        said = programs.run(START + program, {**environment(hub.url, tmp_path / home), **more}, tmp_path)
        assert TOKEN not in said
        return json.loads(said)

    return call


def test_a_model_goes_to_the_hub_and_comes_back(
    hub: ModelHub, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    said = run("""
model = make(store)
first = model.push_to_hub("own/model", license="mit")
again = model.push_to_hub("own/model", license="mit")
before = digest(model)
model.save_pretrained("one")
second = moved(model).push_to_hub("own/model", license="mit")
say(first=first.commit, private=first.private, url=first.url, added=first.added, bytes=first.uploaded_bytes,
    again=[again.commit, again.added], before=before, second=second.commit, after=digest(model))
""")
    made = hub.repositories["own/model"]
    assert said["private"]
    assert made.private
    assert said["url"] == f"{hub.url}/own/model"
    assert said["added"] == ["README.md", "config.json", "model.safetensors"]
    assert said["again"] == [said["first"], []]
    assert len(made.commits) == 3, "the Hub's own, and one for each push that changed something"
    assert {name: data for name, (_, data) in made.commits[said["first"]].files.items()} == {
        **files(tmp_path / "one"),
        "README.md": made.commits[said["first"]].files["README.md"][1],
        ".gitattributes": made.commits[said["first"]].files[".gitattributes"][1],
    }
    assert hub.leaked == []
    found = run(
        f"""
first = load("own/model", store, revision="{said["first"]}")
same = load("own/model@{said["first"][:40]}", store)
second = load("own/model", store)
second.save_pretrained("two")
say(first=digest(first), same=digest(same), second=digest(second))
""",
        home="other",
    )
    assert found == {"first": said["before"], "same": said["before"], "second": said["after"]}
    for name, data in files(tmp_path / "two").items():
        assert made.head[name] == data
    card_ = made.head["README.md"].decode()
    front = yaml.safe_load(card_.split("---\n")[1])
    assert front["license"] == "mit"
    assert front["library_name"] == "msr-enhance"
    for fact in ("in_house.InHouse", "`concat`", "bottom", "parallel", "own/model", "No user ids"):
        assert fact in card_
    assert KnowledgeStore.load(tmp_path / "store").fingerprint in card_
    assert "user-0" not in card_
    assert "anna" not in card_


def test_a_branch_that_moves_while_it_is_read_and_no_network_later(
    hub: ModelHub, run: Callable[..., dict[str, Any]]
) -> None:
    """Both files are of one commit; and what was read once is read again without the Hub."""
    said = run('model = make(store); model.push_to_hub("own/model"); say(now=digest(model))')
    old = hub.repositories["own/model"].head

    def move() -> None:
        hub.repositories["own/model"].put(**{"config__json": b"{}", "model__safetensors": b"x" * 4000})

    hub.fail("HEAD /own/model/resolve/.*/(config.json|model.safetensors)", "then", times=2, hook=move)
    found = run('say(now=digest(load("own/model", store)))', home="reader")
    assert found == said
    assert hub.repositories["own/model"].head != old, "it had moved"
    program = """
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    model = load("own/model", store)
say(now=digest(model), warned=[str(one.message) for one in seen])
"""
    later = run(program, home="reader", HF_ENDPOINT="http://127.0.0.1:9")
    assert later["now"] == said["now"]
    assert "of the cache is read, which may be old" in later["warned"][0]
    gone = run('say(now=tried(lambda: load("own/none", store)))', HF_HUB_OFFLINE="1")
    assert "StoreIOError" in gone["now"]


def test_what_a_push_refuses(hub: ModelHub, run: Callable[..., dict[str, Any]]) -> None:
    bert = hub.add("own/bert", config__json=b'{"model_type": "bert"}', model__safetensors=b"w" * 3000)
    text = hub.add("own/text", notes__txt=b"mine")
    public = hub.add("own/public", private=False)
    before = {name: len(one.commits) for name, one in hub.repositories.items()}
    said = run("""
model = make(store)
say(bert=tried(lambda: model.push_to_hub("own/bert")), text=tried(lambda: model.push_to_hub("own/text")),
    public=tried(lambda: model.push_to_hub("own/public")), name=tried(lambda: model.push_to_hub("model")),
    license=tried(lambda: model.push_to_hub("own/new", license="a b")),
    branch=tried(lambda: model.push_to_hub("own/text", revision="none")),
    open=model.push_to_hub("own/open", private=False).private)
""")
    assert "EnhanceError: own/bert holds a model that this library did not save" in said["bert"]
    assert "StoreError: own/text is no model: it holds 1 other files" in said["text"]
    assert (
        "StoreError: own/public is public: everybody could read the model. Nothing was sent" in said["public"]
    )
    assert "names no model repository" in said["name"]
    assert "is no licence of the Hub" in said["license"]
    assert "has no revision 'none'" in said["branch"]
    assert said["open"] is False
    assert "own/new" not in hub.repositories
    assert {name: len(hub.repositories[name].commits) for name in before} == before
    assert (len(bert.head), len(text.head), len(public.head)) == (2, 1, 0)


def test_a_push_of_somebody_else_in_between_is_not_overwritten(
    hub: ModelHub, run: Callable[..., dict[str, Any]]
) -> None:
    run('make(store).push_to_hub("own/model"); say()')
    made = hub.repositories["own/model"]
    hub.fail("POST /api/models/own/model/commit", "then", hook=lambda: made.put(notes__md=b"theirs"))
    said = run('say(now=tried(lambda: moved(make(store)).push_to_hub("own/model")))')
    assert "Conflict: own/model was at commit" in said["now"]
    assert made.head["notes.md"] == b"theirs"
    assert len(made.commits) == 3


def test_what_a_load_refuses(hub: ModelHub, run: Callable[..., dict[str, Any]]) -> None:
    hub.add("own/empty")
    hub.add("own/large", config__json=b" " * (2 << 20), model__safetensors=b"")
    hub.add("own/bert", config__json=b'{"model_type": "bert"}', model__safetensors=b"w" * 3000)
    gated = hub.add("own/gated", config__json=b"{}")
    gated.gated = True
    said = run("""
make(store).push_to_hub("own/model")
names = ("none", "empty", "large", "bert", "gated")
say(**{name: tried(lambda: load(f"own/{name}", store)) for name in names},
    revision=tried(lambda: load("own/model@v9", store)),
    twice=tried(lambda: load("own/model@a", store, revision="b")))
""")
    assert "own/none is no model repository of the Hub, or is private" in said["none"]
    assert "own/empty@" in said["empty"]
    assert "holds no config.json and so no saved model" in said["empty"]
    assert "2,097,152 bytes; allowed: 1,048,576. Nothing was fetched" in said["large"]
    assert "is no config of an enhanced model" in said["bert"]
    assert "own/gated is gated" in said["gated"]
    assert "own/model has no revision 'v9'" in said["revision"]
    assert "has a revision, and revision='b' is given too" in said["twice"]
    held = hub.repositories["own/model"]
    weights = held.head["model.safetensors"]
    held.put(model__safetensors=weights + b"x" * 4000)
    said = run('say(now=tried(lambda: load("own/model", store)))', home="third")
    assert "Nothing was fetched" in said["now"]
    held.put(model__safetensors=bytes([*weights[:-1], weights[-1] ^ 1]))
    said = run('say(now=tried(lambda: load("own/model", store)))', home="fourth")
    assert "its SHA-256 is" in said["now"]


def test_the_card_says_what_is_personal_and_what_must_be_passed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    cards = []
    for options in ({}, {"learned": ["user"], "keys": {"user": lambda b: b["user"], "scenario": "scenario"}}):
        saved, tensors = make(store, **options)._save(tmp_path, True)
        cards.append(
            card("own/m`o|del", saved, {name: one.numel() for name, one in tensors.items()}, "other")
        )
    assert "vectors of users are trained" not in cards[0]
    assert "The vectors of users are trained and in `model.safetensors`" in cards[1]
    assert "personal data" in cards[1]
    assert "No user ids and no knowledge vectors are in" in cards[0]
    assert "no knowledge vectors but the trained ones of users are in" in cards[1]
    assert "started at the\nknowledge vectors and may still be near them" in cards[1]
    assert 'vocabulary={"user": user_ids}' in cards[0]
    assert 'keys={"user": user_of}' in cards[1]
    assert "# m-o-del" in cards[0]
    with pytest.raises(EnhanceError, match="no licence"):
        card("own/model", saved, {}, "---")
