"""Options of the command line: columns, items, platform, templates, limits, cut-offs, splits."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys

import polars as pl
import pytest
from running import FREQUENCY, HARBOUR, QUICK, changed, run, the_object
from typer.testing import CliRunner

from msr_enhance.cli.app import app
from msr_enhance.store.knowledge import KnowledgeStore


def test_columns_of_other_names(log, tmp_path):
    names = {"user_id": "who", "item_id": "what", "scenario": "where", "label": "liked", "timestamp": "when"}
    other = tmp_path / "other.tsv"
    pl.read_csv(log).rename(names).write_csv(other, separator="\t")
    words = [
        f"{role}={name}"
        for role, name in zip(("user", "item", "scenario", "label", "time"), names.values(), strict=True)
    ]
    columns = [part for word in words for part in ("--column", word)]
    out = tmp_path / "store"
    run("extract", "--data", other, *FREQUENCY, "--out", out, *columns)
    assert KnowledgeStore.load(out).ids("user") == list(range(100, 120))
    run("compare", "--data", other, "--store", out, "--arms", "plain", *QUICK, *columns)


def test_an_order_instead_of_a_time(log, tmp_path):
    other = tmp_path / "order.parquet"
    pl.read_csv(log).rename({"timestamp": "turn"}).write_parquet(other)
    result = run("extract", "--data", other, *FREQUENCY, "--out", tmp_path / "s", "--column", "order=turn")
    assert "inside each user" in result.stderr
    store = KnowledgeStore.load(tmp_path / "s")
    assert store.provenance.window["split"] == "user"
    run(
        "compare",
        "--data",
        other,
        "--store",
        tmp_path / "s",
        "--column",
        "order=turn",
        "--arms",
        "plain",
        *QUICK,
    )


def test_an_item_table_is_joined(log, tmp_path):
    frame = pl.read_csv(log)
    bare, items = tmp_path / "bare.csv", tmp_path / "items.csv"
    frame.drop("title", "category").write_csv(bare)
    pl.DataFrame(
        {
            "item_id": range(40),
            "title": [f"thing {n}" for n in range(40)],
            "category": [f"kind{n % 3}" for n in range(40)],
        }
    ).write_csv(items)
    run("extract", "--data", bare, "--items", items, *FREQUENCY, "--out", tmp_path / "s")
    store = KnowledgeStore.load(tmp_path / "s")
    assert re.search(r"thing \d+ \| kind\d", store.record("user", 105).prompt)
    run("compare", "--data", bare, "--items", items, "--store", tmp_path / "s", "--arms", "plain", *QUICK)


def test_a_platform_file_and_a_template_folder(log, tmp_path):
    (tmp_path / "platform.yaml").write_text(HARBOUR, "utf-8")
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "user.yaml").write_text("name: own\ntext: |-\n  On {platform}:\n  {histories}\n", "utf-8")
    words = ("--platform", tmp_path / "platform.yaml", "--template", folder)
    run("extract", "--data", log, *FREQUENCY, "--out", tmp_path / "s", *words)
    store = KnowledgeStore.load(tmp_path / "s")
    assert store.record("user", 105).prompt.startswith("On Harbour:\nIn feed: ")
    assert "read at night" in store.record("scenario", "feed").prompt
    assert store.provenance.facts["template_names"] == ["default", "own"]


def test_the_papers_template_by_name(log, tmp_path):
    run("extract", "--data", log, *FREQUENCY, "--out", tmp_path / "s", "--template", "paper")
    assert "user_105" in KnowledgeStore.load(tmp_path / "s").record("user", 105).prompt


def test_a_limit(log, tmp_path):
    words = ("--data", log, *FREQUENCY, "--out", tmp_path / "s", "--json")
    assert the_object(run("extract", *words, "--limit", 3))["rows"]["user"] == {"ok": 3}
    result = run("compare", "--data", log, "--store", tmp_path / "s", *QUICK, "--json")
    assert 0 < the_object(result)["coverage"] < 0.5
    assert the_object(run("extract", *words))["rows"]["user"] == {"ok": 20}


def test_a_cutoff_as_a_number(log, tmp_path):
    run("extract", "--data", log, *FREQUENCY, "--out", tmp_path / "s", "--cutoff", 100)
    assert KnowledgeStore.load(tmp_path / "s").provenance.window["cutoffs"] == {"feed": 100, "shop": 100}
    compared = the_object(
        run("compare", "--data", log, "--store", tmp_path / "s", "--arms", "plain", *QUICK, "--json")
    )
    assert compared["rows"]["history"] == 100


def test_a_cutoff_as_a_date(log, tmp_path):
    start = pl.datetime(2024, 1, 1)
    frame = pl.read_csv(log).with_columns(timestamp=start + pl.duration(hours=pl.col("timestamp")))
    frame.write_csv(tmp_path / "dated.csv")
    words = ("--data", tmp_path / "dated.csv", *FREQUENCY)
    run("extract", *words, "--out", tmp_path / "s", "--cutoff", "2024-01-08")
    window = KnowledgeStore.load(tmp_path / "s").provenance.window
    assert window["rows"] == 7 * 24
    result = run("extract", *words, "--out", tmp_path / "t", "--cutoff", "1700-01-01", code=3)
    assert "run from 2024-01-01" in result.stderr


@pytest.mark.parametrize("protocol", ["window", "paper"])
@pytest.mark.parametrize("split", ["scenario", "global", "user"])
def test_every_split_and_protocol(log, tmp_path, split, protocol):
    words = ("--split", split, "--protocol", protocol)
    said = run("extract", "--data", log, *FREQUENCY, "--out", tmp_path / "s", *words).stderr
    assert ("warning" in said) == (protocol == "paper")
    result = run("compare", "--data", log, "--store", tmp_path / "s", "--arms", "enhanced", *QUICK, "--json")
    data = the_object(result)
    assert len(data["warnings"]) == (protocol == "paper")
    assert (data["settings"]["split"], data["settings"]["protocol"]) == (split, protocol)


def test_users_that_are_strings(log, tmp_path):
    other = changed(log, user_id=[f"0{user}" for user in pl.read_csv(log)["user_id"]])
    run("extract", "--data", other, *FREQUENCY, "--out", tmp_path / "s")
    assert the_object(run("show", tmp_path / "s", "--user", "0105", "--json"))["id"] == "0105"
    assert "'105'" in run("show", tmp_path / "s", "--user", "105", code=13).stderr


def test_the_version():
    assert run("--version").stdout.strip() == importlib.metadata.version("msr-enhance")


@pytest.mark.parametrize(
    "words",
    [
        ["extrakt"],
        ["extract", "--dat", "x"],
        ["extract", "--data", "x"],
        ["extract", "--data", "x", "--out", "y", "--workers", "0"],
        ["extract", "--data", "x", "--out", "y", "--limit", "none"],
        ["store", "merge"],
        ["demo", "--seeds", "0"],
        ["demo", "--seeds", "many"],
        ["show"],
        ["compare", "--data", "x", "--store", "y", "--epochs", "0"],
    ],
)
def test_a_wrong_command_line_is_exit_2(words):
    result = run(*words, code=2)
    assert result.stdout == ""
    assert "Usage" in result.stderr


def test_help_loads_neither_torch_nor_transformers():
    """Help that takes seconds is not asked for."""
    code = (
        "import sys; from typer.testing import CliRunner; from msr_enhance.cli.app import app;"
        "said = CliRunner().invoke(app, ['extract', '--help'], env={'COLUMNS': '200'}).output;"
        "print(sorted({'torch', 'transformers', 'polars', 'ray'} & set(sys.modules)), said)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    for panel in ("The log", "Prompts", "Reader", "What is kept", "The run", "More than one worker"):
        assert f"─ {panel} ─" in done.stdout, "forty options in one list are not read"
    for option in ("--engine", "--shard", "--refresh", "--layers", "--server", "--dry-run", "--no-chat"):
        assert option in done.stdout


def test_without_a_command_there_is_help():
    result = CliRunner().invoke(app, [])
    for command in ("demo", "extract", "show", "compare", "store", "doctor"):
        assert command in result.output
