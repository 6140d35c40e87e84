"""SHA-256 of canonical JSON: what changes the answer is in, what changes the speed is out."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: object) -> bytes:
    """The one JSON spelling of a value: keys sorted, no spaces, UTF-8.

    Args:
        value: Anything the ``json`` module writes.

    Returns:
        The same bytes for equal values, whatever the order of their keys.

    Raises:
        ValueError: If the value holds NaN, an infinity or a lone surrogate, which JSON cannot say.
        TypeError: If the value holds something that is not JSON.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of a value, as 64 hex digits.

    Args:
        value: Anything ``canonical_json`` takes.

    Returns:
        The digest.
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()


def parse_canonical_json(data: bytes) -> Any:
    """The value of bytes that ``canonical_json`` wrote, and of no others.

    Args:
        data: The bytes.

    Returns:
        The value.

    Raises:
        ValueError: If the bytes are anything else: a key twice, NaN, spaces, too deep, damaged.
    """
    try:
        value = json.loads(data)
        written = canonical_json(value)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if written != data:
        raise ValueError("not canonical JSON: a repeated key, a space or another spelling of a value")
    return value
