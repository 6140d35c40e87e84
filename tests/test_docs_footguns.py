"""Every heading of the footguns is the text of an error that the source raises."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANY = "\0"
"""Stands for a value that a message fills in, and for `...` in a heading."""


def template(node: ast.expr) -> str | None:
    """The constant text of a string expression with `ANY` for each value; None where it is no string."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):  # adjacent literals are one node already
        return "".join(template(part) or ANY for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = template(node.left), template(node.right)
        return None if sides == (None, None) else "".join(ANY if side is None else side for side in sides)
    return None


def one_wildcard(text: str) -> str:
    """Quotes around a value are the value's own, and values side by side are one."""
    return re.sub(rf"(?:'{ANY}'|{ANY})(?: ?(?:'{ANY}'|{ANY}))*", ANY, text)


def templates_of(source: str) -> set[str]:
    found = (template(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.expr))
    return {one_wildcard(text) for text in found if text}


def headings_of(page: str) -> list[str]:
    return re.findall(r"^### `(.+)`$", page, re.MULTILINE)


def is_raised(heading: str, templates: set[str]) -> bool:
    wanted = one_wildcard(heading.replace("...", ANY)).strip()
    return any(wanted.strip(ANY + " ") in text and wanted in f"{ANY}{text}{ANY}" for text in templates)


TEMPLATES = set().union(
    *(templates_of(path.read_text("utf-8")) for path in sorted((ROOT / "msr_enhance").rglob("*.py")))
)
PAGE = (ROOT / "docs" / "footguns.md").read_text("utf-8")
HEADINGS = headings_of(PAGE)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_heading_is_in_the_source(heading: str):
    assert is_raised(heading, TEMPLATES), f"no message of msr_enhance reads: {heading}"


def test_every_third_level_heading_is_an_error():
    assert len(HEADINGS) >= 15
    assert len(HEADINGS) == len(re.findall(r"^###", PAGE, re.MULTILINE))
    assert len(set(HEADINGS)) == len(HEADINGS)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_heading_says_enough_to_be_searched_for(heading: str):
    assert sum(len(part.strip()) for part in heading.split("...")) >= 10


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_heading_has_a_text(heading: str):
    text = PAGE.split(f"### `{heading}`", 1)[1].split("\n#", 1)[0]
    assert len(text.split()) >= 10


# The checks above can fail

SOURCE = """
def check(tap, count):
    if count:
        raise ValueError(f"Tap {tap!r} fired {count} times; " "name another.")
    raise ValueError("no " + kind(tap) + f" at {tap}" + "\\n".join(tap))
"""


@pytest.mark.parametrize(
    ("heading", "there"),
    [
        ("Tap '...' fired ... times", True),
        ("Tap ... fired ... times; name another.", True),
        ("fired ... times", True),
        ("no ... at ...", True),
        ("Tap '...' fired twice", False),
        ("Tap fired ... times", False),
        ("Tap ... fired ... times; name another one", False),
        ("name another tap", False),
    ],
)
def test_only_what_the_source_says_is_found(heading: str, there: bool):
    assert is_raised(heading, templates_of(SOURCE)) == there
