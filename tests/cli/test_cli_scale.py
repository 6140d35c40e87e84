"""Shards and workers from the command line: together they are the store that one process makes."""

from __future__ import annotations

import shlex

import numpy as np
import polars as pl
import pytest
from running import FREQUENCY, changed, run, the_object

from msr_enhance.cli import extract as extract_command
from msr_enhance.store.knowledge import KnowledgeStore


@pytest.fixture
def words(log, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return ("extract", "--data", "log.csv", *FREQUENCY)


def same_rows(one, other):
    one, other = KnowledgeStore.load(one), KnowledgeStore.load(other)
    assert set(one.levels) == {"scenario", "user"}
    for level in ("scenario", "user"):
        ids = other.ids(level)
        assert sorted(one.ids(level)) == sorted(ids)
        np.testing.assert_array_equal(one.vectors(level, ids), other.vectors(level, ids))
    return True


def test_shards_joined_are_the_whole(words, tmp_path):
    run(*words, "--out", "whole")
    first = run(*words, "--out", "s", "--shard", "1/3")
    assert "shard 1 of 3: s.parts/part-00001-of-00003" in first.stderr
    assert "still to be made: --shard 0/3, 2/3; then join" in first.stderr
    assert "scenario:" not in first.stdout, "part 0 reads the scenarios"
    data = the_object(run(*words, "--out", "s", "--shard", "1/3", "--json"))
    assert data["read"] == 0
    assert data["resumed"] == {"user": len(KnowledgeStore.load(data["store"]).ids("user"))}
    run(*words, "--out", "s", "--shard", "0/3")
    last = run(*words, "--out", "s", "--shard", "2/3")
    assert "every shard is made" in last.stderr
    line = shlex.split(last.stderr.splitlines()[-1])
    assert line[:3] == ["msr-enhance", "store", "merge"]
    sources = sorted(map(str, tmp_path.glob(line[3])))  # what a shell does
    assert len(sources) == 3
    run(*line[1:3], *sources, *line[4:])
    assert same_rows("s", "whole")
    assert "is a store already" in run(*words, "--out", "s", "--shard", "0/3", code=6).stderr


def test_torchrun_says_the_shard(words, monkeypatch):
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        said = run(*words, "--out", "s", "--shard", "auto").stderr
        assert f"shard {rank} of 2" in said
    assert "every shard is made" in said


def test_another_number_of_shards_is_refused(words):
    run(*words, "--out", "s", "--shard", "0/2")
    said = run(*words, "--out", "s", "--shard", "0/3", code=3).stderr
    assert "begun with 2 parts, not 3" in said
    assert "remove s.parts" in said


def test_a_shard_of_other_options_is_gone_through_again(words):
    run(*words, "--out", "s", "--shard", "0/1", "--limit", 4)
    data = the_object(run(*words, "--out", "s", "--shard", "0/1", "--json"))
    assert data["rows"]["user"] == {"ok": 20}
    assert data["read"] == 16


ENGINE = ("--engine", "processes", "--workers", "1", "--json")


def test_workers_go_on_with_shards(words, log):
    """One shard by hand, the other by a worker, which joins the two."""
    run(*words, "--out", "whole")
    run(*words, "--out", "s", "--shard", "0/2")
    result = run(*words, "--out", "s", *ENGINE)
    assert "2 parts in s.parts, by --engine processes" in result.stderr, "as many as were begun"
    data = the_object(result)
    first = sum(data["resumed"].values())
    assert 2 < first < 22
    assert data["read"] == 22 - first
    assert data["tokens_per_second"] is None, "this reader reads no tokens"
    assert same_rows("s", "whole")
    assert not (log.parent / "s.parts").exists()


@pytest.mark.slow
def test_workers_add_to_a_store_and_refresh_it(words, log):
    run(*words, "--out", "whole")
    run(*words, "--out", "s", "--limit", 12)
    data = the_object(run(*words, "--out", "s", "--parts", "2", *ENGINE))
    assert data["resumed"] == {"scenario": 2, "user": 12}
    assert data["read"] == 8
    assert same_rows("s", "whole")
    assert not (log.parent / "s.parts").exists()
    fingerprint = KnowledgeStore.load("s").fingerprint
    again = the_object(run(*words, "--out", "s", "--parts", "2", *ENGINE))
    assert (again["read"], again["fingerprint"]) == (0, fingerprint)

    frame = pl.read_csv(log)
    places = ["food" if user == 105 else name for user, name in frame.select("user_id", "category").rows()]
    other = changed(log, category=places)
    changed_words = ("extract", "--data", other, *FREQUENCY, "--parts", "2", *ENGINE)
    assert "write --refresh" in run(*changed_words, "--out", "s", code=10).stderr
    assert the_object(run(*changed_words, "--out", "s", "--refresh"))["read"] == 1
    run("extract", "--data", other, *FREQUENCY, "--out", "fresh")
    assert same_rows("s", "fresh")


def test_one_process_says_that_parts_lie_beside(words):
    run(*words, "--out", "s", "--shard", "0/2")
    said = run(*words, "--out", "s").stderr
    assert "s.parts holds parts that are not in s yet" in said
    assert "--engine processes goes on with them" in said


@pytest.mark.parametrize(
    ("options", "gpus", "parts"),
    [
        (("--engine", "processes"), [], 8),
        (("--engine", "processes"), ["0", "1", "2"], 12),
        (("--engine", "processes", "--workers", "5"), ["0"], 20),
        (("--engine", "processes", "--workers", "5", "--parts", "7"), [], 7),
        (("--engine", "ray"), [], 64),
        (("--engine", "ray", "--workers", "3"), [], 12),
    ],
)
def test_how_many_parts_there_are(words, monkeypatch, options, gpus, parts):
    asked = {}

    def pretend(work, out, **options):
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(extract_command, "run_parts", pretend)
    monkeypatch.setattr(extract_command, "visible_gpus", lambda: gpus)
    said = run(*words, "--out", "s", *options, code=130).stderr
    assert asked["parts"] == parts
    assert asked["engine"] == options[1]
    assert "stopped; 0 rows are safe in s. To go on, run:" in said
