"""`store merge` and `store show`: what is printed where, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from running import run, the_object
from typer.testing import CliRunner

from msr_enhance.cli.store import store_app
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter


def call(*words, code=0):
    """Run a `store` command in this process; its result, once the exit code is right."""
    result = CliRunner().invoke(store_app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def part(tmp_path):
    """Make a store of a few users, with two layers a vector."""

    def make(name, rows, model="tiny"):
        writer = StoreWriter.open(tmp_path / name, Provenance(identity={"llm": {"model": model}}, window={}))
        writer.append(
            "user",
            [
                Record(id, status, "a prompt", "an answer", {}, 5, 3, np.float32([[3, 4], [0, 1]]))
                for id, status in rows.items()
            ],
        )
        return writer.path

    return make


def test_merge_says_what_the_joined_store_holds(part, tmp_path):
    parts = [part("a", {1: "ok", 2: "truncated"}), part("b", {3: "failed", 4: "ok"})]
    out = tmp_path / "out"
    data = the_object(call("merge", *parts, "--out", out, "--json"))
    assert data == {
        "store": str(out.resolve()),
        "fingerprint": KnowledgeStore.load(out).fingerprint,
        "sources": 2,
        "rows": {"user": {"ok": 2, "failed": 1, "truncated": 1}},
    }
    again = call("merge", *parts, "--out", out)
    assert again.stdout.splitlines()[0] == "user: 4 rows (2 ok, 1 failed, 1 truncated)"
    assert KnowledgeStore.load(out).fingerprint == data["fingerprint"]
    assert the_object(call("show", out, "--json"))["levels"]["user"]["rows"] == 4


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("a", "c"), 6, "1 ids of c come from another store too"),
        (("a", "gone"), 6, "gone is not a folder"),
        (("a", "d"), 10, "identity.llm.model: 'tiny' in the store, 'large' now"),
        ((), 2, "Missing argument"),
    ],
)
def test_what_cannot_be_merged(part, tmp_path, monkeypatch, words, code, says):
    part("a", {1: "ok"})
    part("c", {1: "ok"})
    part("d", {2: "ok"}, model="large")
    monkeypatch.chdir(tmp_path)
    result = call("merge", *words, "--out", "out", "--json", code=code)
    assert result.stdout == ""
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_show_of_several_layers(part):
    path = part("a", {1: "ok", 2: "truncated", 3: "empty"})
    said = call("show", path).stdout
    assert "user: 3 rows (1 ok, 1 truncated, 1 empty), vectors of 2 layers of 2 numbers" in said
    data = the_object(call("show", path, "--json"))
    assert data["levels"]["user"]["shape"] == [2, 2]
    assert data["levels"]["user"]["dim"] == 2
    assert data["levels"]["user"]["status"] == {"ok": 1, "truncated": 1, "empty": 1}
    one = the_object(call("show", path, "--user", 1, "--json"))
    assert (one["norm"], one["vector"]) == ([5.0, 1.0], [[3, 4], [0, 1]])
    assert (
        "status: truncated   vector: 2 layers of 2 numbers, norm 5.000, 1.000"
        in call("show", path, "--user", 2).stdout
    )


def test_show_is_the_same_as_the_command_at_the_top(store):
    for words in ((), ("--json",), ("--user", 107), ("--scenario", "feed", "--json")):
        assert call("show", store, *words).stdout == run("show", store, *words).stdout


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from msr_enhance.cli.store import store_app; "
        "done = [CliRunner().invoke(store_app, [*words, '--help']) for words in ([], ['merge'], ['show'])]; "
        "import json; print(json.dumps([[r.exit_code for r in done], "
        "sorted({'torch', 'numpy', 'transformers'} & sys.modules.keys())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[0, 0, 0], []]


def test_a_refused_merge_holds_nothing_and_blocks_nothing(part, tmp_path):
    one, other, out = part("a", {1: "ok"}), part("b", {2: "ok"}, model="another"), tmp_path / "out"
    call("merge", one, tmp_path / "gone", "--out", out, code=6)
    assert not out.exists()
    for second, code in ((other, 10), (part("c", {1: "ok", 3: "ok"}), 6)):
        call("merge", one, second, "--out", out, code=code)
        assert KnowledgeStore.load(out).levels == ()
    call("merge", other, "--out", out)
    assert KnowledgeStore.load(out).ids("user") == [2]


def test_a_part_that_is_missing_or_unfinished_is_warned_of(part, tmp_path):
    names = [f"part-{place:05d}-of-00003" for place in range(3)]
    stores = [part(name, {place: "ok"}) for place, name in enumerate(names)]
    (tmp_path / f"{names[0]}.json").touch()
    (tmp_path / f"{names[1]}.json").touch()
    said = call("merge", *stores[:2], "--out", tmp_path / "two").stderr
    assert f"1 of 3 parts were not given: {names[2]}" in said
    assert "not marked" not in said
    said = call("merge", *stores, "--out", tmp_path / "three").stderr
    assert "not given" not in said
    assert f"{names[2]} is not marked as finished" in said
