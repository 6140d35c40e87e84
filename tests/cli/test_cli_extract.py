"""What an extraction reports, and what it does with a store that is there: resume, refresh, retry, layers."""

from __future__ import annotations

import polars as pl
from running import FREQUENCY, changed, run, the_object
from typer.testing import CliRunner

from msr_enhance.cli.app import app
from msr_enhance.llm.category_frequency import CategoryFrequency
from msr_enhance.store.knowledge import KnowledgeStore

BUILTIN = ("--model", "builtin", "--max-new-tokens", 1, "--history", 3)


def failing(log):
    """The log with three users whose items have titles too long for 160 tokens of prompt."""
    few = pl.col("user_id") < 103
    title = pl.when(few).then(pl.lit("unheard " * 900)).otherwise(pl.lit("kit"))
    path = log.with_name("failing.parquet")
    pl.read_csv(log).with_columns(title=title).write_parquet(path)
    return path


def test_failed_rows_are_counted_and_their_reason_is_said(log, tmp_path):
    words = ("--data", failing(log), *BUILTIN, "--max-prompt-tokens", 160, "--out", tmp_path / "s")
    result = run("extract", *words)
    assert "user: 17 ok, 3 failed; vectors of 128 numbers" in result.stdout
    assert "3 user prompts failed and count as zero knowledge:" in result.stderr
    assert "  3 x N prompt tokens" in result.stderr
    assert "--retry-failed" in result.stderr
    data = the_object(run("extract", *words, "--json"))
    assert data["rows"]["user"] == {"ok": 17, "failed": 3}
    (reason,) = data["failed"]["user"]
    assert data["failed"]["user"] == {reason: 3}
    assert "prompt tokens" in reason
    assert data["read"] == 0
    again = run("extract", *words, "--retry-failed")
    assert "asking 3 failed users again" in again.stderr
    assert "17 ok, 3 failed" in again.stdout


def test_the_report_tells_what_this_run_did(log, tmp_path):
    words = ("--data", log, *BUILTIN, "--out", tmp_path / "s")
    first = run("extract", *words, "--limit", 5, "--json")
    data = the_object(first)
    assert data["read"] == 7
    assert data["resumed"] == {"scenario": 0, "user": 0}
    assert data["seconds_per_prompt"] > 0
    store = KnowledgeStore.load(tmp_path / "s")
    records = [store.record(level, name) for level in store.levels for name in store.ids(level)]
    tokens = sum(record.prompt_tokens + record.answer_tokens for record in records)
    speed = tokens / (data["seconds_per_prompt"] * 7)
    assert abs(data["tokens_per_second"] - speed) < 0.01 * speed
    result = run("extract", *words)
    assert "resuming: 5 of 20 users are done" in result.stderr
    assert "read 15 prompts" in result.stderr
    assert "tokens/s; 7 rows were there before" in result.stderr
    data = the_object(run("extract", *words, "--json"))
    assert data["read"] == 0
    assert data["resumed"] == {"scenario": 2, "user": 20}
    assert data["seconds_per_prompt"] is None


def test_a_log_that_grew_needs_a_refresh_and_only_the_changed_are_read(log, tmp_path):
    words = (*BUILTIN, "--split", "user", "--out", tmp_path / "s", "--json")
    run("extract", "--data", log, *words)
    frame = pl.read_csv(log)
    titles = [
        "a new title" if user == 105 else title
        for user, title in zip(frame["user_id"], frame["title"], strict=True)
    ]
    other = changed(log, title=titles)
    refused = run("extract", "--data", other, *words, code=10)
    assert "seen_texts" in refused.stderr
    assert "write --refresh" in refused.stderr
    data = the_object(run("extract", "--data", other, *words, "--refresh"))
    assert data["read"] == 1
    assert "a new title" in KnowledgeStore.load(tmp_path / "s").record("user", 105).prompt


def test_layers_before_the_norm_and_without_chat(log, tmp_path):
    kept = ("--layers", "0,2", "--before-norm", "--no-chat")
    words = ("--data", log, *BUILTIN, "--out", tmp_path / "s", *kept)
    result = run("extract", *words)
    assert "user: 20 ok; vectors of 2 x 128 numbers" in result.stdout
    store = KnowledgeStore.load(tmp_path / "s")
    assert store.vectors("user", [105]).shape == (1, 2, 128)
    state = store.provenance.identity["llm"]["state"]
    assert (state["norm"], state["layers"]) == ("before", [0, 2])
    other = run("extract", *words[: words.index("--before-norm")], code=10)
    assert "identity.llm.state" in other.stderr


def test_every_state_by_name(log, tmp_path):
    for state in ("last", "last_step", "prompt", "token-mean"):
        words = ("--data", log, *BUILTIN, "--state", state, "--out", tmp_path / state, "--json")
        assert the_object(run("extract", *words))["rows"]["user"] == {"ok": 20}
        identity = KnowledgeStore.load(tmp_path / state).provenance.identity
        assert identity["llm"]["state"]["kind"] == state


def test_the_size_of_a_batch_is_not_in_the_identity(log, tmp_path):
    words = ("--data", log, *BUILTIN, "--out", tmp_path / "s", "--json")
    run("extract", *words, "--tokens-per-batch", 500, "--limit", 4)
    assert the_object(run("extract", *words, "--tokens-per-batch", 5_000))["read"] == 16


def test_an_error_that_nobody_declared_keeps_its_traceback_and_the_rows(log, tmp_path, monkeypatch):
    """A GPU that is lost in the middle: what was committed stays, and the way to go on is said."""
    words = ("--data", log, *FREQUENCY, "--out", tmp_path / "s")
    run("extract", *words, "--limit", 6)

    def breaks(self, prompts):
        raise RuntimeError("CUDA error: device lost")

    monkeypatch.setattr(CategoryFrequency, "answer", breaks)
    result = CliRunner().invoke(app, ["extract", *map(str, words)])
    assert isinstance(result.exception, RuntimeError)
    assert f"broken off; 8 rows are safe in {tmp_path / 's'}. To go on, run:\n  " in result.stderr


def test_a_dry_run_writes_nothing(log, tmp_path):
    run("extract", "--data", log, *FREQUENCY, "--out", tmp_path / "s", "--dry-run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv"]
