"""Pushing a store's files to a Hub on this machine, through the Hub's own client, with every fault.

It proves: private unless told otherwise and never public by surprise, one commit or none, no other file
than those named, no second sending of what had arrived, and no commit of somebody else overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store.hub.client import Client, RefusedError
from store.hub.server import Hub

FILES = {
    "README.md": b"---\nlicense: mit\n---\n# A store\n",
    "manifest-2.json": b'{"version": 2}',
    "vec-aa.safetensors": b"a" * 5000,
    "vec-bb.safetensors": b"b" * 6000,
}
OURS = r"(manifest|vec)-.*"
SENT = "^PUT /own/store/"
Start = Callable[..., Client]


@pytest.fixture
def push(client: Client, folder: Path) -> Callable[..., Any]:
    def do(**options: Any) -> Any:
        return client.call("push", "own/store", folder, list(FILES), **{"delete": OURS, **options})

    return do


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "store"
    made.mkdir()
    for name, data in {**FILES, "secret.txt": b"not in the list"}.items():
        (made / name).write_bytes(data)
    return made


def test_a_push_makes_a_private_repository_with_these_files_in_one_commit(
    hub: Hub, client: Client, push: Callable[..., Any]
) -> None:
    done = push()
    made = hub.repositories["own/store"]
    assert made.private
    assert made.head == FILES
    assert len(made.commits) == 2
    assert made.commits[done["commit"]].title == "push"
    assert done["commit"] == made.refs["main"]
    assert (done["private"], done["added"], done["deleted"]) == (True, sorted(FILES), [])
    assert done["uploaded_bytes"] == sum(len(data) for data in FILES.values())
    assert done["url"] == f"{hub.url}/datasets/own/store"
    assert hub.leaked == []
    client.call("resolve", "own/store")
    assert Path(client.call("fetch", "vec-aa.safetensors")).read_bytes() == FILES["vec-aa.safetensors"]
    before = len(hub.asked)
    again = push()
    assert (again["commit"], again["added"], again["uploaded_bytes"]) == (done["commit"], [], 0)
    assert again["said"] == [
        f"own/store holds all of this already, at commit {done['commit']}; nothing to push."
    ]
    assert hub.asked[before:] == ["GET /api/datasets/own/store"]


def test_old_files_of_ours_go_with_the_same_commit_and_those_of_others_stay(
    hub: Hub, push: Callable[..., Any]
) -> None:
    old = {"manifest__1__json": b"1", "NOTES__md": b"mine", "vec-zz__bin": b"z" * 3000}
    made = hub.add(
        "own/store", **{name.replace("manifest__1", "manifest-1"): data for name, data in old.items()}
    )
    made.put(**{"folder/vec-yy__bin": b"y", "vec-aa__safetensors": b"old"})
    commits = len(made.commits)
    done = push()
    assert done["deleted"] == ["manifest-1.json", "vec-zz.bin"]
    assert made.head == {**FILES, "NOTES.md": b"mine", "folder/vec-yy.bin": b"y"}
    assert len(made.commits) == commits + 1
    push(delete=".*")
    assert made.head == {**FILES, "folder/vec-yy.bin": b"y"}
    assert ".gitattributes" in made.commits[made.refs["main"]].files


def test_a_public_repository_is_refused_before_anything_is_sent(hub: Hub, push: Callable[..., Any]) -> None:
    made = hub.add("own/store", private=False)
    with pytest.raises(RefusedError, match=r"StoreError: own/store is public: .*Nothing was sent.*/settings"):
        push()
    assert hub.asked == ["GET /api/datasets/own/store"]
    assert push(public_allowed=True)["private"] is False
    assert made.head == FILES


def test_the_visibility_of_a_repository_that_is_there_is_never_changed(
    hub: Hub, push: Callable[..., Any]
) -> None:
    made = hub.add("own/store")
    assert push(public_allowed=True, private=False)["private"] is True
    assert made.private


def test_a_public_repository_is_made_only_where_both_words_say_so(hub: Hub, push: Callable[..., Any]) -> None:
    with pytest.raises(RefusedError, match=r"StoreError: private=False .* needs public_allowed=True"):
        push(private=False)
    assert hub.asked == []
    assert push(private=False, public_allowed=True)["private"] is False
    assert not hub.repositories["own/store"].private


def test_a_repository_that_turns_public_during_the_upload_gets_no_commit(
    hub: Hub, push: Callable[..., Any]
) -> None:
    made = hub.add("own/store")
    hub.fail(SENT, how="then", hook=lambda: setattr(made, "private", False))
    with pytest.raises(
        RefusedError, match=r"StoreError: own/store is public: .*Nothing of this push is visible"
    ):
        push()
    assert made.head == {}


def test_a_repository_that_turns_public_with_the_commit_is_shouted_about(
    hub: Hub, push: Callable[..., Any]
) -> None:
    made = hub.add("own/store")
    hub.fail("/commit/main", how="then", hook=lambda: setattr(made, "private", False))
    with pytest.raises(RefusedError, match=r"StoreError: own/store IS PUBLIC since this push.*/settings"):
        push()


def test_a_name_that_is_no_plain_file_is_not_sent(hub: Hub, client: Client, folder: Path) -> None:
    (folder / ".gitignore").touch()
    for name in ("../store/README.md", "sub/README.md", ".gitignore", "/etc/hostname", "a b"):
        with pytest.raises(RefusedError, match=r"StoreError: .* is not sent: only plain file names"):
            client.call("push", "own/store", folder, ["README.md", name])
    assert hub.asked == []


def test_links_folders_and_missing_files_are_not_sent_and_hard_links_are(
    hub: Hub, client: Client, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"private")
    (folder / "link.json").symlink_to(outside)
    (folder / "folder.json").mkdir()
    for name, kind in (("link", "is a symbolic link"), ("folder", "is no regular"), ("gone", "No such file")):
        with pytest.raises(RefusedError, match=rf"StoreError: .*{name}\.json.* {kind}"):
            client.call("push", "own/store", folder, ["README.md", f"{name}.json"])
    assert hub.asked == []
    (tmp_path / "second").hardlink_to(folder / "README.md")
    client.call("push", "own/store", folder, ["README.md"])
    assert set(hub.repositories["own/store"].head) == {"README.md"}


def test_the_commit_of_somebody_else_is_a_conflict_and_stays(hub: Hub, push: Callable[..., Any]) -> None:
    made = hub.add("own/store", **{"manifest-1__json": b"1"})
    head = made.refs["main"]
    hub.fail("/commit/main", how="then", hook=lambda: made.put(other__json=b"{}"))
    with pytest.raises(
        RefusedError, match=f"StoreError: Conflict: own/store was at commit {head} .* and is at"
    ):
        push()
    assert made.head == {"manifest-1.json": b"1", "other.json": b"{}"}
    sent = hub.count(SENT)
    push()
    assert made.head == {**FILES, "other.json": b"{}"}
    assert hub.count(SENT) == sent


def test_a_killed_push_is_invisible_and_the_next_one_sends_only_the_rest(
    hub: Hub, start: Start, folder: Path
) -> None:
    made = hub.add("own/store")
    hub.fail(SENT, how="silence", times=1)
    victim = start()
    victim.start("push", "own/store", folder, list(FILES))
    ends = time.monotonic() + 30
    while (hub.count(SENT) < 2 or len(made.stored) < 1) and time.monotonic() < ends:
        time.sleep(0.02)
    victim.kill()
    assert (made.head, len(made.stored)) == ({}, 1)
    before = hub.count(SENT)
    start().call("push", "own/store", folder, list(FILES))
    assert made.head == FILES
    assert hub.count(SENT) == before + 1


def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(
    hub: Hub, push: Callable[..., Any]
) -> None:
    made = hub.add("own/store")
    hub.fail("/commit/main", how="lost")
    done = push()
    assert done["commit"] == made.refs["main"]
    assert made.head == FILES
    assert len(made.commits) == 2
    assert hub.count("/commit/main") == 2


def test_a_busy_hub_gets_its_time_and_the_push_arrives(
    hub: Hub, client: Client, push: Callable[..., Any]
) -> None:
    hub.fail("/api/repos/create", status=429, headers={"Retry-After": "0"})
    hub.fail("/preupload/", status=500)
    hub.fail(SENT, status=503)
    hub.fail("/commit/main", status=504)
    hub.fail("/commit/main", how="silence")
    began = time.monotonic()
    assert push()["added"] == sorted(FILES)
    assert hub.repositories["own/store"].head == FILES
    assert hub.count("/commit/main") == 3
    assert time.monotonic() - began < 15  # the silence alone lasts 20 seconds
    assert client.call("silence") is None  # the process's other uses of the Hub's client are as before


def test_a_hub_that_takes_no_commit_is_named_and_the_same_push_goes_on(
    hub: Hub, push: Callable[..., Any]
) -> None:
    made = hub.add("own/store")
    hub.fail("/commit/main", times=99)
    with pytest.raises(RefusedError, match=r"StoreIOError: .*500 .*Run the same command again; it goes on"):
        push()
    assert (made.head, hub.count("/commit/main")) == ({}, 5)
    hub.heal()
    sent = hub.count(SENT)
    push()
    assert made.head == FILES
    assert hub.count(SENT) == sent


def test_what_the_hub_refuses_says_why_and_nothing_is_visible(
    hub: Hub, start: Start, folder: Path, push: Callable[..., Any]
) -> None:
    made = hub.add("own/store")
    with pytest.raises(RefusedError, match="StoreError: own/store has no revision 'draft'"):
        push(revision="draft")
    with pytest.raises(RefusedError, match="is a commit; a push goes to a branch"):
        push(revision=made.refs["main"])
    made.ignored.add("vec-aa.safetensors")
    with pytest.raises(RefusedError, match=r"StoreError: The Hub left files out .*vec-aa.*\.gitignore"):
        push()
    hub.add("own/store")
    (folder / "README.md").write_bytes(b"---\n\t\n---\n")
    with pytest.raises(RefusedError, match=r"StoreError: The Hub refuses .*Invalid metadata in README\.md"):
        push()
    assert hub.repositories["own/store"].head == {}
    with pytest.raises(
        RefusedError, match=r"StoreError: .*run `hf auth login`|StoreError: The Hub refuses own/new"
    ):
        start(token=None).call("push", "own/new", folder, list(FILES))
    assert "own/new" not in hub.repositories
    with pytest.raises(RefusedError, match=r"StoreIOError: own/store: HF_HUB_OFFLINE is set"):
        start(HF_HUB_OFFLINE="1").call("push", "own/store", folder, list(FILES))


def test_a_branch_of_a_repository_that_is_not_there_makes_no_repository(
    hub: Hub, push: Callable[..., Any]
) -> None:
    with pytest.raises(RefusedError, match=r"StoreError: own/store is no dataset .*'draft' makes neither"):
        push(revision="draft")
    assert hub.asked == ["GET /api/datasets/own/store/revision/draft"]
    push(revision="main")
    assert hub.repositories["own/store"].head == FILES


def test_the_work_of_somebody_else_is_not_overwritten(hub: Hub, push: Callable[..., Any]) -> None:
    theirs = {"README.md": b"# DOI 123", "users.jsonl": b"{}", "data/manifest-1.json": b"1"}
    made = hub.add("own/store", **{name.replace(".", "__"): data for name, data in theirs.items()})
    with pytest.raises(RefusedError, match=r"own/store is no store: it holds 2 .*Push to another name"):
        push(delete=".*")
    assert made.head == theirs
    assert hub.asked == ["GET /api/datasets/own/store"]
    push(ours=r"users\.jsonl")
    assert made.head == {**theirs, **FILES}
    made = hub.add("own/store", README__md=b"# an empty repository with a card")
    push()
    assert made.head == FILES


def test_another_branch_can_be_pushed_to(hub: Hub, push: Callable[..., Any]) -> None:
    made = hub.add("own/store")
    made.refs["draft"] = made.refs["main"]
    push(revision="draft")
    assert made.head == {}
    assert set(FILES) < set(made.commits[made.refs["draft"]].files)
