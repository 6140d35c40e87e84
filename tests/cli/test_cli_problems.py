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
    StoreCorruptError,
    StoreError,
    StoreIdentityError,
    StoreIOError,
    StoreLockedError,
    StoreVersionError,
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
        (("--model", "./empty"), 5, ["./empty holds no config.json", "'builtin'"]),
        (("--model", "nobody/nothing"), 5, ["nobody/nothing could not be fetched", "a local folder"]),
        (("--model", "./gone/there"), 5, ["'./gone/there' is neither a folder nor a model id"]),
        (
            ("--model", "nobody/nothing", "--revision", "main", "--trust-remote-code", ""),
            5,
            ["nobody/nothing at revision 'main' could change under you", "40 hexadecimal digits"],
        ),
        (("--encoder", "./empty", "--model", "builtin"), 5, ["./empty"]),
        (
            ("--encoder", "./empty", "--server", "http://localhost:9"),
            5,
            ["--encoder and --server", "the one"],
        ),
        (("--server", "localhost:9", "--model", "builtin"), 5, ["localhost:9", "http://"]),
        (
            ("--model", "builtin", "--state", "first"),
            5,
            ["'first' is not known", "'last', 'last_step', 'prompt', 'token-mean'", "--state last"],
        ),
        (
            ("--server", "http://localhost:9", "--model", "builtin", "--state", "token-mean"),
            5,
            ["'token-mean' is not known", "'last', 'last_step', 'prompt'."],
        ),
        (("--model", "builtin", "--layers", "1,99"), 5, ["layers=[1, 99]", "from 0", "--layers 1,2"]),
        (("--model", "builtin", "--layers", "last"), 5, ["--layers is 'last'", "--layers 7,14,28"]),
        (("--model", "builtin", "--dtype", "float8"), 5, ["'float8' is not known", "'float32'"]),
        (("--model", "builtin", "--max-prompt-tokens", "5"), 5, ["prompts failed", "the model takes 5"]),
        (("--engine", "spark"), 3, ["'spark' is not known; allowed: 'local', 'processes', 'ray'"]),
        (
            ("--engine", "processes", "--shard", "0/2"),
            3,
            ["--shard", "--engine processes", "write one of them"],
        ),
        (("--engine", "processes", "--device", "cuda:1"), 3, ["cuda:1", "CUDA_VISIBLE_DEVICES"]),
        (("--workers", "2"), 3, ["--workers and --parts need --engine"]),
        (("--parts", "2"), 3, ["--workers and --parts need --engine"]),
        (("--shard", "4/4"), 3, ["no part 4 of 4", "0/4 to 3/4"]),
        (("--shard", "first"), 3, ["part 'first' cannot be read", "--shard 0/4"]),
        (("--shard", "auto"), 3, ["RANK with WORLD_SIZE", "SLURM_PROCID", "SLURM_ARRAY_TASK_ID"]),
        (("--out", "log.csv"), 6, ["log.csv is a file", "Write another path"]),
        (("--out", "."), 6, ["is no store", "new or empty folder"]),
    ],
)
def test_a_bad_option_of_extract(log, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.xlsx").touch()
    for name in ("RANK", "SLURM_PROCID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    given = {"--data": "log.csv", "--model": "category-frequency", "--out": "s"}
    extra = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option in given:
            given[option] = value
        else:
            extra += [option, value] if value else [option]
    result = run("extract", *(part for pair in given.items() for part in pair), *extra, code=code)
    assert result.stdout == ""
    assert "error: " in result.stderr
    for word in said:
        assert word in result.stderr
    assert not list(tmp_path.glob("*.parts")), "nothing is begun"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--store", "gone"), 6, ["gone is not a folder", "msr-enhance extract"]),
        (("--arms", "enhanced,shufled"), 3, ["'shufled' is not known", "'shuffled'"]),
        (("--backbone", "epnet"), 3, ["'epnet' is not known", "'ple'", "'star'", "--backbone star"]),
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


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("log.csv", "a file; it names a folder now, and the result is in its run.json. Write --out log."),
        ("gone/result.json", "a file; it names a folder now"),
        ("log.csv/below", "cannot be made"),
        ("held", "holds a run already; write a new folder"),
    ],
)
def test_an_out_that_cannot_be_written_is_known_before_the_work(log, store, tmp_path, monkeypatch, out, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "run.json").touch()
    result = run("compare", "--data", log, "--store", store, *QUICK, "--out", out, code=3)
    assert result.stdout == ""
    assert f"--out is '{out}'" in result.stderr
    assert said in result.stderr
    assert "Rows:" not in result.stderr, "nothing was read yet"


def test_an_answer_longer_than_the_window(log, tmp_path):
    words = ("--data", log, "--max-new-tokens", 9000, "--out", tmp_path / "s")
    said = run("extract", *words, code=5).stderr
    assert "window of 8192 tokens" in said
    assert "write --max-new-tokens" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--user", "nobody"), 13),
        (("--user", "999"), 13),
        (("--user", "105", "--scenario", "feed"), 6),
    ],
)
def test_a_bad_request_of_show(store, words, code):
    result = run("show", store, *words, "--json", code=code)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (DataError, 3),
        (PromptError, 4),
        (ModelError, 5),
        (StoreError, 6),
        (StoreCorruptError, 8),
        (StoreVersionError, 9),
        (StoreIdentityError, 10),
        (StoreLockedError, 11),
        (StoreIOError, 12),
        (UnknownIdError, 13),
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
