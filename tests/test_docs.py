"""README and docs are run: every Python and shell block, in the order of its page, in an empty folder.

`# → text` after a statement or a command is what it prints; `...` in it stands for anything. A page's
Python blocks share their names, and all its blocks share the folder. Comments right before a block:
`<!-- test: slow -->` makes its page a slow test (one that runs our commands is one anyway), and
`<!-- test: skip because ... -->` leaves the block out.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest
import test_wheel
import yaml

from msr_enhance.prompts.platform import Platform

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
ARROW = "# → "
INSTALLS = {test_wheel.TRY_IT, test_wheel.TEST_IT}  # run by test_wheel.py, or by CI itself
RUN_BY_CI = {"bash .ci/run"}
OURS = ("msr-enhance", "python", "pip")
SHELLS = ("bash", "sh", "shell", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its language, its text, and the comment before it."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(page, text):
    """All fenced blocks of a page, in order."""
    found, mark, opened = [], "", None
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if opened is None and (fence := re.match(r"^(\s*)```(\w*)\s*$", line)):
            opened = (number, fence[2], len(fence[1]))
        elif opened is not None and line.strip() == "```":
            start, language, indent = opened
            inner = "\n".join(each[indent:] for each in lines[start : number - 1])
            found.append(Block(page, start, language, inner + "\n", mark))
            opened, mark = None, ""
        elif opened is None and (comment := re.match(r"^\s*<!-- test: (.+) -->\s*$", line)):
            mark = comment[1]
        elif opened is None and line.strip():
            mark = ""
    assert opened is None, f"{page}: the block of line {opened[0]} is never closed"
    return found


def check_output(block, line, expected, printed):
    right = doctest.OutputChecker().check_output(
        expected.strip() + "\n", printed.strip() + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    if not right:  # raised, so that pytest leaves the text as it is
        raise AssertionError(f"{block.page}:{line} says\n{expected}\nand this was printed:\n{printed}")


def expected_outputs(block):
    """Line of the block → the text of an arrow comment there."""
    tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
    return {
        token.start[0]: token.string.removeprefix(ARROW)
        for token in tokens
        if token.type == tokenize.COMMENT and token.string.startswith(ARROW)
    }


def run_python(block, names):
    """Run a block statement by statement, comparing what each prints with the comments after it."""
    statements = ast.parse(block.text).body
    wanted = {number: [] for number in range(len(statements))}
    for line, text in expected_outputs(block).items():
        owner = max(number for number, one in enumerate(statements) if one.lineno <= line)
        wanted[owner].append(text)
    for number, statement in enumerate(statements):
        ast.increment_lineno(statement, block.line)
        code = compile(ast.Module([statement], []), str(ROOT / block.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        if wanted[number]:
            check_output(block, statement.lineno, "\n".join(wanted[number]), printed.getvalue())


def run_shell(block):
    """Run the commands of a block; our own only, each in a process of its own."""
    command, printed = "", ""
    for offset, line in enumerate(block.text.splitlines(), start=1):
        if line.startswith(ARROW):
            check_output(block, block.line + offset, line.removeprefix(ARROW), printed)
        elif line.endswith("\\"):
            command += line[:-1] + " "
        elif words := shlex.split(command + line, comments=True):
            printed = run_command(block, (command + line).strip(), words)
            command = ""


def run_command(block, text, words):
    if text in INSTALLS | RUN_BY_CI:
        return ""
    assert words[0] in OURS, (
        f"{block}: {text!r} is not ours to run; mark the block `<!-- test: skip because ... -->`"
    )
    program = Path(sys.executable).with_name(words[0])
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{block}: {text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def run_page(blocks):
    names = {"__name__": "a_page_of_the_docs"}
    for block in blocks:
        if block.language == "python":
            run_python(block, names)
        elif block.language in SHELLS:
            run_shell(block)
        elif block.language == "yaml":
            content = yaml.safe_load(block.text)
            if isinstance(content, dict) and "scenarios" in content:
                Platform.model_validate(content)


PARSED = {page: blocks_of(page, (ROOT / page).read_text("utf-8")) for page in PAGES}
SKIPPED = [block for blocks in PARSED.values() for block in blocks if block.mark.startswith("skip")]
RUN = {page: [block for block in blocks if block not in SKIPPED] for page, blocks in PARSED.items()}


def is_slow(blocks):
    """Whether a page starts processes of its own, or says that it takes long."""
    shell = "".join(block.text for block in blocks if block.language in SHELLS)
    return any(block.mark == "slow" for block in blocks) or any(
        line.startswith(OURS) and line not in INSTALLS for line in shell.splitlines()
    )


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * is_slow(blocks)) for page, blocks in RUN.items()]
)
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(RUN[page])


@pytest.mark.parametrize("block", SKIPPED or [pytest.param(None, id="no such block")], ids=str)
def test_a_block_that_is_not_run_says_why(block):
    if block is not None:
        reason = block.mark.removeprefix("skip because ")
        assert reason != block.mark, f"{block}: write `<!-- test: skip because REASON -->`"
        pytest.skip(f"{block}: {reason}")


def test_the_readme_gives_both_commands():
    """Each as one pasted line, in the order install-and-run, install-and-test."""
    lines = [
        line for block in PARSED["README.md"] if block.language == "bash" for line in block.text.splitlines()
    ]
    assert [line for line in lines if "pip install" in line] == [test_wheel.TRY_IT, test_wheel.TEST_IT]
    assert (ROOT / "constraints" / "cpu.txt").is_file()


def test_marks_are_known():
    for blocks in PARSED.values():
        for block in blocks:
            assert block.mark in ("", "slow") or block.mark.startswith("skip because "), str(block)


def test_every_internal_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text("utf-8")):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


# The checks above can fail


def fences(*blocks):
    return "\n".join(f"```{language}\n{text}\n```" for language, text in blocks)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (fences(("python", "print(1)\n# → 2")), "and this was printed:\n1"),
        (fences(("python", "print(1)  # → 2")), "and this was printed:\n1"),
        (fences(("python", "x = 1"), ("python", "print(x + 1)\n# → 1")), "and this was printed:\n2"),
        (fences(("python", "x = 1\n# → 1")), "and this was printed:\n"),
        (fences(("python", "for x in range(2):\n    print(x)\n# → 0\n# → 2")), "0\n1"),
        (fences(("bash", "rm -rf x")), "not ours to run"),
        (fences(("bash", "msr-enhance shw")), "msr-enhance shw"),
        (fences(("bash", "msr-enhance --version\n# → 99")), "says\n99"),
        ("```python\nx", "never closed"),
    ],
)
def test_a_wrong_page_fails(text, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=re.escape(fault)):
        run_page(blocks_of("page.md", text))


def test_a_right_page_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "<!-- test: slow -->\n\n" + fences(
        ("python", "def two():\n    return 2\n\n\nprint(two(), 'and', id(two))  # → 2 and ..."),
        ("python", "for x in range(two()):\n    print(x)\n# → 0\n# → 1\nopen('file', 'w').close()"),
        ("bash", "msr-enhance --version  # of this\n# → 0...\nmsr-enhance \\\n  --help"),
        ("text", "rm -rf x"),
    )
    blocks = blocks_of("page.md", text)
    assert [block.mark for block in blocks] == ["slow", "", "", ""]
    run_page(blocks)
    assert (tmp_path / "file").exists()


def test_an_error_in_a_block_names_the_page_and_line(tmp_path):
    (block,) = blocks_of("README.md", "one\n\n```python\nx = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as error:
        run_page([block])
    last = error.traceback[-1]
    assert (last.path.name, last.lineno + 1) == ("README.md", 5)
