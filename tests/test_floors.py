"""The floors of the package: imports only go down, islands never see each other, heavy ones stay put."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "msr_enhance"
TOP = "msr_enhance"

# A place is a file or a folder at the top of the package. Same place or a lower floor may be imported.
FLOORS = {
    "errors.py": 0,
    "fingerprint.py": 0,
    "atomic.py": 0,
    "progress.py": 0,
    "machine.py": 0,
    "card_text.py": 0,
    "data": 1,
    "prompts": 1,
    "llm": 1,
    "store": 1,
    "meta": 1,
    "demo": 1,
    "extract": 2,
    "scale": 2,
    "wrap": 2,
    "train": 3,
    "report": 4,
    "cli": 5,
    "__init__.py": 5,
}
APART = "backbones"  # sees nothing but itself, and only these places see it:
SEE_BACKBONES = {"train", "__init__.py", APART}

TRANSFORMERS_FILES = {
    "llm/builtin.py",
    "llm/cache.py",
    "llm/checkpoint.py",
    "llm/outline.py",
    "llm/chatglm/config.py",
    "llm/chatglm/tokenizer.py",
    "llm/chatglm/weights.py",
}
FOREIGN_WEIGHTS = "llm/chatglm/tensors.py"  # the one place that may read `.bin` files, as plain tensors only
WITHOUT_TORCH = {
    "data",
    "prompts",
    "store",
    "demo",
    "errors.py",
    "fingerprint.py",
    "atomic.py",
    "progress.py",
    "card_text.py",
}
FORBIDDEN = {"click", "pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 300


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join((TOP, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def place_of(name: str) -> str:
    """Place of a dotted module name."""
    parts = name.split(".")
    if len(parts) == 1:
        return "__init__.py"
    return parts[1] if parts[1] in FLOORS or parts[1] == APART else f"{parts[1]}.py"


def imports(tree: ast.AST, known: dict[str, Path]) -> list[tuple[int, str, str]]:
    """All imports `(line, module, name)`, wherever they stand; a module taken from a package is a module."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.append(
                    (node.lineno, inner, "") if inner in known else (node.lineno, module, alias.name)
                )
    return found


def under_type_checking(tree: ast.Module) -> set[int]:
    """Lines of a module inside `if TYPE_CHECKING:`."""
    return {
        line
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def faults(package: Path) -> list[str]:
    """Everything in a package that breaks a rule of the floors."""
    known, found = modules(package), []
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        source = path.read_text("utf-8")
        tree, short, place = ast.parse(source), path.relative_to(package).as_posix(), place_of(name)
        say = [f"{short}: {text}" for text in _file_faults(path, short, source, tree)]
        if place not in FLOORS and place != APART:
            say.append(f"{short}: no floor; write it into FLOORS")
        free = under_type_checking(tree) if short == "__init__.py" else set()
        graph[name] = set()
        for line, module, taken in imports(tree, known):
            if line in free:
                continue
            where = f"{short}:{line}"
            if module.startswith("."):
                say.append(f"{where}: relative import")
            elif module.partition(".")[0] == TOP:
                graph[name].add(module)
                say += [f"{where}: {text}" for text in _inner_faults(place, module, taken, known)]
            else:
                say += [f"{where}: {text}" for text in _outer_faults(place, short, module)]
        found += say
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as loop:
        found.append(f"a loop of imports: {' -> '.join(loop.args[1])}")
    return found


def _file_faults(path: Path, short: str, source: str, tree: ast.Module) -> list[str]:
    say = []
    if path.stem in VAGUE:
        say.append("a name that says nothing")
    if len(source.splitlines()) > LONGEST:
        say.append(f"{len(source.splitlines())} lines, more than {LONGEST}")
    if path.name == "__init__.py" and "/" in short and source.strip():
        say.append("an inner __init__.py with content")
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            say.append(f"line {node.lineno}: assert")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" and short != "cli/output.py":
                say.append(f"line {node.lineno}: print")
            plain = any(ast.unparse(word) == "weights_only=True" for word in node.keywords)
            if called == "torch.load" and short == FOREIGN_WEIGHTS and plain:
                continue
            if called in ("torch.load", "torch.save") or any(
                word.arg == "allow_pickle" for word in node.keywords
            ):
                say.append(f"line {node.lineno}: pickle by {called}")
            if (
                called in ("importlib.import_module", "import_module", "__import__")
                and short != "__init__.py"
            ):
                say.append(f"line {node.lineno}: an import that cannot be read here")
    return say


def _inner_faults(place: str, module: str, taken: str, known: dict[str, Path]) -> list[str]:
    say, target = [], place_of(module)
    if module not in known:
        return [f"{module} is not there"]
    if known[module].name == "__init__.py":
        say.append(f"imports {taken or 'a package'} from a package, not from the file that defines it")
    if target == APART or place == APART:
        if target == APART and place not in SEE_BACKBONES:
            say.append(f"{place} may not import {APART}")
        if place == APART and target != APART:
            say.append(f"{APART} may not import {target}")
    elif place in FLOORS and target in FLOORS and place != target and FLOORS[target] >= FLOORS[place]:
        way = "sideways" if FLOORS[target] == FLOORS[place] else "upwards"
        say.append(f"{place} imports {way} from {target}")
    return say


def _outer_faults(place: str, short: str, module: str) -> list[str]:
    root, say = module.partition(".")[0], []
    if root in FORBIDDEN:
        say.append(f"imports {root}")
    if root == "transformers" and short not in TRANSFORMERS_FILES:
        say.append("imports transformers")
    if root == "torch" and place in WITHOUT_TORCH:
        say.append("imports torch")
    return say


def test_the_package_keeps_to_its_floors():
    assert faults(PACKAGE) == []


def test_every_floor_is_used():
    missing = [place for place in (*FLOORS, APART) if not (PACKAGE / place).exists()]
    assert missing == []


def plant(root: Path, files: dict[str, str]) -> Path:
    package = root / TOP
    for name, text in {"__init__.py": "", "errors.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text, "utf-8")
    return package


def test_a_package_without_faults_passes(tmp_path):
    package = plant(
        tmp_path,
        {
            "__init__.py": "if TYPE_CHECKING:\n    from msr_enhance.train.a import x\n",
            "data/a.py": "from msr_enhance.errors import E\nfrom msr_enhance.data.b import y\n",
            "data/b.py": "y = 1\n",
            "train/a.py": "from msr_enhance.data import a\nfrom msr_enhance.backbones.star import S\n",
            "backbones/star.py": "import torch\n",
            "cli/output.py": "print(1)\n",
            FOREIGN_WEIGHTS: "torch.load('x', weights_only=True)\n",
        },
    )
    assert faults(package) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("data/a.py", "from msr_enhance.train.b import x", "upwards from train"),
        ("data/a.py", "def f():\n    from msr_enhance.train.b import x", "upwards from train"),
        ("data/a.py", "import msr_enhance.store.b", "sideways from store"),
        ("extract.py", "from msr_enhance.wrap import b", "sideways from wrap"),
        ("errors.py", "from msr_enhance.data.b import x", "upwards from data"),
        ("errors.py", "from msr_enhance.atomic import x", "sideways from atomic.py"),
        ("wrap/a.py", "from msr_enhance.backbones.b import x", "may not import backbones"),
        ("cli/a.py", "from msr_enhance.backbones.b import x", "may not import backbones"),
        ("backbones/a.py", "from msr_enhance.errors import x", "backbones may not import errors"),
        ("train/a.py", "from msr_enhance.data import x", "not from the file that defines it"),
        ("cli/a.py", "from msr_enhance import enhance", "not from the file that defines it"),
        ("cli/a.py", "import msr_enhance.data", "not from the file that defines it"),
        ("data/a.py", "from .b import x", "relative import"),
        ("data/a.py", "from msr_enhance.data.gone import x", "is not there"),
        ("data/a.py", "from msr_enhance.data.a import x", "a loop of imports"),
        ("data/b.py", "def f():\n    from msr_enhance.data.c import x", "a loop of imports"),
        ("data/__init__.py", "from msr_enhance.data.b import x", "inner __init__.py with content"),
        ("new.py", "", "no floor"),
        ("elsewhere/a.py", "", "no floor"),
        ("data/utils.py", "", "says nothing"),
        ("cli/a.py", "x = 1\n" * 301, "301 lines"),
        ("wrap/a.py", "import transformers", "imports transformers"),
        ("llm/other.py", "def f():\n    from transformers import x", "imports transformers"),
        ("store/a.py", "from torch import Tensor", "imports torch"),
        ("cli/a.py", "import click", "imports click"),
        ("cli/a.py", "from click.testing import x", "imports click"),
        ("wrap/a.py", "import pickle", "imports pickle"),
        ("wrap/a.py", "import torch\ntorch.load('x')", "pickle by torch.load"),
        ("llm/a.py", "torch.load('x', weights_only=True)", "pickle by torch.load"),
        (FOREIGN_WEIGHTS, "torch.load('x')", "pickle by torch.load"),
        (FOREIGN_WEIGHTS, "torch.load('x', weights_only=False)", "pickle by torch.load"),
        ("data/a.py", "np.load('x', allow_pickle=True)", "pickle by np.load"),
        ("data/a.py", "print('x')", "line 1: print"),
        ("data/a.py", "assert 1", "line 1: assert"),
        ("cli/a.py", "import importlib\nimportlib.import_module('x')", "cannot be read here"),
    ],
)
def test_the_check_sees_a_planted_fault(tmp_path, file, text, fault):
    """A gate that cannot fail is no gate."""
    sound = {f"{place}/b.py": "x = 1\n" for place in ("data", "store", "train", "wrap", "backbones")}
    sound |= {"data/c.py": "from msr_enhance.data.b import x\n", "atomic.py": ""}
    assert faults(plant(tmp_path / "sound", sound)) == []
    seen = faults(plant(tmp_path / "planted", {**sound, file: text}))
    assert any(fault in one for one in seen), seen
