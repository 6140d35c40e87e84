import hashlib
import json

import pytest

from msr_enhance.errors import StoreCorruptError, StoreVersionError
from msr_enhance.fingerprint import canonical_json, fingerprint
from msr_enhance.store.knowledge import KnowledgeStore


@pytest.fixture
def rewrite(folder):
    """Change the newest manifest and give it a checksum that fits, as a hostile or newer writer would."""
    path = max(folder.glob("manifest-*.json"))

    def change(edit):
        content = json.loads(path.read_bytes())
        del content["checksum"]
        edit(content)
        path.write_bytes(canonical_json(content | {"checksum": fingerprint(content)}))
        return folder

    return change


def test_an_unchanged_rewrite_loads(rewrite):
    assert KnowledgeStore.load(rewrite(lambda content: None)).ids("scenario") == ["Toys", "Schön 😀"]


@pytest.mark.parametrize("version", [[2, 1], [3, 0], [99, 3]])
def test_a_newer_format_is_refused_before_it_is_read(rewrite, version):
    def newer(content):
        content.update(format_version=version, shards="another layout", invented=1)

    with pytest.raises(
        StoreVersionError,
        match=rf"{version[0]}\.{version[1]}; this library reads 2\.0.*pip install --upgrade",
    ):
        KnowledgeStore.load(rewrite(newer))


def test_a_store_of_a_pre_release_says_to_extract_again(rewrite):
    def older(content):
        content.update(format_version=[1, 1], dim={"user": 3})

    with pytest.raises(
        StoreVersionError, match=r"1\.1, written by a pre-release.*reads 2\.0\. Extract again"
    ):
        KnowledgeStore.load(rewrite(older))


def put(*path, value):
    def edit(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return edit


def tombstone(level):
    file = {"kind": "del", "bytes": 9, "sha256": "0" * 64}
    return {"level": level, "rows": 1, "tier": 0, "ids": file}


HOSTILE = {
    "format": put("format", value="zip"),
    "unknown key": put("extra", value=1),
    "unknown inner key": put("shards", 0, "name", value="../../etc/passwd"),
    "sha": put("shards", 0, "vectors", "sha256", value="../../../etc/passwd"),
    "sha upper": put("shards", 0, "vectors", "sha256", value="A" * 64),
    "kind": put("shards", 0, "vectors", "kind", value="/tmp/x"),
    "rows": put("shards", 0, "rows", value=10**30),
    "rows text": put("shards", 0, "rows", value="3"),
    "negative": put("shards", 0, "rows", value=-1),
    "bytes": put("shards", 0, "vectors", "bytes", value=10**15),
    "more rows": put("shards", 0, "rows", value=4),
    "level": put("shards", 0, "level", value="item"),
    "other level": put("shards", -1, "level", value="scenario"),
    "tier": put("shards", 0, "tier", value=-1),
    "tier text": put("shards", 0, "tier", value="0"),
    "width": put("shape", "user", value=[4]),
    "layers": put("shape", "user", value=[2, 3]),
    "too deep": put("shape", "user", value=[1, 1, 3]),
    "shape empty": put("shape", "user", value=[]),
    "shape zero": put("shape", "user", value=[0]),
    "shape huge": put("shape", "user", value=[2**62, 2**62]),
    "shape absent": put("shape", value={}),
    "id type": put("id_type", "user", value="str"),
    "dtype": put("dtype", value="float16"),
    "dtype object": put("dtype", value="object"),
    "version": put("version", value=9),
    "float version": put("version", value=4.0),
    "store": put("store", value="x"),
    "format version": put("format_version", value=["2", 0]),
    "format version short": put("format_version", value=[]),
    "no shards": put("shards", value=[]),
    "tombstone alone": lambda content: content.update(shards=[tombstone("user"), *content["shards"][:1]]),
    "tombstone of another level": lambda content: content.update(
        shards=[entry for entry in content["shards"] if entry["level"] == "user"] + [tombstone("scenario")],
        shape={"user": [3]},
        id_type={"user": "int"},
    ),
    "tombstone of no file": lambda content: content["shards"].append(tombstone("user")),
    "tombstone with texts": lambda content: content["shards"].append(tombstone("user") | {"texts": None}),
    "shard twice": lambda content: content["shards"].append(content["shards"][0]),
    "absent shard": put("shards", 0, "vectors", "sha256", value="0" * 64),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_does_not_fit_is_refused(rewrite, case):
    with pytest.raises(StoreCorruptError):
        KnowledgeStore.load(rewrite(HOSTILE[case]))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"[" * 10**6, b'{"format":1e999}', b"\xff", b"9" * 10**5],
    ids=range(8),
)
def test_other_bytes_are_refused(folder, data):
    (folder / "manifest-5.json").write_bytes(data)
    with pytest.raises(StoreCorruptError, match=r"manifest-5\.json"):
        KnowledgeStore.load(folder)


def test_another_spelling_is_refused(folder):
    path = max(folder.glob("manifest-*.json"))
    good = path.read_bytes()
    for bad in (good + b"\n", good.replace(b'"dtype":', b'"dtype": '), b'{"version":4,' + good[1:]):
        path.write_bytes(bad)
        with pytest.raises(StoreCorruptError, match="canonical"):
            KnowledgeStore.load(folder)


def test_an_oversized_manifest_is_not_read(folder):
    with (folder / "manifest-5.json").open("wb") as file:
        file.truncate((4 << 20) + 1)
    with pytest.raises(StoreCorruptError, match="4 MiB"):
        KnowledgeStore.load(folder)


def test_the_chain_and_the_fingerprint(folder):
    older, newest = (folder / f"manifest-{version}.json" for version in (3, 4))
    digest = hashlib.sha256(older.read_bytes()).hexdigest()
    assert json.loads(newest.read_bytes())["parent"] == digest
    assert KnowledgeStore.load(folder).fingerprint == hashlib.sha256(newest.read_bytes()).hexdigest()


def test_a_damaged_newest_version_is_never_skipped(folder):
    (folder / "manifest-4.json").write_bytes(b"")
    with pytest.raises(StoreCorruptError, match=r"manifest-4\.json"):
        KnowledgeStore.load(folder)
