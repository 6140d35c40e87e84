"""Personal traces in texts: a look at prompts and answers before they leave, no proof that there are none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_PHONE = re.compile(r"(?<![\w.,-])\+\d[\d ()/-]{7,18}\d(?![\w-])")
_SHORTEST = 6


def traces(rows: Iterable[tuple[int | str, str]]) -> Counter[str]:
    """How many texts hold what looks personal.

    Args:
        rows: Id of each row, and its prompt or answer.

    Returns:
        Texts with an e-mail address, with an international phone number, and with the row's own id: after
        the word user, or anywhere where the id has six letters or more.
    """
    found: Counter[str] = Counter()
    for name, text in rows:
        found["e-mail addresses"] += bool(_EMAIL.search(text))
        found["phone numbers"] += bool(_PHONE.search(text))
        found["the user's own id"] += _names(name, text)
    return +found


def _names(name: int | str, text: str) -> bool:
    word = str(name)
    if isinstance(name, str) and len(word) >= _SHORTEST and word in text:
        return True
    return re.search(rf"user[\s_#:-]{{0,3}}{re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
