"""What leaves with a shared copy, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msr_enhance.cli.app import app
from msr_enhance.errors import StoreError
from msr_enhance.store.adopt import Version
from msr_enhance.store.derive.make import project, to_int8
from msr_enhance.store.derive.personal import traces
from msr_enhance.store.derive.share import share, without_places
from msr_enhance.store.keyed import keyed_id
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter
from msr_enhance.wrap.enhance import enhance

KEY = bytes(range(32))


def row(name, text="an answer", facts=None, width=6):
    vector = (
        np.random.default_rng(len(str(name)) + sum(str(name).encode())).normal(size=width).astype(np.float32)
    )
    return Record(name, "ok", f"a prompt\nof many lines\n{name}", text, facts or {}, 3, 4, vector)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with StoreWriter.open(tmp_path / "store", Provenance(identity={"llm": {}}, window={})) as writer:
        writer.append("scenario", [row("shop"), row("news")])
        writer.append("user", [row(name) for name in range(12)])
    return writer.path


@pytest.mark.parametrize("small", [to_int8, lambda source, out: project(source, out, 3)])
def test_scenarios_alone_bring_nothing_that_was_made_of_users(store, tmp_path, small):
    small(Version.of(store), tmp_path / "small")
    shared = share(
        Version.of(tmp_path / "small"), tmp_path / "out", name="o/x", key=None, levels=("scenario",)
    )
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == set(shared.files)
    made = KnowledgeStore.load(tmp_path / "out", verify=True)
    named = {file.name for file in made._manifest.files()}
    assert {name for name in there if name.startswith(("vec-", "map-", "txt-"))} == named
    assert {each.level for each in made._manifest.maps} <= {"scenario"}


@pytest.mark.parametrize("key", [b"", b"a", bytes(31), bytes(65), bytearray(32), 7])
def test_a_weak_key_is_refused(store, tmp_path, key):
    with pytest.raises(StoreError, match="32 bytes"):
        KnowledgeStore.load(store).save_pretrained(tmp_path / "out", key=key)
    assert not (tmp_path / "out").exists()


def test_what_says_two_things_is_refused(store, tmp_path):
    plain = KnowledgeStore.load(store)
    with pytest.raises(StoreError, match="both given"):
        plain.save_pretrained(tmp_path / "a", key=KEY, raw_ids=True)
    with pytest.raises(StoreError, match="no key was given"):
        plain.save_pretrained(tmp_path / "a")
    with pytest.raises(StoreError, match="level 'users' is not known"):
        plain.save_pretrained(tmp_path / "a", raw_ids=True, levels=("users", "scenario"))
    with pytest.raises(StoreError, match="no licence"):
        plain.save_pretrained(tmp_path / "a", raw_ids=True, license="My own\n---")
    plain.save_pretrained(tmp_path / "keyed", key=KEY)
    keyed = KnowledgeStore.load(tmp_path / "keyed")
    with pytest.raises(StoreError, match="another key"):
        keyed.save_pretrained(tmp_path / "b", key=bytes(32))
    with pytest.raises(StoreError, match="no ids but keyed hashes"):
        keyed.save_pretrained(tmp_path / "b", raw_ids=True)
    keyed.save_pretrained(tmp_path / "b", key=KEY)
    assert KnowledgeStore.load(tmp_path / "b", key=KEY).vectors("user", [3]).any()


def test_a_shared_copy_that_was_killed_is_made_again(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("README.md", "users.jsonl", "vec-" + "0" * 32 + ".safetensors", ".tmp-ab"):
        (out / name).write_bytes(b"half")
    KnowledgeStore.load(store).save_pretrained(out, raw_ids=True)
    assert KnowledgeStore.load(out, verify=True).count("user") == 12
    assert not list(out.glob("vec-000*"))
    with pytest.raises(StoreError, match="empty folder"):
        KnowledgeStore.load(store).save_pretrained(out, raw_ids=True)


def test_forgetting_in_a_shared_copy_takes_the_lists_too(store, tmp_path):
    KnowledgeStore.load(store).save_pretrained(tmp_path / "raw", raw_ids=True, texts=True)
    KnowledgeStore.load(store).save_pretrained(tmp_path / "keyed", key=KEY)
    key = tmp_path / "key"
    key.write_text(KEY.hex())
    for folder, more in (("raw", []), ("keyed", ["--key", str(key)])):
        words = ["store", "forget", str(tmp_path / folder), "--user", "3", *more]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        left = b"".join(path.read_bytes() for path in (tmp_path / folder).iterdir() if path.is_file())
        assert keyed_id(KEY, 3).encode() not in left
        assert json.dumps("a prompt\nof many lines\n3")[1:-1].encode() + b'"' not in left
    (tmp_path / "store" / "notes.jsonl").write_text(json.dumps({"prompt": "a prompt\nof many lines\n5"}))
    done = CliRunner().invoke(app, ["store", "forget", str(store), "--user", "5"])
    assert done.exit_code == 6
    assert "notes.jsonl" in done.output


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (7, "write to anna@example.org", "e-mail addresses"),
        (7, "call +49 170 1234567 now", "phone numbers"),
        (123456789, "Member 123456789 likes", "the user's own id"),
        (5, "User id: 5 likes", "the user's own id"),
        (5, "user_5", "the user's own id"),
        ("Anna.Smith", "for anna.smith we", "the user's own id"),
        ("bob77", "reader bob77", "the user's own id"),
        (None, "anna@example.org", "e-mail addresses"),
        (5, "5 stars, and user 57", None),
        ("bob77", "bob778", None),
        (None, "user 5", None),
    ],
)
def test_what_looks_personal_is_found(name, text, found):
    assert dict(traces([(name, text)])) == ({found: 1} if found else {})


def test_texts_of_scenarios_and_facts_are_looked_at_too(store, tmp_path):
    with StoreWriter.open(store, KnowledgeStore.load(store).provenance) as writer:
        writer.append("scenario", [row("video", "ask anna@example.org")])
        writer.append("user", [row(77, facts={"contact": "bob@example.org"})])
    shared = KnowledgeStore.load(store).save_pretrained(tmp_path / "out", raw_ids=True, texts=True)
    assert shared.traces["e-mail addresses"] == 2


@pytest.mark.parametrize(
    "path",
    [
        "/home/anna/x",
        "../anna/models/x",
        "models/anna/x",
        "C:/Users/anna/x",
        "C:\\Users\\anna\\x",
        " /home/anna/x",
        "--config=/home/anna/x",
        "from /home/anna/x",
        "$HOME/anna/x",
        "a\n/home/anna/x",
        "file:///home/anna/x",
    ],
)
def test_no_path_of_this_machine_is_in_the_provenance(path):
    made = Provenance(identity={"llm": {"model": path, path: [path]}}, window={}, facts={"log": path})
    assert "anna" not in str(without_places(made))


def test_names_of_the_hub_and_of_scenarios_stay():
    identity = {"llm": {"model": "THUDM/chatglm2-6b"}, "scenarios": ["a/b/c"], "platform": {"name": "x/y/z"}}
    made = Provenance(identity=identity, window={"cutoffs": {"a/b/c": 5}}, facts={})
    assert without_places(made) == made


def test_a_known_row_does_not_become_an_unknown_one(tmp_path):
    with StoreWriter.open(tmp_path / "s", Provenance(identity={}, window={})) as writer:
        ones = np.ones(6, np.float32)
        rows = [
            Record(name, "ok", "", "", {}, 1, 1, ones * size) for name, size in (("shop", 100), ("news", 0.3))
        ]
        writer.append("scenario", rows)
    with pytest.raises(StoreError, match="'news' would be zeros"):
        to_int8(Version.of(tmp_path / "s"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("manifest-*"))


def test_kept_energy_is_that_of_what_is_stored(tmp_path):
    draw = np.random.default_rng(0)
    with StoreWriter.open(tmp_path / "s", Provenance(identity={}, window={})) as writer:
        rows = [Record(n, "ok", "", "", {}, 1, 1, draw.normal(size=8).astype(np.float32)) for n in range(200)]
        writer.append("user", rows)
    kept = {}
    for dtype in ("float32", "bfloat16"):
        kept[dtype] = project(Version.of(tmp_path / "s"), tmp_path / dtype, 7, dtype=dtype)["user"]
        store = KnowledgeStore.load(tmp_path / dtype)
    assert kept["bfloat16"] < kept["float32"]
    assert store.dtype == "bfloat16"


def test_a_keyed_store_serves_whoever_has_the_key(store, tmp_path):
    """`enhance` looks up the vocabulary's own ids, and finds what the store it was made from has."""
    torch = pytest.importorskip("torch")

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = torch.nn.Embedding(12, 4)
            self.out = torch.nn.Linear(4, 1)

        def forward(self, batch):
            return self.out(self.emb(batch["user"])).squeeze(1)

    KnowledgeStore.load(store).save_pretrained(tmp_path / "keyed", key=KEY)
    batch = {"user": torch.arange(12), "scenario": torch.zeros(12, dtype=torch.long)}
    options = {
        "tap": "emb",
        "keys": {"user": "user", "scenario": "scenario"},
        "vocabulary": {"user": list(range(12)), "scenario": ["shop", "news"]},
        "example": batch,
    }
    tables = []
    for source in (KnowledgeStore.load(store), KnowledgeStore.load(tmp_path / "keyed", key=KEY)):
        torch.manual_seed(0)
        model = enhance(Tiny(), source, **options)
        tables.append({level: branch.table.rows for level, branch in model.branches.items()})
    assert tables[0].keys() == tables[1].keys() == {"user", "scenario"}
    assert all(torch.equal(tables[0][level], tables[1][level]) for level in tables[0])
    assert tables[0]["user"].any()
    with pytest.raises(Exception, match="opened with its key"):
        enhance(Tiny(), KnowledgeStore.load(tmp_path / "keyed"), **options)
