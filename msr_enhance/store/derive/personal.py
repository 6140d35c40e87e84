"""Personal traces in texts: a look at prompts and answers before they leave, no proof that there are none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_PHONE = re.compile(r"(?<![\w.,-])\+\d[\d ()/-]{7,18}\d(?![\w-])")
_SHORTEST = 5


def traces(rows: Iterable[tuple[int | str | None, str]]) -> Counter[str]:
    """How many texts hold what looks personal.

    Args:
        rows: Id of each user, None for a scenario; and its prompt, answer and facts.

    Returns:
        Texts with an e-mail address, with an international phone number, and with the user's own id: after
        the word user, or anywhere as a word where it has five characters or more.
    """
    found: Counter[str] = Counter()
    for name, text in rows:
        found["e-mail addresses"] += bool(_EMAIL.search(text))
        found["phone numbers"] += bool(_PHONE.search(text))
        found["the user's own id"] += name is not None and _names(str(name).casefold(), text.casefold())
    return +found


def _names(word: str, text: str) -> bool:
    if word not in text:
        return False
    before = r"(?<!\w)" if len(word) >= _SHORTEST else r"user[\W_]{0,3}(?:id[\W_]{0,3})?"
    return re.search(rf"{before}{re.escape(word)}(?!\w)", text) is not None
