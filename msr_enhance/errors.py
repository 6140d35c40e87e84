"""Every error of the library, in one tree.

MsrEnhanceError
├── DataError              a log, a column or a value that cannot be used
│   └── SplitError         a log that cannot be divided the way that was asked
├── LeakageError           a row would be trained or scored with knowledge that saw it
├── PromptError            a template or a platform file that cannot be used
├── ModelError             a language model that cannot be loaded or read
├── StoreError             a knowledge store that cannot be used
│   ├── StoreCorruptError  bytes that are not what was written
│   ├── StoreVersionError  written in another version of the format
│   ├── StoreIdentityError made by another model, template or window
│   ├── StoreLockedError   somebody else is writing to it
│   ├── StoreIOError       a disk or a network that refuses
│   └── UnknownIdError     an id that the store does not hold
├── EnhanceError           a backbone, placement, tap or key that cannot be enhanced
└── TrainingError          a run that cannot go on

A message says what was seen, what is allowed, and what to write instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MsrEnhanceError(Exception):
    """Base of every error this library raises on purpose."""


class DataError(MsrEnhanceError, ValueError):
    """A log, a column or a value that cannot be used; names the row and the column."""


class SplitError(DataError):
    """A log that cannot be divided the way that was asked."""


class LeakageError(MsrEnhanceError, ValueError):
    """A row would be trained or scored with knowledge that has seen it."""


class PromptError(MsrEnhanceError, ValueError):
    """A prompt template or a platform file that cannot be used."""


class ModelError(MsrEnhanceError, RuntimeError):
    """A language model that cannot be loaded or read."""


class StoreError(MsrEnhanceError):
    """A knowledge store that cannot be used."""


class StoreCorruptError(StoreError):
    """The bytes of a store are not the bytes that were written."""


class StoreVersionError(StoreError):
    """The store was written in another version of the format, a newer or an older one."""


class StoreIdentityError(StoreError):
    """The store was made by another model, template, decoding or window."""


class StoreLockedError(StoreError):
    """Somebody else is writing to the store; says who and since when."""


class StoreIOError(StoreError):
    """A disk or a network refused; what was committed before is kept."""


class UnknownIdError(StoreError, LookupError):
    """An id that the store does not hold."""


class EnhanceError(MsrEnhanceError, ValueError):
    """A backbone, placement, tap or key that cannot be enhanced."""


class TrainingError(MsrEnhanceError, RuntimeError):
    """A training run that cannot go on."""


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, between two commits: everything done so far is kept."""


def not_one_of(what: str, seen: object, allowed: Iterable[object], write: str = "") -> str:
    """Sentence for a name that is not known: what was seen, what is allowed, what to write.

    Args:
        what: What the name stands for, for example ``"column"``.
        seen: The name that was given.
        allowed: All names that would have been right.
        write: A closing sentence that shows the call or option to write.

    Returns:
        One message; the nearest allowed name comes first.
    """
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(seen), names, n=3, cutoff=0.5)
    ordered = near + [name for name in names if name not in near]
    listed = ", ".join(repr(name) for name in ordered[:20]) or "(none)"
    if len(ordered) > 20:
        listed += f", and {len(ordered) - 20} more"
    message = f"{what} {str(seen)!r} is not known; allowed: {listed}."
    if near:
        message += f" Did you mean {near[0]!r}?"
    return f"{message} {write}".rstrip()
