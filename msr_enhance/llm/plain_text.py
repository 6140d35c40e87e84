"""Text of a log stays text: it can never become a control token."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


def plain_text(tokenizer: Any) -> Callable[[str], str]:
    """A function that breaks up whatever a tokenizer would read as one added token.

    Tokens marked *special* are split by the tokenizer itself (`split_special_tokens=True`). Others, such
    as ``</think>`` of some chat models, are matched whole wherever they stand; a space after their
    first character makes them text again. Added runs of white space are text already.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    controls = {token.content for token in added if not token.special and len(token.content.strip()) > 1}
    if not controls:
        return str
    pattern = re.compile("|".join(map(re.escape, sorted(controls, key=len, reverse=True))))

    def broken(text: str) -> str:
        return pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    return broken
