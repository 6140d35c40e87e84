"""Bad options and broken runs: one sentence on stderr, an exit code, nothing on stdout."""

from __future__ import annotations

import pytest
from running import QUICK, run

from msr_enhance.cli import extract as extract_command
from msr_enhance.cli.problems import EXIT_CODES
from msr_enhance.errors import (
    DataError,
    EnhanceError,
    LeakageError,
    ModelError,
    MsrEnhanceError,
    PromptError,
    StoreError,
    StoreIdentityError,
    TrainingError,
    UnknownIdError,
)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--data", "gone.csv"), 3, ["no file gone.csv", "Write the path"]),
        (("--data", "log.xlsx"), 3, ["'.xlsx' is not known", "'.csv'", "Convert log.xlsx"]),
        (("--column", "usr=uid"), 3, ["'usr' is not known", "'user'", "--column user=uid"]),
        (("--column", "user=uid"), 3, ["no user column 'uid'", "'user_id'"]),
        (("--split", "random"), 3, ["'random' is not known", "'scenario'", "--split user"]),
        (("--protocol", "window,"), 3, ["'window'", "'paper'", "--protocol window"]),
        (("--cutoff", "2024-05-22"), 3, ["'2024-05-22' cannot be read", "a number"]),
        (("--cutoff", "100000"), 3, ["leaves no row", "0 to 399"]),
        (("--cutoff", "nan"), 3, ["leaves no row"]),
        (("--template", "papper"), 4, ["'papper' is not known", "'paper'", "folder with user.yaml"]),
        (("--template", "."), 4, ["neither scenario.yaml nor user.yaml"]),
        (("--platform", "gone.yaml"), 4, ["gone.yaml cannot be read"]),
        (("--model", "./empty"), 5, ["Cannot load './empty'", "'builtin'"]),
        (("--encoder", "./empty", "--model", "builtin"), 5, ["empty"]),
        (
            ("--model", "builtin", "--state", "first"),
            5,
            ["'first' is not known", "'last', 'prompt', 'token-mean'"],
        ),
        (("--out", "log.csv"), 6, ["log.csv is a file", "Write another path"]),
        (("--out", "."), 6, ["is no store", "new or empty folder"]),
    ],
)
def test_a_bad_option_of_extract(log, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.xlsx").touch()
    given = {"--data": "log.csv", "--model": "category-frequency", "--out": "s"}
    extra = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option in given:
            given[option] = value
        else:
            extra += [option, value]
    result = run("extract", *(part for pair in given.items() for part in pair), *extra, code=code)
    assert result.stdout == ""
    assert "error: " in result.stderr
    for word in said:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--store", "gone"), 6, ["gone is not a folder", "msr-enhance extract"]),
        (("--arms", "enhanced,shufled"), 3, ["'shufled' is not known", "'shuffled'"]),
        (("--backbone", "mmoe"), 3, ["'mmoe' is not known", "'star'", "--backbone star"]),
        (("--learning-rates", "fast"), 3, ["'fast'", "0.003,0.01"]),
        (("--split", "user"), 7, ["cut-off"]),
        (("--column", "label=liked"), 3, ["no label column 'liked'"]),
    ],
)
def test_a_bad_option_of_compare(log, store, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    given = dict(zip(("--data", "--store", *words[::2]), ("log.csv", "store", *words[1::2]), strict=True))
    result = run("compare", *QUICK, *(part for pair in given.items() for part in pair), "--json", code=code)
    assert result.stdout == ""
    for word in said:
        assert word in result.stderr


@pytest.mark.parametrize("rate", ["-0.01", "nan"])
def test_a_rate_that_cannot_be(log, store, rate):
    run("compare", "--data", log, "--store", store, "--learning-rates", rate, code=3)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(log, tmp_path, device):
    run("extract", "--data", log, "--out", tmp_path / "s", "--device", device, code=5)


@pytest.mark.parametrize("out", [".", "gone/result.json"])
def test_an_out_that_cannot_be_written_is_known_before_the_work(log, store, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    result = run("compare", "--data", log, "--store", store, *QUICK, "--out", out, code=3)
    assert result.stdout == ""
    assert f"--out is '{out}'; allowed: a file in a folder that exists" in result.stderr
    assert "Rows:" not in result.stderr, "nothing was read yet"


def test_an_extraction_that_fails_throughout_says_why(log, tmp_path):
    words = ("--data", log, "--max-new-tokens", 9000, "--out", tmp_path / "s")
    said = run("extract", *words, code=5).stderr
    assert "prompts failed" in said
    assert "exceed the window of 8192" in said


@pytest.mark.parametrize(
    "words", [("--user", "nobody"), ("--user", "999"), ("--user", "105", "--scenario", "feed")]
)
def test_a_bad_request_of_show(store, words):
    result = run("show", store, *words, "--json", code=6)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (DataError, 3),
        (PromptError, 4),
        (ModelError, 5),
        (StoreError, 6),
        (StoreIdentityError, 6),
        (UnknownIdError, 6),
        (LeakageError, 7),
        (EnhanceError, 1),
        (TrainingError, 1),
        (MsrEnhanceError, 1),
        (KeyboardInterrupt, 130),
    ],
)
def test_exit_codes(monkeypatch, kind, code):
    def fails(*args, **more):
        raise kind("it was \x1b[31mred")

    monkeypatch.setattr(extract_command, "run", fails)
    result = run("extract", "--data", "x", "--out", "y", code=code)
    assert result.stdout == ""
    assert "\x1b" not in result.stderr
    assert ("it was" in result.stderr) == (kind is not KeyboardInterrupt)
    assert len(set(EXIT_CODES.values()) | {0, 1, 2, 130}) == len(EXIT_CODES) + 4


def test_an_unknown_error_keeps_its_traceback(monkeypatch):
    def fails(*args, **more):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(extract_command, "run", fails)
    with pytest.raises(ZeroDivisionError):
        run("extract", "--data", "x", "--out", "y")
