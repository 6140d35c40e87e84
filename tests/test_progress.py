"""The one progress bar: what it says, and that earlier work does not count as speed."""

from __future__ import annotations

import io
import re

import pytest

from msr_enhance import progress as module
from msr_enhance.progress import progress


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def test_off_a_terminal_a_line_every_half_minute(clock, capsys):
    with progress("user prompts", 1_100, unit="users", done=100) as advance:
        for _ in range(25):
            clock.now += 4
            advance(10, 5_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "user prompts: 180 of 1,100, 2.5 users/s, 1,250 tokens/s, 0:06:08 left"
    assert len(lines) == 3


def test_without_tokens_there_is_no_word_of_them(clock, capsys):
    with progress("training", 4, unit="fits") as advance:
        clock.now += 60
        advance(1)
    assert capsys.readouterr().err == "training: 1 of 4, 0.017 fits/s, 0:03:00 left\n"


def test_short_steps_say_nothing_off_a_terminal(clock, capsys):
    with progress("x", 3) as advance:
        clock.now += 29
        advance(3)
    assert capsys.readouterr().err == ""


def test_the_bar_starts_where_the_last_run_ended(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress("user prompts", 200, unit="users", done=50) as advance:
        advance(30, 900)
        advance(20, 600)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "100/200" in text
    assert "users/s" in text
    assert "tokens/s" in text
