"""Page: one HTML file with its data, its style and its script, and a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

SCRIPTS: Final = (
    "dom.js",
    "bars.js",
    "lines.js",
    "overview.js",
    "map.js",
    "users.js",
    "outliers.js",
    "page.js",
)

# What could end the script element, and what turns or hides text for whoever reads the source of a page.
_UNSAFE = re.compile("[<>&\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_SLOT = re.compile(r"\{\{(policy|style|data|script)\}\}")


def page(data: Mapping[str, Any]) -> bytes:
    """A page that shows some data.

    Whatever the data holds, it is text: it stands in one JSON block, in which nothing can end the block, and
    the script writes it with ``textContent``; the policy lets no other script run.

    Args:
        data: Plain JSON, see ``content``.

    Returns:
        The page, UTF-8; the same bytes for the same data.

    Raises:
        ValueError: If the data holds NaN or an infinity.
    """
    style = _asset("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_asset, SCRIPTS)) + "})();\n"
    slots = {
        "policy": policy(style, script),
        "style": style,
        "script": script,
        "data": embedded(data),
    }
    text = _SLOT.sub(lambda found: slots[found[1]], _asset("page.html"))
    return text.encode(
        "utf-8", "replace"
    )  # a lone surrogate, which no file can hold, becomes a question mark


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style, this script, images inside the page, and nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def embedded(data: Any) -> str:
    """JSON that may stand in a script element.

    Args:
        data: Anything the ``json`` module writes, but NaN.

    Returns:
        The JSON, in which ``<``, ``>``, ``&`` and invisible characters are escaped.

    Raises:
        ValueError: If the data holds NaN or an infinity.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _asset(name: str) -> str:
    return files("msr_enhance.report").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
