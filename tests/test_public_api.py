"""The public names are exact, lazy, documented, and cost nothing until they are used."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import msr_enhance

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "AITM",
    "PLE",
    "STAR",
    "Columns",
    "EnhancedModel",
    "HuggingFaceLLM",
    "InteractionTable",
    "KnowledgeExtractor",
    "KnowledgeStore",
    "MMoE",
    "MetaConfig",
    "MsrEnhanceError",
    "OMoE",
    "Platform",
    "ScenarioPrompt",
    "SharedBottom",
    "Templates",
    "UserBlocks",
    "UserPrompt",
    "compare",
    "enhance",
    "explain",
    "split_table",
]
HEAVY = ("torch", "transformers", "polars", "numpy")


def type_checking_imports() -> dict[str, str]:
    """Public name → module, as a type checker sees them."""
    tree = ast.parse(Path(msr_enhance.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def heavy_modules_after(code: str, cwd: Path) -> set[str]:
    """Which heavy modules a fresh interpreter has loaded after some code."""
    probe = f"{code}\nimport sys\nsys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=cwd, check=True)
    return set(done.stderr.split())


def test_the_public_names_are_exact():
    assert msr_enhance.__all__ == PUBLIC
    assert dir(msr_enhance) == sorted(PUBLIC)


def test_the_public_names_are_sorted():
    def key(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert sorted(msr_enhance.__all__, key=key) == msr_enhance.__all__


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_comes_from_the_file_that_defines_it(name):
    value = getattr(msr_enhance, name)
    home = f"msr_enhance.{msr_enhance._HOMES[name]}"
    assert value.__module__ == home == type_checking_imports()[name]
    assert getattr(importlib.import_module(home), name) is value


def test_lazy_homes_and_typed_imports_are_of_the_same_names():
    assert set(msr_enhance._HOMES) == set(type_checking_imports()) == set(PUBLIC)


def test_no_public_name_hides_a_module():
    inner = {
        path.stem if path.is_file() else path.name for path in Path(msr_enhance.__file__).parent.iterdir()
    }
    assert not inner & set(PUBLIC)


def test_an_unknown_name_lists_what_is_there():
    with pytest.raises(AttributeError, match=r"no attribute 'enhanse'.*enhance"):
        msr_enhance.enhanse  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    value = getattr(msr_enhance, name)
    assert len(value.__doc__ or "") > 20
    if inspect.isclass(value):
        methods = [
            method
            for own, method in vars(value).items()
            if not own.startswith("_")
            and (inspect.isfunction(method) or isinstance(method, (classmethod, property)))
        ]
        assert all(method.__doc__ for method in methods)
    reference = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert re.search(rf"\b{name}\b", reference), f"docs/reference.md does not name {name}"


def test_importing_the_package_loads_nothing_heavy(tmp_path):
    assert heavy_modules_after("import msr_enhance; dir(msr_enhance)", tmp_path) == set()


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        *([one, "--help"] for one in ("demo", "extract", "show", "compare", "explain")),
    ],
)
def test_help_does_not_load_torch(command, tmp_path):
    code = f"from msr_enhance.cli.app import app\napp({command!r}, standalone_mode=False)"
    assert heavy_modules_after(code, tmp_path) == set()


def test_a_store_is_read_without_torch(tmp_path):
    loaded = heavy_modules_after("from msr_enhance import KnowledgeStore", tmp_path)
    assert not loaded & {"torch", "transformers", "polars"}


def test_prompts_and_logs_need_no_torch(tmp_path):
    code = (
        "from msr_enhance import Columns, InteractionTable, Platform, ScenarioPrompt, UserPrompt, split_table"
    )
    assert not heavy_modules_after(code, tmp_path) & {"torch", "transformers"}


def test_the_probe_sees_a_loaded_module(tmp_path):
    """A check of the check above."""
    assert "numpy" in heavy_modules_after("import numpy", tmp_path)
