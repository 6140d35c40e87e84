"""`extract --dry-run`: what it says is what the extraction then does, and it needs no weights for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from running import changed, run, the_object

from msr_enhance.cli import dry_run, run_costs
from msr_enhance.cli.job import ExtractJob
from msr_enhance.errors import DataError, ModelError
from msr_enhance.llm import builtin
from msr_enhance.llm.checkpoint import load
from msr_enhance.llm.hardware import Hardware
from msr_enhance.llm.outline import outline

SPEED = Hardware("cpu", "float32", flops=5e10, bandwidth=1e10, launch=6e-6)


@pytest.fixture(autouse=True)
def measured(monkeypatch, request):
    """Most tests ask nothing of the clock, and measuring takes half a second each time."""
    if "real_speed" not in request.fixturenames:
        monkeypatch.setattr(run_costs, "measure", lambda device, dtype, width: SPEED)


@pytest.fixture
def real_speed():
    """Measure this machine."""


@pytest.fixture
def told(capsys):
    """What a dry run prints: the object of `--json`, or its text."""

    def tell(job: ExtractJob, as_json: bool = True) -> Any:
        capsys.readouterr()
        dry_run.run(job, as_json)
        out = capsys.readouterr().out
        if not as_json:
            return out
        assert out.count("\n") == 1
        return json.loads(out)

    return tell


@pytest.fixture
def job(log, tmp_path):
    def make(**options):
        return ExtractJob(**{"data": log, "out": tmp_path / "store", "max_new_tokens": 3, **options})

    return make


@pytest.fixture
def weightless(tmp_path):
    """A checkpoint of which only configuration and tokenizer have arrived."""
    network, tokenizer = builtin.build()
    folder = tmp_path / "no-weights"
    network.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert not list(folder.glob("*.safetensors"))
    return folder


def extracted(job):
    """The store that the job's own extraction writes."""
    table = job.table()
    return job.extractor(job.reader(table)).extract(table, job.out, split=job.divide(table), limit=job.limit)


def records(store):
    return [store.record("user", user) for user in store.ids("user")]


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# it says what the extraction does


@pytest.mark.parametrize("options", [{}, {"limit": 7}, {"history": 2}, {"max_prompt_tokens": 130}])
def test_it_says_what_the_extraction_then_does(told, job, log, options):
    liked = pl.read_csv(log).select(pl.when(pl.col("user_id") == 101).then(0).otherwise("label"))
    plan = job(data=changed(log, label=liked.to_series().to_list()), **options)
    said = told(plan)
    assert not plan.out.exists(), "nothing is written"
    store = extracted(plan)
    made = records(store)
    asked = [record for record in made if record.status != "empty"]
    assert said["prompts"] == {
        "scenario": len(store.ids("scenario")),
        "user": len(asked),
        "without_history": len(made) - len(asked),
    }
    assert said["prompts"]["without_history"] == 1
    counts = [record.prompt_tokens for record in asked]
    assert said["tokens"]["counted"] == len(counts)
    assert said["tokens"]["quantiles"]["min"] == min(counts)
    assert said["tokens"]["quantiles"]["max"] == max(counts)
    assert said["tokens"]["shortened"] == sum(record.status == "truncated" for record in made)
    assert bool(said["tokens"]["shortened"]) == ("max_prompt_tokens" in options)
    assert sum(bar["prompts"] for bar in said["tokens"]["histogram"]) == len(counts)
    for bar in said["tokens"]["histogram"]:
        assert bar["prompts"] == sum(bar["from"] <= count < bar["below"] for count in counts)
    for first, record in zip(said["first_prompts"], asked, strict=False):
        assert (first["id"], first["prompt"], first["tokens"]) == (
            record.id,
            record.prompt,
            record.prompt_tokens,
        )
    assert len(said["first_prompts"]) == 2


def test_a_sample_stands_for_all(told, job, monkeypatch):
    whole = told(job())
    monkeypatch.setattr(dry_run, "MOST", 5)
    part = told(job())
    assert part["prompts"] == whole["prompts"]
    assert part["written"] == {"scenario": 2, "user": 5}
    assert part["tokens"]["counted"] == 5
    assert part["first_prompts"] == whole["first_prompts"]
    for low, high in zip(part["disk"]["bytes"], whole["disk"]["bytes"], strict=True):
        assert low == pytest.approx(high, rel=0.1)
    assert "sample: 5 of 20 user prompts, evenly spaced" in told(job(), as_json=False)


@pytest.mark.parametrize(
    "options", [{"model": "category-frequency"}, {"max_new_tokens": 40}, {"layers": (0, 1, 2)}]
)
def test_the_disk_it_names_is_the_disk_that_is_filled(told, job, options):
    said = told(job(**options))["disk"]
    extracted(job(**options))
    low, high = said["bytes"]
    headers = 12_000  # manifests and file headers, which do not grow with the users
    assert 0.9 * low < bytes_of(job().out) < 1.1 * high + headers
    assert said["free"] > 0


def test_a_finished_store_is_mentioned(told, job):
    assert told(job())["done_already"] is None
    extracted(job(limit=4))
    assert told(job())["done_already"] == 4
    assert "holds 4 users already" in told(job(), as_json=False)


def test_as_an_option_of_extract(told, job, log):
    words = ("--data", log, "--out", job().out, "--max-new-tokens", 3, "--dry-run")
    by_option, by_call = the_object(run("extract", *words, "--json")), told(job())
    for said in (by_option, by_call):  # what is free changes from one moment to the next
        said["memory"]["free"] = said["disk"]["free"] = None
    assert by_option == by_call
    result = run("extract", *words)
    assert "prompts: 2 of scenarios, 20 of users" in result.stdout
    assert "nothing was written" in result.stderr
    assert not job().out.exists()


# without weights


def test_no_weights_are_needed(told, job, weightless):
    said = told(job(model=str(weightless)))
    builtin_said = told(job())
    assert said["model"]["parameters"] == builtin_said["model"]["parameters"] == 852_608
    assert said["model"]["longest_prompt"] == 8_192 - 3
    assert said["tokens"] == builtin_said["tokens"]
    assert said["disk"]["bytes"] == builtin_said["disk"]["bytes"]
    assert said["memory"]["weights"] == 4 * 852_608
    assert any("weights" in one for one in said["unknown"])
    with pytest.raises(ModelError):
        load(weightless)


def test_chatglm2_is_counted_with_its_chat_format(told, job, tmp_path):
    there = Path(__file__).parents[3] / "shared/data/chatglm2_tiny"
    if not there.is_dir():
        pytest.skip("the tiny ChatGLM2 checkpoint is not here")
    folder = tmp_path / "glm"
    folder.mkdir()
    for file in there.iterdir():
        if file.suffix != ".bin":
            (folder / file.name).write_bytes(file.read_bytes())
    said = told(job(model=str(folder)))
    assert said["model"]["chat_format"]
    assert said["model"]["window"] == 32_768
    assert said["model"]["parameters"] == 8_397_376
    prompt, tokens = said["first_prompts"][0]["prompt"], said["first_prompts"][0]["tokens"]
    pieces = outline(folder, chat=False).encode(prompt)
    assert tokens == len(outline(folder).encode(prompt)) > len(pieces)


# time and memory


def test_time_is_a_range_with_its_premises(told, job, real_speed):
    short, long = told(job(max_new_tokens=2)), told(job(max_new_tokens=200))
    for said in (short, long):
        low, high = said["time"]["seconds"]
        assert 0 < low < high
        assert said["time"]["within_factor"] > 1
        assert said["time"]["speed"]["flops"] > 0
        assert said["memory"]["fits"] is True
    # Even if the machine was ten times as fast at the second measurement.
    assert long["time"]["seconds"][1] > 2 * short["time"]["seconds"][1]
    text = told(job(max_new_tokens=200), as_json=False)
    assert "if every answer ends at once" in text
    assert "an estimate, within a factor of 5" in text


def test_a_state_without_answers_has_none_to_wait_for(told, job):
    assert told(job(state="prompt"))["model"]["longest_answer"] == 0
    said = told(job(state="token-mean"))
    assert said["time"] is None
    assert any(one.startswith("time:") for one in said["unknown"])


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"encoder": "encoders/minilm"}, ["tokens", "time", "memory", "disk"]),
        ({"server": "http://localhost:9"}, ["time", "memory"]),
        ({"model": "category-frequency"}, ["tokens", "time", "memory"]),
    ],
)
def test_what_is_unknown_is_said_not_invented(told, job, options, missing):
    said = told(job(**options))
    assert [name for name in ("tokens", "time", "memory", "disk") if said[name] is None] == missing
    assert said["unknown"]
    assert said["prompts"]["user"] == 20
    assert said["first_prompts"][0]["prompt"]
    text = told(job(**options), as_json=False)
    assert "unknown: " in text
    assert "prompt of user 100" in text


# for people


def test_titles_are_shown_not_obeyed_and_cut(told, job, log):
    hostile = changed(log, title=["\x1b[2J\u202eevil " + "long " * 200] * 400)
    text = told(job(data=hostile), as_json=False)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "evil" in text
    assert "characters)" in text
    start = text.index("prompt of user")
    assert max(map(len, text[start:].splitlines())) < 220
    assert "#" * 40 in text[:start]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "./nothing-here/at/all"}, ModelError, "neither a folder nor a model id"),
        ({"dtype": "float16", "device": "cpu"}, ModelError, "float16 on a CPU"),
        ({"device": "gpu9"}, ModelError, "Cannot use device 'gpu9'"),
        ({"max_new_tokens": 9_000}, ModelError, "write --max-new-tokens"),
        ({"state": "first"}, ModelError, "'first' is not known"),
        ({"split": "random"}, DataError, "'random' is not known"),
    ],
)
def test_what_the_extraction_would_refuse_is_refused(told, job, real_speed, options, error, said):
    with pytest.raises(error, match=said):
        told(job(**options))


def test_a_log_without_a_positive_to_show_has_no_prompt(told, job, log):
    late = pl.read_csv(log).select(pl.when(pl.col("timestamp") < 200).then(0).otherwise("label"))
    quiet = changed(log, label=late.to_series().to_list())
    said = told(job(data=quiet, split="global"))
    assert said["prompts"]["user"] == 0
    assert said["tokens"] is None
    assert said["first_prompts"] == []
