"""SIGINT and SIGTERM: rows are kept, the command to go on is printed, and going on ends the same."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from running import COMMAND, run, the_object

from msr_enhance.cli import signals
from msr_enhance.cli.signals import stoppable, this_command
from msr_enhance.errors import Stopped
from msr_enhance.store.knowledge import KnowledgeStore

OPTIONS = ("--max-new-tokens", "6", "--history", "5", "--tokens-per-batch", "1200")
USERS = 240


@pytest.fixture(scope="module")
def long_log(tmp_path_factory):
    """A log whose extraction takes some seconds, and the store of an uninterrupted one."""
    folder = tmp_path_factory.mktemp("long log")
    draw = np.random.default_rng(5)
    rows = USERS * 12
    pl.DataFrame(
        {
            "user_id": np.arange(rows) // 12,
            "item_id": draw.integers(30, size=rows),
            "scenario": np.array(["feed", "shop"])[draw.integers(2, size=rows)],
            "label": np.arange(rows) % 3 > 0,
            "timestamp": draw.permutation(rows),
            "title": [f"title {row} of many words" for row in range(rows)],
        }
    ).with_columns(pl.col("label").cast(pl.Int8)).write_csv(folder / "log.csv")
    run("extract", "--data", folder / "log.csv", *OPTIONS, "--out", folder / "whole")
    return folder


def same_rows(out, whole, within=0.0):
    one, other = KnowledgeStore.load(out), KnowledgeStore.load(whole)
    for level in ("scenario", "user"):
        ids = other.ids(level)
        assert sorted(one.ids(level)) == sorted(ids)
        np.testing.assert_allclose(one.vectors(level, ids), other.vectors(level, ids), rtol=0, atol=within)
        assert [one.text(level, name) for name in ids] == [other.text(level, name) for name in ids]


class Run:
    """A real process that extracts, and what it said so far."""

    def __init__(self, folder, out, *more):
        self.out = folder / out
        words = [str(COMMAND), "extract", "--data", "log.csv", *OPTIONS, "--out", out, *more]
        environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
        self._log = folder / f"{out}.log"
        with self._log.open("w") as log, (folder / f"{out}.data").open("w") as data:
            self.process = subprocess.Popen(words, cwd=folder, env=environment, stdout=data, stderr=log)

    @property
    def said(self):
        return self._log.read_text("utf-8")

    def until(self, happened):
        end = time.monotonic() + 60
        while not happened() and self.process.poll() is None:
            assert time.monotonic() < end, self.said
            time.sleep(0.005)

    def end(self):
        return self.process.wait(60)

    @property
    def data(self):
        return self._log.with_suffix(".data").read_text("utf-8")

    def commits(self):
        return len(list(self.out.glob("vec-*")))


def resume_line(said):
    """The command that was printed, as words."""
    return shlex.split(re.search(r"To go on, run:\n  (.+)\n", said)[1])


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_lets_the_batch_finish_and_says_how_to_go_on(long_log, number, code):
    out = f"out {number}"
    process = Run(long_log, out)
    process.until(lambda: process.commits() > 3)
    process.process.send_signal(number)
    assert process.end() == code
    assert process.data == "", "stdout is for data"
    assert "stopping after the batch in flight, in 25 s at most" in process.said
    assert "Traceback" not in process.said
    store = KnowledgeStore.load(process.out)
    rows = sum(len(store.ids(level)) for level in store.levels)
    assert 3 < rows < USERS
    assert f"stopped; {rows:,} rows are safe in {out}. To go on" in process.said
    words = resume_line(process.said)
    assert words == ["msr-enhance", "extract", "--data", "log.csv", *OPTIONS, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(long_log)
        data = the_object(run(*words[1:], "--json"))
    assert sum(data["rows"]["user"].values()) == USERS
    assert sum(data["resumed"].values()) == rows
    assert data["read"] == USERS + 2 - rows
    same_rows(process.out, long_log / "whole")


def test_a_second_signal_ends_the_process_at_once(long_log):
    process = Run(long_log, "twice", "--max-new-tokens", "1500", "--tokens-per-batch", "500000")
    process.until((process.out / "manifest-2.json").exists)  # the scenarios; the users are one long batch
    time.sleep(0.3)
    process.process.send_signal(signal.SIGTERM)
    process.until(lambda: "again to stop now" in process.said)
    began = time.monotonic()
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 143
    assert time.monotonic() - began < 2
    assert KnowledgeStore.load(process.out).levels == ("scenario",)


@pytest.mark.slow
def test_signals_at_random_times(long_log):
    """From the first instruction on: whatever was kept is whole, and going on ends the same."""
    draw = np.random.default_rng(int(os.environ.get("SIGNAL_SEED", "0")))
    whole, seen, stopped = long_log / "whole", [], 0
    for turn in range(3):
        out = f"random {turn}"
        for _ in range(2):
            process = Run(long_log, out)
            process.until(lambda process=process: "rows," in process.said)
            time.sleep(float(draw.exponential(1.5)))
            number = (signal.SIGINT, signal.SIGTERM)[int(draw.integers(2))]
            process.process.send_signal(number)
            code = process.end()
            seen.append(code)
            if process.data:  # it came after all was done and said
                continue
            assert code == 128 + number, process.said
            assert "To go on, run:" in process.said
            assert "Traceback" not in process.said
            stopped += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(long_log)
            run("extract", "--data", "log.csv", *OPTIONS, "--out", out)
        same_rows(long_log / out, whole)
    assert stopped >= 2, seen


@pytest.mark.slow
def test_workers_are_stopped_with_their_parent(long_log):
    process = Run(long_log, "parts", "--engine", "processes", "--workers", "2", "--parts", "3")
    parts = long_log / "parts.parts"
    process.until(lambda: len(list(parts.glob("*/vec-*"))) > 3)
    process.process.send_signal(signal.SIGTERM)
    assert process.end() == 143
    rows = int(re.search(r"stopped; (\d+) rows are safe", process.said)[1])
    stores = [KnowledgeStore.load(path) for path in parts.glob("part-*") if path.is_dir()]
    assert rows == sum(len(store.ids(level)) for store in stores for level in store.levels)
    assert rows > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(long_log)
        data = the_object(run(*resume_line(process.said)[1:], "--json"))
    assert sum(data["resumed"].values()) == rows
    assert data["read"] == USERS + 2 - rows
    # A part has batches of its own, and a batch's padding rounds otherwise.
    same_rows(long_log / "parts", long_log / "whole", within=1e-5)
    assert not parts.exists()


# The context manager alone


def interrupted(number, grace, patient, then):
    """Take a signal, then go on with something; the request, and the seconds until it was stopped."""
    began = time.monotonic()
    with stoppable(grace) as stop:
        try:
            with stop.after_the_batch() if patient else contextlib.nullcontext():
                os.kill(os.getpid(), number)
                then()
        except Stopped:
            return stop, time.monotonic() - began
    pytest.fail("it was not stopped")


def test_a_batch_longer_than_the_grace_is_dropped():
    stop, seconds = interrupted(signal.SIGTERM, 0.3, True, lambda: time.sleep(10))
    assert 0.3 <= seconds < 2
    assert stop()
    assert stop.number == signal.SIGTERM


def test_a_stop_that_something_swallowed_comes_again(monkeypatch):
    monkeypatch.setattr(signals, "_AGAIN", 0.1)
    swallowed = []

    def then():
        try:
            time.sleep(10)
        except Stopped:
            swallowed.append(True)
        time.sleep(10)

    interrupted(signal.SIGINT, 0.1, True, then)
    assert swallowed == [True]


def test_outside_a_batch_a_signal_stops_at_once():
    stop, seconds = interrupted(signal.SIGINT, 5.0, False, lambda: time.sleep(10))
    assert stop()
    assert seconds < 1


def test_afterwards_signals_are_as_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with stoppable(grace=0.05) as stop, stop.after_the_batch():
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)  # no alarm is left
    assert [signal.getsignal(number) for number in numbers] == before


def test_in_another_thread_signals_are_left_alone():
    asked = []

    def work():
        with stoppable() as stop:
            asked.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


@pytest.mark.parametrize("found", [True, False])
def test_the_command_line_can_be_pasted(monkeypatch, tmp_path, found):
    program = tmp_path / "my bin" / "msr-enhance"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(program.parent) if found else str(tmp_path))
    words = ["extract", "--out", "it's $HOME; rm", "--cutoff", "2024-01-01 10:00"]
    monkeypatch.setattr(sys, "argv", [str(program), *words])
    line = this_command()
    assert shlex.split(line) == ["msr-enhance" if found else str(program), *words]
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1:] == words
    assert Path(shlex.split(line)[0]).name == "msr-enhance"
