"""Runs a notebook without a server: its code cells in order, in one namespace.

    python tests/examples/notebook_cells.py examples/09_what_did_it_learn.ipynb

run in the folder that the notebook needs, also stores what the cells print in the notebook.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    notebook = json.loads(path.read_text("utf-8"))
    if notebook.get("nbformat") != 4:
        raise ValueError(f"{path} has nbformat {notebook.get('nbformat')}; allowed: 4.")
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def stored_text(cell: dict[str, Any]) -> str:
    """What a cell had printed when the notebook was saved."""
    return "".join("".join(output["text"]) for output in cell["outputs"])


def execute(notebook: dict[str, Any], path: Path) -> list[str]:
    """What each code cell prints; the traceback of an error names the cell."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile("".join(cell["source"]), f"{path}[cell {number}]", "exec"), names)
        printed.append(out.getvalue())
    return printed


def store_outputs(path: Path) -> None:
    """Execute a notebook and write what its cells printed into it."""
    notebook = read(path)
    for number, (cell, text) in enumerate(
        zip(code_cells(notebook), execute(notebook, path), strict=True), start=1
    ):
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell["outputs"], cell["execution_count"] = ([stream] if text else []), number
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(target.parent))
    store_outputs(target)
