"""Reading a store's files from a Hub on this machine, through the Hub's own client, with every fault.

It proves: one commit for all files, digests checked, waits as the Hub asks, an end to every silence, the
cache where there is no network, and errors that say what to do and hold no token.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from store.hub.client import Client, RefusedError
from store.hub.contents import Repository
from store.hub.server import TOKEN, Hub

VECTORS, TEXTS = b"v" * 5000, b"texts"
STORAGE = r"^GET /own/store/[0-9a-f]{64}$"
NOWHERE = "http://127.0.0.1:9"
Start = Callable[..., Client]


def promised(data: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


@pytest.fixture
def store(hub: Hub) -> Repository:
    return hub.add("own/store", vec__safetensors=VECTORS, txt__jsonl=TEXTS)


def test_one_request_finds_commit_and_files_and_a_moved_branch_changes_nothing(
    hub: Hub, client: Client, store: Repository
) -> None:
    first = store.refs["main"]
    found = client.call("resolve", "own/store")
    assert hub.asked == ["GET /api/datasets/own/store"]
    assert (found["commit"], found["note"]) == (first, "")
    assert sorted(found["files"]) == [".gitattributes", "txt.jsonl", "vec.safetensors"]
    assert TOKEN not in found["shown"]
    store.put(vec__safetensors=b"w" * 5000, txt__jsonl=None)
    vectors = Path(client.call("fetch", "vec.safetensors", **promised(VECTORS)))
    texts = Path(client.call("fetch", "txt.jsonl", **promised(TEXTS)))
    assert (vectors.read_bytes(), texts.read_bytes()) == (VECTORS, TEXTS)
    assert vectors.parent.name == first
    assert vectors.is_symlink()
    before = len(hub.asked)
    assert client.call("fetch", "vec.safetensors", **promised(VECTORS)) == str(vectors)
    assert len(hub.asked) == before
    assert hub.leaked == []  # the storage is of another origin and must not see the token
    assert client.call("resolve", "hf://datasets/own/store")["commit"] == store.refs["main"]


def test_branches_tags_and_commits_are_found(client: Client, store: Repository) -> None:
    first = store.refs["v1"] = store.refs["main"]
    store.put(more__json=b"{}")
    for name, revision in (("own/store@v1", None), ("own/store", "v1"), ("own/store", first)):
        found = client.call("resolve", name, revision=revision)
        assert found["commit"] == first
        assert "more.json" not in found["files"]


def test_the_hub_is_given_the_time_it_asks_for(hub: Hub, client: Client, store: Repository) -> None:
    for headers in ({"Retry-After": "1"}, {"Retry-After": "date"}, {"RateLimit": '"api";r=0;t=1'}):
        if headers.get("Retry-After") == "date":
            headers = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
        hub.fail("/api/datasets/own/store", status=429, headers=headers)
        assert client.call("resolve", "own/store")["commit"] == store.refs["main"]
        assert 0.9 < hub.times[-1] - hub.times[-2] < 4
    assert len(hub.asked) == 6


def test_a_longer_time_than_anybody_waits_is_said_at_once(
    hub: Hub, client: Client, store: Repository
) -> None:
    hub.fail("/api/datasets/own/store", status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RefusedError, match=r"StoreIOError: .*The Hub asks to come back in 3,600 s\."):
        client.call("resolve", "own/store")
    assert len(hub.asked) == 1


def test_errors_of_the_hub_pass_or_are_named_after_five_tries(
    hub: Hub, client: Client, store: Repository
) -> None:
    hub.fail("GET /api", status=503)
    hub.fail("GET /api", how="lost")
    hub.fail("GET /api", how="silence")
    assert client.call("resolve", "own/store")["note"] == ""
    assert len(hub.asked) == 4
    hub.fail("HEAD /datasets", status=500)
    hub.fail(STORAGE, status=429, headers={"Retry-After": "0"})
    hub.fail(STORAGE, status=502)
    hub.fail(STORAGE, how="lost")
    assert Path(client.call("fetch", "vec.safetensors", **promised(VECTORS))).read_bytes() == VECTORS
    hub.fail("GET /api", times=99)
    with pytest.raises(
        RefusedError, match=r"StoreIOError: own/store: the Hub fails or cannot be reached: .*500"
    ):
        client.call("resolve", "own/store", revision="v7")
    assert hub.count("revision/v7") == 5


def test_a_storage_that_only_fails_ends_after_five_tries_and_the_command_goes_on_later(
    hub: Hub, client: Client, store: Repository
) -> None:
    client.call("resolve", "own/store")
    hub.fail(STORAGE, status=500, times=99)
    with pytest.raises(RefusedError, match=r"StoreIOError: .*Run the same command again; it goes on"):
        client.call("fetch", "vec.safetensors", **promised(VECTORS))
    assert hub.count(STORAGE) == 5
    hub.heal()
    assert Path(client.call("fetch", "vec.safetensors", **promised(VECTORS))).read_bytes() == VECTORS


def test_half_a_body_ends_in_bounded_time_and_leaves_nothing_half(hub: Hub, start: Start) -> None:
    clients = {}
    for how in ("stall", "cut"):
        hub.add(f"own/{how}", vec__safetensors=VECTORS)
        hub.fail(f"^GET /own/{how}/[0-9a-f]{{64}}$", how=how, times=99)
        clients[how] = start()
        clients[how].call("resolve", f"own/{how}")
        clients[how].start("fetch", "vec.safetensors", **promised(VECTORS))
    began = time.monotonic()
    for how, client in clients.items():
        with pytest.raises(RefusedError, match=r"StoreIOError: .*Run the same command again; it goes on"):
            client.answer()
        assert hub.count(f"^GET /own/{how}/[0-9a-f]{{64}}$") == 6
    assert time.monotonic() - began < 20
    hub.heal()
    for client in clients.values():
        path = Path(client.call("fetch", "vec.safetensors", **promised(VECTORS)))
        assert path.read_bytes() == VECTORS
        assert [file.name for file in path.parents[2].rglob("*.incomplete")] == []


def test_other_bytes_than_promised_are_named_and_taken_out_of_the_cache(
    hub: Hub, client: Client, store: Repository
) -> None:
    client.call("resolve", "own/store")
    hub.fail(STORAGE, how="wrong")
    other = hashlib.sha256(bytes([VECTORS[0] ^ 1]) + VECTORS[1:]).hexdigest()
    right = promised(VECTORS)["sha256"]
    said = rf"StoreCorruptError: own/store@.*vec.* came with SHA-256 {other}; promised: SHA-256 {right}"
    with pytest.raises(RefusedError, match=said):
        client.call("fetch", "vec.safetensors", **promised(VECTORS))
    path = Path(client.call("fetch", "vec.safetensors", **promised(VECTORS)))
    assert path.read_bytes() == VECTORS
    assert hub.count(STORAGE) == 2


def test_a_cache_that_rotted_is_found_by_the_next_process(hub: Hub, start: Start, store: Repository) -> None:
    first = start()
    first.call("resolve", "own/store")
    path = Path(first.call("fetch", "vec.safetensors", **promised(VECTORS)))
    for rotten, said in ((b"x" * 5000, "SHA-256"), (b"v" * 4999, "came with 4,999 bytes; promised: 5,000")):
        path.resolve().write_bytes(rotten)
        later = start()
        later.call("resolve", "own/store")
        with pytest.raises(RefusedError, match=f"StoreCorruptError: .*{said}"):
            later.call("fetch", "vec.safetensors", **promised(VECTORS))
        assert not path.is_symlink()
        assert Path(later.call("fetch", "vec.safetensors", **promised(VECTORS))) == path
        assert path.read_bytes() == VECTORS


def test_a_size_that_is_not_the_promised_one_is_seen_before_anything_is_fetched(
    hub: Hub, client: Client, store: Repository
) -> None:
    client.call("resolve", "own/store")
    with pytest.raises(
        RefusedError, match=r"StoreCorruptError: .*5,000 bytes on the Hub where 4,000 are promised"
    ):
        client.call("fetch", "vec.safetensors", size=4000)
    assert hub.count("resolve/") == 0


def test_what_may_not_be_read_says_why(hub: Hub, start: Start, store: Repository) -> None:
    client, stranger = start(), start(token=None)
    store.gated = True
    client.call("resolve", "own/store")
    with pytest.raises(RefusedError, match="StoreError: own/store is gated: accept its terms"):
        client.call("fetch", "vec.safetensors")
    with pytest.raises(RefusedError, match="StoreError: own/store has no revision 'v9'"):
        client.call("resolve", "own/store@v9")
    with pytest.raises(
        RefusedError, match="StoreError: own/none is no dataset repository of the Hub, or is private"
    ):
        client.call("resolve", "own/none")
    with pytest.raises(RefusedError, match=r"StoreError: .*own/store.*run `hf auth login`"):
        stranger.call("resolve", "own/store")
    assert stranger.call("resolve", "own/store", token=TOKEN)["commit"] == store.refs["main"]
    with pytest.raises(RefusedError, match="StoreError: The token holds characters that no token has"):
        client.call("resolve", "own/store", token="hf_secret1234\n")
    with pytest.raises(RefusedError, match=r"StoreError: own/store@.*/gone\.json is not in the repository"):
        client.call("fetch", "gone.json")
    for name in ("../x", "a/b", ".gitattributes", "/etc/passwd"):
        with pytest.raises(RefusedError, match=r"StoreError: .* is no plain file at the top"):
            client.call("fetch", name)


def test_a_hub_that_repeats_the_token_does_not_get_it_printed(
    hub: Hub, client: Client, store: Repository
) -> None:
    hub.fail("GET /api", status=418, times=2)
    for token in (None, "of0another0shape"):
        with pytest.raises(RefusedError, match=r"StoreError: The Hub refuses this .*no luck with <token>"):
            client.call("resolve", "own/store", token=token)


def test_a_digest_is_computed_once_in_a_process_while_the_file_stays(
    client: Client, store: Repository
) -> None:
    client.call("resolve", "own/store")
    path = Path(client.call("fetch", "vec.safetensors", **promised(VECTORS)))
    was = path.stat()
    path.resolve().write_bytes(b"x" * 5000)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    client.call("fetch", "vec.safetensors", **promised(VECTORS))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    with pytest.raises(RefusedError, match="StoreCorruptError"):
        client.call("fetch", "vec.safetensors", **promised(VECTORS))


def test_a_full_disk_is_named_and_the_same_call_goes_on(client: Client, store: Repository) -> None:
    client.call("resolve", "own/store")
    client.call("limit", 4000)
    with pytest.raises(RefusedError, match=r"StoreIOError: own/store: the disk refuses: .*File too large"):
        client.call("fetch", "vec.safetensors", **promised(VECTORS))
    client.call("limit", 2**20)
    path = Path(client.call("fetch", "vec.safetensors", **promised(VECTORS)))
    assert path.read_bytes() == VECTORS


def test_without_a_network_the_cache_answers_and_says_so(hub: Hub, start: Start, store: Repository) -> None:
    first, client = store.refs["main"], start()
    client.call("resolve", "own/store")
    client.call("fetch", "vec.safetensors", **promised(VECTORS))
    for lonely in (start(NOWHERE), start(NOWHERE, HF_HUB_OFFLINE="1")):
        began = time.monotonic()
        found = lonely.call("resolve", "own/store")
        assert (found["commit"], found["files"]) == (first, ["vec.safetensors"])
        assert found["note"].startswith(f"commit {first} of the cache is read, which may be old. own/store")
        path = Path(lonely.call("fetch", "vec.safetensors", **promised(VECTORS)))
        assert path.read_bytes() == VECTORS
        assert time.monotonic() - began < 5
        assert lonely.call("resolve", "own/store", revision=first)["commit"] == first
        with pytest.raises(RefusedError, match=r"StoreIOError: own/store@.*/txt\.jsonl is not in the cache"):
            lonely.call("fetch", "txt.jsonl")
        with pytest.raises(RefusedError, match="StoreIOError: own/store"):
            lonely.call("resolve", "own/store@v1")
        with pytest.raises(RefusedError, match="StoreIOError: own/none"):
            lonely.call("resolve", "own/none")
    hub.asked.clear()
    hub.fail("GET /api", how="lost", times=99)
    assert client.call("resolve", "own/store")["note"] != ""
    assert len(hub.asked) == 1  # nobody waits for a network when the cache knows an answer
    hub.heal()
    hub.fail("GET /api", status=500)
    assert client.call("resolve", "own/store")["note"] == ""


def test_a_cache_that_leads_elsewhere_is_refused_and_nothing_there_is_touched(
    start: Start, store: Repository, tmp_path: Path
) -> None:
    client = start()
    client.call("resolve", "own/store")
    path = Path(client.call("fetch", "vec.safetensors", **promised(VECTORS)))
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(RefusedError, match=re.escape(f"leads out of the Hub's cache, to {outside}")):
        client.call("fetch", "vec.safetensors", **promised(VECTORS))
    assert outside.read_bytes() == b"mine"


def test_calls_of_many_threads_all_end_in_bounded_time_and_leave_the_client_as_it_was(
    client: Client,
) -> None:
    assert client.call("silence") is None
    assert client.call("overlap", 8) == [1.0] * 8 + [None]
