"""The numbered examples run in their order, in one folder, and end as their headers say."""

from __future__ import annotations

import re
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import notebook_cells as notebooks
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FIELDS = ("Needs", "Takes", "Last line")


@dataclass(frozen=True)
class Header:
    """What an example says of itself."""

    title: str
    needs: str
    takes: str
    last_line: str


def header_of(text: str) -> Header:
    title = next(line for line in text.splitlines() if line.strip()).strip("# ").rstrip(".")
    found = {}
    for field in FIELDS:
        lines = re.findall(rf"^(?:- )?{field}: (.+)$", text, re.MULTILINE)
        assert len(lines) == 1, f"{title}: {len(lines)} lines say `{field}: ...`"
        found[field] = lines[0].strip()
    return Header(title, *(found[field] for field in FIELDS))


def text_of(path: Path) -> str:
    """The docstring of a script, the first cell of a notebook."""
    if path.suffix == ".ipynb":
        return "".join(notebooks.read(path)["cells"][0]["source"])
    return path.read_text("utf-8").split('"""')[1]


NUMBERED = sorted(path for path in EXAMPLES.iterdir() if re.match(r"\d\d_", path.name))
HEADERS = {path.name: header_of(text_of(path)) for path in NUMBERED}


def last_line(printed: str) -> str:
    return printed.rstrip("\n").rpartition("\n")[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All examples share a folder, as they do for a reader who runs one after the other."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return folder


def run(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    if path.suffix == ".ipynb":
        return "".join(notebooks.execute(notebooks.read(path), path))
    runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.name)
def test_an_example_ends_as_it_says(path: Path, there: Path, capsys: pytest.CaptureFixture[str]):
    for needed in re.findall(r"\d\d_\w+\.\w+", HEADERS[path.name].needs):
        assert (EXAMPLES / needed) in NUMBERED[: NUMBERED.index(path)], (
            f"needs {needed}, which is no earlier one"
        )
    if "01_extract.py" in HEADERS[path.name].needs and not (there / "runs" / "examples" / "store").exists():
        pytest.skip("01_extract.py has not run; run the whole file")
    assert last_line(run(path, capsys)) == HEADERS[path.name].last_line


def test_an_example_can_be_run_again(there: Path, capsys: pytest.CaptureFixture[str]):
    """What the first run left in the folder is no obstacle."""
    for name in ("01_extract.py", "08_share_a_store.py"):
        assert last_line(run(EXAMPLES / name, capsys)) == HEADERS[name].last_line


def test_the_numbers_have_no_gap():
    assert [path.name[:2] for path in NUMBERED] == [f"{number:02}" for number in range(1, len(NUMBERED) + 1)]
    assert sum(path.suffix == ".ipynb" for path in NUMBERED) == 1


def test_the_table_says_what_the_headers_say():
    lines = (EXAMPLES / "README.md").read_text("utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| [")]
    wanted = [
        [f"[{path.name}]({path.name})", one.title, one.needs, one.takes, f"`{one.last_line}`"]
        for path, one in ((path, HEADERS[path.name]) for path in NUMBERED)
    ]
    assert rows == wanted


def test_the_notebook_is_saved_with_its_outputs():
    """Of the run that its last line is documented for, and with every cell run, in order."""
    for path in NUMBERED:
        if path.suffix == ".ipynb":
            cells = notebooks.code_cells(notebooks.read(path))
            assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
            for cell in cells:
                assert bool(notebooks.stored_text(cell)) == ("print(" in "".join(cell["source"]))
            assert last_line(notebooks.stored_text(cells[-1])) == HEADERS[path.name].last_line


# The checks above can fail


def test_a_header_without_a_field_is_no_header():
    with pytest.raises(AssertionError, match="Takes"):
        header_of("An example.\n\nNeeds: nothing.\nLast line: done\n")


def test_an_error_in_a_cell_names_the_cell():
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "source": ["x = 1\n", "print(x)"]},
        {"cell_type": "markdown", "source": ["text"]},
        {"cell_type": "code", "source": ["x / 0"]},
    ]
    assert notebooks.execute({"cells": cells[:2]}, Path("n.ipynb")) == ["1\n"]
    with pytest.raises(ZeroDivisionError) as error:
        notebooks.execute({"cells": cells}, Path("n.ipynb"))
    assert str(error.traceback[-1].path) == "n.ipynb[cell 2]"
