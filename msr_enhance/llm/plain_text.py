"""Text of a log stays text: it can never become a control token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ROUNDS = 4


def control_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of every added token that stands for something else than text, named or not, special or not.

    Added runs of white space are text, and the unknown token is what strange text becomes.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    controls = {int(number) for number, token in added.items() if len(token.content.strip()) > 1}
    return frozenset(controls | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def plain_text(tokenizer: Any) -> Callable[[str], str]:
    """A function that breaks up whatever a tokenizer would read as one control token.

    Tokens marked *special* are split by the tokenizer itself (`split_special_tokens=True`). Others, such
    as ``</think>`` of some chat models, are matched whole wherever they stand, also in letters that the
    tokenizer normalises into them; a space after their first character makes them text again.
    """
    controls = control_ids(tokenizer)

    def broken(text: str) -> str:
        for turn in range(_ROUNDS + 1):
            out = tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
            )
            pairs = zip(out["input_ids"], out["offset_mapping"], strict=True)
            spans = [span for number, span in pairs if number in controls]
            if not spans:
                break
            for start, end in sorted(spans, reverse=True):
                found = text[start:end]
                split = start + len(found) - len(found.lstrip()) + 1
                # What no space can break is taken out.
                text = text[:split] + " " + text[split:] if turn < _ROUNDS else text[:start] + text[end:]
        return text

    return broken if controls else str
