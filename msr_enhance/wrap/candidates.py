"""Which values of a call could be the keys of users and scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msr_enhance.wrap.path import leads, members_of, quoted

_COLUMNS = 64  # a wider matrix holds measurements, not ids
_WORDS = {
    "user": ("user_id", "userid", "uid", "user", "member", "visitor", "customer", "account", "person"),
    "scenario": ("scenario", "scene", "domain", "tab", "channel", "page", "site", "place", "context"),
}


@dataclass(frozen=True)
class Candidate:
    """A key as it is written in the code (quoted, or a number), and its values of the example."""

    written: str
    values: tuple[Any, ...]


def key_candidates(named: Mapping[str | int, Any]) -> list[Candidate]:
    """Each integer `[batch]`, whole column of a matrix or list of ids among named values."""
    found: list[Candidate] = []
    roots = {str(name): value for name, value in named.items()}
    for name, value in named.items():
        _add(found, roots, str(name), value, bare=isinstance(name, int))
    return found


def _add(
    found: list[Candidate],
    roots: Mapping[str, Any],
    path: str,
    value: Any,
    *,
    bare: bool = False,
    depth: int = 0,
) -> None:
    if not leads(path, roots, value):  # a name that cannot be written
        return
    written = path if bare else quoted(path)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        value = torch.from_numpy(value.astype(np.int64))
    if isinstance(value, Tensor):
        whole = not value.is_floating_point() and value.dtype is not torch.bool
        if whole and (value.dim() == 1 or (value.dim() == 2 and value.shape[1] == 1)):
            found.append(Candidate(written, tuple(value.flatten().tolist())))
        elif value.dim() == 2 and value.shape[1] <= _COLUMNS and value.dtype is not torch.bool:
            for place, column in enumerate(value.detach().unbind(1)):
                if whole or bool((column == column.round()).all()):
                    found.append(Candidate(quoted(f"{path}[:,{place}]"), tuple(column.tolist())))
    elif isinstance(value, list) and value and all(isinstance(one, (str, int)) for one in value):
        found.append(Candidate(written, tuple(value)))
    elif depth < 4:
        members = members_of(value)
        if not members and hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
            members = dict(vars(value))
        for name, member in members.items():
            _add(found, roots, f"{path}[{name}]", member, depth=depth + 1)


def likeliest(keys: list[Candidate]) -> tuple[dict[str, str], list[str]]:
    """A key for each level, and the levels whose key is a guess: by name, else by values.

    Of values, users have the most and scenarios the fewest.
    """
    chosen: dict[str, Candidate | None] = {}
    for level, words in _WORDS.items():
        named = (key for word in words for key in keys if word in key.written.lower())
        chosen[level] = next(named, None)
    guessed = [level for level, key in chosen.items() if key is None]
    for level in guessed:
        left = sorted(
            (key for key in keys if key not in chosen.values()), key=lambda key: len(set(key.values))
        )
        if left:
            chosen[level] = left[-1] if level == "user" else left[0]
    return {level: key.written if key else '"NAME"' for level, key in chosen.items()}, guessed
