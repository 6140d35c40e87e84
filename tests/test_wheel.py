"""The README's first command from a built wheel: fresh environment, empty folder, no network for the demo."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# `test_docs.py` checks that README.md says these, word for word.
TRY_IT = (
    "python3 -m venv .venv && .venv/bin/pip install -c constraints/cpu.txt . && .venv/bin/msr-enhance demo"
)
TEST_IT = (
    "python3 -m venv .venv && .venv/bin/pip install -c constraints/cpu.txt -e '.[test]' && "
    ".venv/bin/python -m pytest"
)

pytestmark = pytest.mark.slow


def call(words, cwd, **environment):
    """Run one step; its stdout, once it has succeeded."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in words]
    done = subprocess.run(words, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    print(done.stderr[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    call([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT], out)
    (path,) = out.glob("*.whl")
    return path


def test_what_a_wheel_holds(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.endswith("-py3-none-any.whl"), "a pure wheel"
    for path in (ROOT / "msr_enhance").rglob("*"):
        if path.is_file() and path.suffix in (".py", ".json", ".typed"):
            assert path.relative_to(ROOT).as_posix() in names
    assert {"msr_enhance/py.typed", "msr_enhance/llm/builtin_tokenizer.json"} <= names
    (metadata,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert f"{metadata}/licenses/LICENSE" in names
    assert {name.partition("/")[0] for name in names} == {"msr_enhance", metadata}, "no tests, no examples"
    assert not any("__pycache__" in name for name in names)
    about = zipfile.ZipFile(wheel).read(f"{metadata}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in about
    assert "Requires-Python: >=3.11" in about
    assert b"msr-enhance = msr_enhance.cli.app:main" in zipfile.ZipFile(wheel).read(
        f"{metadata}/entry_points.txt"
    )


def test_the_readmes_first_command_from_the_wheel(wheel, tmp_path):
    """The same three steps, with the wheel in place of the checkout and JSON in place of a table."""
    environment, install, demo = (shlex.split(step) for step in TRY_IT.split(" && "))
    assert environment[0] == "python3"
    call([sys.executable, *environment[1:]], tmp_path)
    install = [
        {".": wheel, "constraints/cpu.txt": ROOT / "constraints" / "cpu.txt"}.get(word, word)
        for word in install
    ]
    call([tmp_path / install[0], *install[1:]], tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    words = [tmp_path / demo[0], *demo[1:], "--json", "--seeds", "1"]  # three: tests/cli/test_cli.py
    data = json.loads(call(words, empty, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"))
    assert set(data) >= {"scenarios", "auc", "seeds", "leak_probe", "store"}
    arms = {"plain", "enhanced", "random", "shuffled", "learned", "concat", "plain_all"}
    assert set(data["auc"]) == arms
    assert data["seeds"] == 1
    assert Path(data["store"]).is_relative_to(empty)
    assert [path.name for path in empty.iterdir()] == ["runs"], "nothing else is left in the folder"
    show = call([tmp_path / demo[0], "show", data["store"], "--json"], empty)
    assert set(json.loads(show)["levels"]) == {"user", "scenario"}
    where = call(
        [tmp_path / ".venv/bin/python", "-c", "import msr_enhance; print(msr_enhance.__file__)"], empty
    )
    assert Path(where.strip()).is_relative_to(tmp_path), "the installed package ran, not the checkout"
