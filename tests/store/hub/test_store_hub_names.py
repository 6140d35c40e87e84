"""Which names of dataset repositories are read, and what is said of others."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from msr_enhance.errors import StoreError
from msr_enhance.store.hub.repository import Name, is_bare, parse_name

REFUSED = [
    "",
    "name",
    "own/store/more",
    "/own/store",
    "own/",
    "own/st ore",
    "own/store\n",
    "own/-store",
    "own/store.",
    "own/st--ore",
    "own/st..ore",
    "own/../store",
    "../store",
    "own/store.git",
    "own/störe",
    f"own/{'a' * 97}",
]


@pytest.mark.parametrize(
    ("name", "revision", "read"),
    [
        ("own/store", None, Name("own/store")),
        ("own/store", "v1.0", Name("own/store", "v1.0")),
        ("own/store@refs/pr/3", None, Name("own/store", "refs/pr/3")),
        ("hf://datasets/Own-1/st_o.re", None, Name("Own-1/st_o.re")),
        ("hf://datasets/own/store@refs%2Fpr%2F3", None, Name("own/store", "refs/pr/3")),
        ("hf://datasets/own/store", "main", Name("own/store", "main")),
    ],
)
def test_the_ways_to_write_a_name_are_read(name: str, revision: str | None, read: Name) -> None:
    assert parse_name(name, revision) == read
    validate_repo_id(read.repo)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_hub_would_refuse_is_refused_with_what_is_allowed(name: str) -> None:
    for whole in (name, f"hf://datasets/{name}", f"{name}@main"):
        with pytest.raises(StoreError, match="Allowed: owner/name, owner/name@revision, hf://datasets/"):
            parse_name(whole)
    if name.count("/") == 1 and all(name.split("/")) and "/../" not in name:
        with pytest.raises(HFValidationError):
            validate_repo_id(name)


@pytest.mark.parametrize(
    "name", ["hf://own/store", "hf://models/own/store", "hf://spaces/own/s", "https://x/y"]
)
def test_other_kinds_of_addresses_are_refused(name: str) -> None:
    with pytest.raises(StoreError, match="no dataset repository"):
        parse_name(name)


def test_a_revision_given_twice_is_refused() -> None:
    with pytest.raises(StoreError, match="has a revision, and revision='v2' is given too"):
        parse_name("own/store@v1", "v2")


@pytest.mark.parametrize(
    "revision", ["", "..", "a..b", "../x", "/x", "a//b", "a b", "-x", "x/.y", "x.lock", "a\n"]
)
def test_what_is_no_revision_is_refused(revision: str) -> None:
    for name, given in ((f"own/store@{revision}", None), ("own/store", revision)):
        with pytest.raises(StoreError, match="is no branch, tag or commit"):
            parse_name(name, given)


@pytest.mark.parametrize(
    "name", ["a/b", "a\\b", "..", ".git", ".gitattributes", "-x", "C:x", "", "a b", "a\n", "é", "x" * 201]
)
def test_a_name_with_more_than_a_file_in_it_is_not_bare(name: str) -> None:
    assert is_bare("vec-0a.safetensors")
    assert not is_bare(name)
