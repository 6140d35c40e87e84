"""`doctor`: it looks at this machine, touches no network, and says what to do where it is not right."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import socket
from email.message import Message

import pytest
import torch
from running import run, the_object

from msr_enhance import machine
from msr_enhance.cli import checks, doctor, model_guide
from msr_enhance.cli.checks import Check
from msr_enhance.llm.hardware import Hardware

SPEED = Hardware("cpu", "float32", flops=5e10, bandwidth=1e10, launch=6e-6)


@pytest.fixture
def quick(monkeypatch):
    """Without the clock and the built-in model; what they find is tested once, with both."""
    monkeypatch.setattr(doctor, "measure", lambda device, dtype: SPEED)
    monkeypatch.setattr(doctor, "round_trip", lambda: [Check("store", "ok", "fine")])


@pytest.fixture(scope="module")
def said():
    """What `doctor --json` says of this machine, with every way to a network closed."""
    patch, out = pytest.MonkeyPatch(), io.StringIO()

    def closed(*_):
        raise AssertionError("doctor asked the network")

    patch.setattr(socket.socket, "connect", closed)
    patch.setattr(socket, "getaddrinfo", closed)
    with contextlib.redirect_stdout(out):
        doctor.run(True)
    patch.undo()
    assert out.getvalue().count("\n") == 1
    return json.loads(out.getvalue())


def named(found, name):
    return next(check for check in found if check.name == name)


# this machine


def test_a_machine_that_runs_these_tests_passes(said):
    assert said["ok"] is True
    assert [check for found in said["checks"].values() for check in found if check["status"] == "fail"] == []
    checked = {check["name"]: check for found in said["checks"].values() for check in found}
    assert checked["torch"]["found"] == importlib.metadata.version("torch")
    assert checked["built-in model"]["status"] == "ok"
    assert checked["store"]["status"] == "ok"
    for name in ("Python", "CPU cores", "memory", "disk of stores", "disk of models", "Hub token"):
        assert checked[name]["found"]
    expected = "device cuda" if torch.cuda.is_available() else "device cpu, float32"
    assert expected in checked["default of extract"]["found"]
    assert any("network" in one for one in said["not_checked"])


def test_it_measures_and_holds_known_models_against_it(said):
    assert {speed["dtype"] for speed in said["speed"]} >= {"bfloat16"}
    assert all(speed["flops"] > 1e8 and speed["bandwidth"] > 1e8 for speed in said["speed"])
    fits = [fit for fit in said["models"] if fit["dtype"] == said["speed"][0]["dtype"]]
    assert [fit["model"] for fit in fits] == list(model_guide.KNOWN)
    assert [fit["needs"] for fit in fits] == sorted(fit["needs"] for fit in fits)
    glm = next(fit for fit in fits if fit["model"] == "ChatGLM2-6B")
    assert glm["parameters"] == 6_243_584_000
    assert isinstance(glm["fits"], bool)
    assert "1,500 tokens" in said["model_guide"]


def test_for_people_each_check_is_a_line_and_each_model_a_row(capsys, quick):
    doctor.run(False)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert any(line.startswith("  ok    CPU cores: ") for line in lines)
    for name in model_guide.KNOWN:
        assert sum(line.startswith(name) for line in lines) == 1
    assert lines[-1].startswith("msr-enhance doctor: ")
    assert "0 fail" in lines[-1]
    assert "not checked: " in printed.out
    assert "{" not in printed.err


def test_a_token_is_named_and_never_shown(monkeypatch, capsys, quick):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretverysecret")
    for as_json in (True, False):
        doctor.run(as_json)
    printed = capsys.readouterr()
    assert "verysecret" not in printed.out + printed.err
    assert "Hub token: set" in printed.out
    assert "accepts the token" in printed.out


# what is not right


def test_a_check_that_breaks_is_a_failure_and_the_others_are_still_made(monkeypatch, quick):
    def broken():
        raise OSError("libcudart.so.99: cannot open shared object file")

    monkeypatch.setattr(doctor, "round_trip", broken)
    said = the_object(run("doctor", "--json", code=1))
    assert said["ok"] is False
    (failed,) = said["checks"]["self-check"]
    assert failed["status"] == "fail"
    assert "libcudart" in failed["found"]
    assert failed["do"]
    assert said["models"]


def requirements(monkeypatch, lines, extras, installed):
    facts = Message()
    for extra in extras:
        facts["Provides-Extra"] = extra

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: facts)
    monkeypatch.setattr(importlib.metadata, "version", version)


def test_extras_are_whole_or_come_with_their_command(monkeypatch):
    requirements(
        monkeypatch,
        [
            "torch>=2.10",
            "ray[default]>=2.40; extra == 'ray'",
            "sentence-transformers>=5.0; extra == 'encoder'",
            "old>=2.0; extra == 'late'",
            "pytest; extra == 'test'",
            "only-windows; sys_platform == 'win32' and extra == 'ray'",
        ],
        ["ray", "encoder", "late", "test"],
        {"torch": "2.13.0+cpu", "sentence-transformers": "6.2.0", "old": "1.9"},
    )
    found = {check.name: check for check in checks.extras()}
    assert set(found) == {"extra encoder", "extra late", "extra ray"}
    assert found["extra encoder"].status == "ok"
    assert found["extra encoder"].do == ""
    assert found["extra ray"].status == "warn"
    assert found["extra ray"].found == "ray not installed"
    assert found["extra ray"].do == "pip install 'msr-enhance[ray]'"
    assert found["extra late"].status == "warn"
    assert found["extra late"].found == "old 1.9"


def test_a_library_that_is_missing_or_too_old_fails(monkeypatch):
    requirements(
        monkeypatch,
        ["torch>=2.10", "numpy>=2.0", "polars>=1.20", "ray; extra == 'ray'"],
        ["ray"],
        {"torch": "2.13.0+cu126", "numpy": "1.26.4"},
    )
    found = {check.name: check for check in checks.libraries()}
    assert {name: check.status for name, check in found.items()} == {
        "torch": "ok",
        "numpy": "fail",
        "polars": "fail",
    }
    assert found["numpy"].do == "pip install 'numpy>=2.0'"
    assert found["polars"].found == "not installed"


def test_little_room_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "free_disk", lambda path: (path, 10**9))
    monkeypatch.setattr(machine, "memory", lambda: (2 * 10**9, 10**9))
    found = checks.resources()
    assert named(found, "memory").status == "warn"
    for name, word in (("stores", "--out"), ("models", "HF_HOME"), ("temporary files", "TMPDIR")):
        assert named(found, f"disk of {name}").status == "warn"
        assert word in named(found, f"disk of {name}").do
    monkeypatch.setattr(machine, "memory", lambda: None)
    assert named(checks.resources(), "memory").status == "warn"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path):
    (found,) = checks.gpus(tmp_path)
    assert found.status == "ok"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    (found,) = checks.gpus(tmp_path)
    assert found.status == "warn"
    assert "pytorch.org" in found.do


@pytest.mark.parametrize("offline", [True, False])
def test_the_hub_is_asked_only_on_request(monkeypatch, offline):
    import huggingface_hub

    asked = []

    def model_info(self, name, timeout):
        asked.append(name)
        raise ConnectionError("no route to host\nat all")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    assert all(check.status == "ok" for check in checks.hub(online=False))
    assert asked == []
    found = named(checks.hub(online=True), "Hub answers")
    assert found.status == "fail"
    assert "ConnectionError: no route to host at all" in found.found
    assert ("Unset HF_HUB_OFFLINE" if offline else "HF_ENDPOINT") in found.do
    assert len(asked) == 1
