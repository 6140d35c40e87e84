"""Tables of the docs that name files, commands and exit codes, against what is there; and the pictures."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from msr_enhance.cli.app import app
from msr_enhance.cli.problems import EXIT_CODES

ROOT = Path(__file__).parents[1]
DOCS, PACKAGE = ROOT / "docs", ROOT / "msr_enhance"


def rows_of(page: str) -> list[list[str]]:
    """The cells of every table row of a page, but those of headers and rules."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    rows = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and not re.fullmatch(r"[|:\- ]+", line):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif line.startswith("|") and before.startswith("|"):
            rows.pop()  # the header that stands above the rule
    return rows


def ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def names_in(tree: ast.Module) -> set[str]:
    """Functions, classes, their methods, and what is assigned at the top of a file."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def missing(files: list[str], names: list[str]) -> list[str]:
    """What is not there: files, and names that none of the files has."""
    absent = [file for file in files if not (PACKAGE / file).is_file()]
    there: set[str] = set()
    for file in files:
        if file not in absent:
            there |= names_in(ast.parse((PACKAGE / file).read_text("utf-8")))
    return absent + [name for name in names if name not in there]


PARTS = [row for row in rows_of("paper-to-code.md") if len(row) == 4]


@pytest.mark.parametrize("row", PARTS, ids=lambda row: row[0])
def test_the_paper_leads_to_code_that_is_there(row: list[str]):
    files, names = ticked(row[2]), ticked(row[3])
    assert files
    assert missing(files, names) == []


def test_the_paper_table_has_every_equation():
    cells = " ".join(row[0] for row in PARTS)
    assert len(PARTS) >= 12
    assert [number for number in "4789" if number not in cells] == []


def commands(group: object, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = hasattr(command, "commands")
        found |= commands(command, f"{prefix}{name} ") if inner else {prefix + name}
    return found


def test_every_command_is_listed():
    listed = [name for row in rows_of("commands.md") if len(row) == 3 for name in ticked(row[0])]
    assert sorted(listed) == sorted(commands(get_command(app)))


def test_the_exit_codes_are_those_of_the_commands():
    listed = {
        name: int(row[0])
        for row in rows_of("commands.md")
        if len(row) == 2 and row[0].isdigit()
        for name in ticked(row[1])[:1]
    }
    assert listed == {kind.__name__: code for kind, code in EXIT_CODES.items()}


def test_every_page_is_in_the_navigation_once():
    def pages(node: object) -> list[str]:
        if isinstance(node, dict):
            node = list(node.values())
        return [node] if isinstance(node, str) else [page for each in node for page in pages(each)]  # type: ignore[attr-defined]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(pages(nav)) == sorted(path.name for path in DOCS.glob("*.md"))


PICTURES = sorted((DOCS / "images").glob("*.svg"))


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_stands_alone(path: Path):
    """Well-formed, with a title, no script, nothing fetched; and a page shows it, with a text."""
    root = ET.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert (root.findtext(f"{space}title") or "").strip()
    assert not [node.tag for node in root.iter() if node.tag in (f"{space}script", f"{space}image")]
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text("utf-8"))
    shown = [
        page.name
        for page in DOCS.glob("*.md")
        if re.search(rf"!\[[^\]]{{10,}}\]\(images/{re.escape(path.name)}\)", page.read_text("utf-8"))
    ]
    assert shown


def contrast(one: str, other: str) -> float:
    """Contrast of two colours `#rrggbb`, 1 to 21, as WCAG 2 counts it."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_reads_on_light_and_on_dark_pages(path: Path):
    """White text stands in boxes; other text is of one colour between the two."""
    root = ET.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    boxes = {node.get("fill") for node in root.iter(f"{space}rect") if node.get("fill-opacity") is None}
    texts = {group.get("fill") for group in root.iter(f"{space}g") if group.find(f"{space}text") is not None}
    assert "#ffffff" in texts
    assert min(contrast("#ffffff", box or "#ffffff") for box in boxes) >= 4.5
    for text in texts - {"#ffffff"}:
        assert contrast("#ffffff", text or "#ffffff") >= 4
        assert contrast("#0d1117", text or "#0d1117") >= 4


# The checks above can fail


def test_what_is_not_there_is_missing():
    file = "meta/branch.py"
    assert missing([file], ["Branch", "Branch.joined", "FEW_KEYS"]) == []
    assert missing([file, "nowhere.py"], ["Branch.nothing"]) == [
        "nowhere.py",
        "Branch.nothing",
    ]


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
