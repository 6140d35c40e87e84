"""Token ids of prompts, kept for a while: they are asked for to count, to plan and to answer."""

from __future__ import annotations

from collections.abc import Callable

_HELD_TOKENS = 1 << 20  # about 40 MB


class Encodings:
    """Token ids by prompt, forgotten all at once when they grow too many.

    Args:
        encode: Gives the ids of a prompt.
    """

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode
        self._ids: dict[str, list[int]] = {}
        self._held = 0

    def __getitem__(self, prompt: str) -> list[int]:
        text = str(prompt)  # a prompt with facts is found by its text alone
        ids = self._ids.get(text)
        if ids is None:
            if self._held > _HELD_TOKENS:
                self._ids.clear()
                self._held = 0
            ids = self._ids[text] = self._encode(text)
            self._held += len(ids)
        return ids
