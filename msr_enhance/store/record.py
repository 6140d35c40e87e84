"""Record: what a store keeps of one user or scenario."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from msr_enhance.errors import StoreError, UnknownIdError

Level = Literal["user", "scenario"]
Status = Literal["ok", "empty", "failed", "truncated"]
IdType = Literal["int", "str"]

LEVELS: tuple[Level, ...] = ("user", "scenario")
STATUSES: tuple[Status, ...] = ("ok", "empty", "failed", "truncated")  # a shard stores the position
KNOWN: tuple[Status, ...] = ("ok", "truncated")


class Layout(NamedTuple):
    """What a manifest promises of all shards of a level.

    Attributes:
        level: The level, so that equal rows of two levels are two files.
        width: Numbers in a vector, all layers together.
        dtype: How they are kept.
        id_type: Type of the ids.
    """

    level: Level
    width: int
    dtype: str
    id_type: IdType


@dataclass(frozen=True, eq=False)
class Record:
    """One row of a store.

    Attributes:
        id: The user or scenario, as the log writes it.
        status: ``ok``; ``truncated`` where the prompt lost its oldest interactions to fit the model's
            window, and the vector is knowledge all the same; ``empty`` where there was nothing to ask
            about; ``failed`` where no answer came.
        prompt: What the model read.
        text: What it answered.
        facts: The prompt's facts, JSON-able.
        prompt_tokens: Tokens of the prompt.
        answer_tokens: Tokens of the answer.
        vector: The knowledge, float32 ``[dim]`` or ``[n_layers, dim]``; zeros where the status is
            ``empty`` or ``failed``.
    """

    id: int | str
    status: Status
    prompt: str
    text: str
    facts: dict[str, Any]
    prompt_tokens: int
    answer_tokens: int
    vector: npt.NDArray[np.float32]


def is_known(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which stored statuses ``[rows]`` come with knowledge, bool ``[rows]``."""
    return np.isin(codes, [STATUSES.index(status) for status in KNOWN])


def prompt_digest(prompt: bytes) -> bytes:
    """16 bytes that tell whether a prompt, as UTF-8, is the one that was asked before."""
    return hashlib.blake2b(prompt, digest_size=16).digest()


def exact_id(value: object) -> int | str:
    """An id as a store keeps it: an int of 64 bits, or a string.

    Args:
        value: A Python or numpy integer or string.

    Returns:
        The plain Python value.

    Raises:
        StoreError: If it is a bool, a float, too large, not Unicode or of another type.
    """
    if isinstance(value, str) and len(value.encode(errors="replace")) <= 1024:
        if value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value):
            return "" + value  # of a subclass, such as an enumeration, the text itself
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return int(value)
    large = isinstance(value, int) and value.bit_length() > 80  # too long to be written out, maybe
    shown = f"a number of {value.bit_length()} bits" if large else str(value)[:80]  # type: ignore[attr-defined]
    raise StoreError(
        f"{shown!r} ({type(value).__name__}) cannot be an id; allowed: integers of 64 bits and "
        "strings of valid Unicode up to 1024 bytes. Write int(id) or str(id), the same way everywhere."
    )


def as_list(ids: Any) -> list[Any]:
    """Many ids as a list; whatever would be taken apart into other ids is refused.

    Args:
        ids: A list, array, series, set or generator.

    Returns:
        The ids, numpy's as Python's.

    Raises:
        UnknownIdError: If it is one text, bytes, dates, or nothing that holds ids.
    """
    kind = getattr(getattr(ids, "dtype", None), "kind", "O")
    if not isinstance(ids, (str, bytes, bytearray, memoryview)) and kind not in "MmV":
        try:
            return list(ids.tolist()) if isinstance(ids, np.ndarray) else list(ids)
        except TypeError:
            pass
    raise UnknownIdError(
        f"ids were given as {type(ids).__name__}{f' of {ids.dtype}' if kind != 'O' else ''}; write a list of "
        "ids, such as [7, 9]."
    )


def check_id_types(level: Level, kind: IdType, ids: Iterable[object]) -> None:
    """Refuse to look up ids of another type than a level holds: ``7``, ``"7"`` and ``7.0`` differ.

    Args:
        level: The level, for the message.
        kind: The type of the level's ids.
        ids: The ids to look up.

    Raises:
        UnknownIdError: If an id is of another type; names the right one.
    """
    right: tuple[type, ...] = (int, np.integer) if kind == "int" else (str,)
    for seen in set(map(type, ids)):
        if not issubclass(seen, right) or seen is bool:
            raise UnknownIdError(
                f"ids of type {seen.__name__} were asked for; the {level} ids of this store are {kind}. "
                f"Write {kind}(id)."
            )
