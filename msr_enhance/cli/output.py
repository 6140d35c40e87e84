"""The only place that prints: data on stdout, words on stderr, one JSON object with --json."""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

_data: list[TextIO] = []


@contextlib.contextmanager
def data_only() -> Iterator[None]:
    """Keep stdout for `emit` and `show`: whatever a library prints meanwhile goes to stderr."""
    _data.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _data.pop()


def say(text: str) -> None:
    """Words for people, on stderr."""
    _write(escape(text), sys.stderr)


def emit(data: Any) -> None:
    """One JSON object on stdout, and nothing else."""
    _write(json.dumps(data, allow_nan=False), _data[-1] if _data else sys.stdout)


def show(text: str) -> None:
    """Data for people, on stdout."""
    _write(escape(text), _data[-1] if _data else sys.stdout)


def _write(text: str, stream: TextIO) -> None:
    """A line; what the stream's encoding lacks becomes a question mark instead of a traceback."""
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under a header; the first column is left-aligned, the others right-aligned."""
    cells = [[escape(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = []
    for number, row in enumerate(cells):
        parts = [row[0].ljust(widths[0])]
        parts += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(parts).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text of a log or a model without control and direction characters, newlines kept.

    A title may hold terminal escapes; they are shown, not obeyed.
    """
    return "".join(
        char
        if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
