"""`store verify`, `repair`, `compact`, `forget` and `export`: what a user sees, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from running import COMMAND, run, the_object

from msr_enhance.cli.care import run_compact
from msr_enhance.store.entry import Shard
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(identity={"llm": {"model": "tiny"}}, window={})


def row(name, text="what it answered"):
    vector = np.random.default_rng(list(str(name).encode())).normal(size=8).astype(np.float32)
    return Record(name, "ok", f"a prompt about {name}", f"{text} {name}", {}, 5, 3, vector)


@pytest.fixture
def path(tmp_path):
    """A store of 10 users and a scenario; user 3 was dropped."""
    with StoreWriter.open(tmp_path / "s", PROVENANCE) as writer:
        writer.append("user", [row(name) for name in range(5)])
        writer.append("user", [row(name) for name in range(5, 10)])
        writer.append("scenario", [row("feed")])
        writer.drop("user", [3])
    return tmp_path / "s"


def vectors(path, number=0):
    shards = [entry for entry in latest_manifest(path)[0].entries("user") if isinstance(entry, Shard)]
    return path / shards[number].vectors.name


def spoil(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_verify_says_that_all_is_well_and_what_is_not(path):
    said = run("store", "verify", path).stdout
    assert "1 scenario rows, 9 user rows, 1 dropped rows: as it was written" in said
    data = the_object(run("store", "verify", path, "--json"))
    assert (data["whole"], data["findings"], data["dead"]) == (True, [], 1)
    spoil(vectors(path))
    vectors(path, 1).unlink()
    result = run("store", "verify", path, code=8)
    assert vectors(path).name in result.stdout
    assert vectors(path, 1).name in result.stdout
    assert f"msr-enhance store repair {path}" in result.stdout
    data = the_object(run("store", "verify", path, "--json", code=8))
    assert len(data["findings"]) == 2
    assert not data["whole"]


def test_repair_says_what_is_lost_and_how_it_is_read_again(path):
    assert "nothing was changed" in run("store", "repair", path).stdout
    spoil(vectors(path))
    dry = run("store", "repair", path, "--dry-run")
    assert "to repair, write: msr-enhance store repair" in dry.stdout
    assert the_object(run("store", "repair", path, "--json", "--dry-run"))["dry_run"]
    run("store", "verify", path, code=8)
    result = run("store", "repair", path)
    assert "user: up to 5 rows lost whose ids cannot be read" in result.stdout
    assert f"kept: {path / 'damaged'}" in result.stdout
    assert f"extract --data LOG --model MODEL --out {path}" in result.stderr
    run("store", "verify", path)
    assert KnowledgeStore.load(path).ids("user") == [5, 6, 7, 8, 9]


def test_compact_says_what_it_gave(path, tmp_path):
    data = the_object(run("store", "compact", path, "--json", "--out", tmp_path / "h", "--dtype", "bfloat16"))
    assert data["rows"] == {"user": 9, "scenario": 1}
    assert data["removed"] == 1
    shown = run("show", tmp_path / "h").stdout
    assert "vectors as bfloat16" in shown
    assert "changed: dtype (from float32, to bfloat16)" in shown
    assert "1 dropped rows still on disk" in run("show", path).stdout
    assert "1 dropped rows are gone" in run("store", "compact", path).stdout
    assert "nothing was changed" in run("store", "compact", path).stdout
    assert "dropped rows" not in run("show", path).stdout
    assert run("store", "compact", path, "--dtype", "float16", code=6).stdout == ""


def test_compacting_at_once_says_what_it_removed_and_did_not_reach(path, capsys):
    run_compact(path, None, None, now=True, as_json=False)
    said = capsys.readouterr()
    assert "1 dropped rows are gone" in said.out
    assert "files were removed at once" in said.err
    assert f"{path / 'damaged'}, copies and exports were not" in said.err
    assert b"a prompt about 3" not in b"".join(file.read_bytes() for file in path.iterdir())
    run_compact(path, None, None, now=True, as_json=False)
    assert "no row was changed" in capsys.readouterr().out


def test_repair_says_which_rows_a_given_up_version_had(path):
    with StoreWriter.open(path, PROVENANCE) as writer:
        writer.append("user", [row(20), row(21)])
    spoil(path / latest_manifest(path)[0].name)
    said = run("store", "repair", path).stdout
    assert "is given up; rows that only it named are lost, and listed" in said
    assert "user: 2 rows lost: 20, 21" in said


def test_forget_erases_users_and_says_what_it_cannot_reach(path, tmp_path):
    (tmp_path / "ids.txt").write_text("5\n\n6\n")
    (tmp_path / "ids.jsonl").write_text('7\n{"id": 8}\n')
    result = run("store", "forget", path, "--user", 0, "--user", 1, "--ids", tmp_path / "ids.txt")
    assert "user: 4 ids forgotten, 4 rows of them erased" in result.stdout
    assert "permanently delete its LFS files" in result.stdout
    assert "models that were trained" in result.stdout
    data = the_object(run("store", "forget", path, "--json", "--ids", tmp_path / "ids.jsonl"))
    assert data["ids"] == {"user": 2}
    assert data["absence"]["left"] == {}
    assert data["absence"]["looked_for"] > 0
    assert KnowledgeStore.load(path).ids("user") == [2, 4, 9]
    assert b"a prompt about 5" not in b"".join(file.read_bytes() for file in path.iterdir())
    (path / "mine.txt").write_text("a prompt about 9")
    result = run("store", "forget", path, "--user", 9, "--scenario", "feed", code=6)
    assert "STILL IN mine.txt" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--user", 77), 13, "1 user ids: 77. Nothing was changed"),
        (("--user", "x"), 13, "whole numbers; seen 'x'"),
        (("--ids", "bad.jsonl"), 13, "bad.jsonl, line 2 is no id"),
        (("--ids", "gone.txt"), 6, "gone.txt could not be read"),
        (("--user", 77, "--key", "gone.key"), 6, "gone.key holds no key"),
        ((), 6, "nothing to forget was given"),
    ],
)
def test_what_cannot_be_forgotten(path, tmp_path, monkeypatch, words, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text("7\n{}\n")
    result = run("store", "forget", path, *words, code=code)
    assert says in result.stderr
    assert result.stdout == ""
    assert KnowledgeStore.load(path).count("user") == 9
    run("store", "forget", path, "--user", 77, "--missing-ok")


def test_export_writes_a_table(path, tmp_path):
    data = the_object(run("store", "export", path, "--out", tmp_path / "o.jsonl", "--vectors", "--json"))
    assert data["rows"] == 9
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(lines[0]["vector"]) == 8
    said = run(
        "store", "export", path, "--out", tmp_path / "o.csv", "--level", "scenario", "--no-texts"
    ).stdout
    assert "1 scenario rows, columns id, status, prompt_tokens, answer_tokens" in said
    run("store", "export", path, "--out", tmp_path / "o.csv", code=6)


def test_each_kind_of_trouble_has_a_code_of_its_own(path, tmp_path):
    with StoreWriter.open(path, PROVENANCE):
        assert "is being written by" in run("store", "compact", path, code=11).stderr
    other = StoreWriter.open(tmp_path / "o", Provenance(identity={"llm": "another"}, window={}))
    other.append("user", [row(90)])
    other.release()
    run("store", "merge", path, other.path, "--out", tmp_path / "m", code=10)
    manifest = path / latest_manifest(path)[0].name
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b'"format_version":[2,0]', b'"format_version":[9,0]'))
    run("show", path, code=9)
    manifest.write_bytes(whole[:-1])
    run("show", path, code=8)


def test_show_counts_without_a_vector_or_a_list_of_ids(path, monkeypatch):
    def refuse(*_):
        raise AssertionError("not needed")

    for name in ("ids", "known", "statuses", "vectors"):
        monkeypatch.setattr(KnowledgeStore, name, refuse)
    data = the_object(run("store", "show", path, "--json"))
    assert data["levels"]["user"]["status"] == {"ok": 9}
    assert data["levels"]["user"]["dead"] == 1
    assert data["levels"]["user"]["shards"] == 2
    manifest = latest_manifest(path)[0]
    assert data["bytes"] == sum({file.name: file.bytes for file in manifest.files()}.values())
    assert (data["dtype"], data["transforms"], data["files"]) == ("float32", [], 7)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from msr_enhance.cli.store import store_app; "
        "names = ['verify', 'repair', 'compact', 'forget', 'export']; "
        "done = [CliRunner().invoke(store_app, [name, '--help']).exit_code for name in names]; "
        "import json; print(json.dumps([done, sorted({'torch', 'numpy', 'polars'} & sys.modules.keys())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[0] * 5, []]


def test_the_installed_command_says_words_on_stderr_and_data_on_stdout(path):
    spoil(vectors(path))
    done = subprocess.run(
        [COMMAND, "store", "compact", path, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    assert done.stdout == ""
    assert "store repair" in done.stderr
    assert "Traceback" not in done.stderr
