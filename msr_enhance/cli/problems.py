"""A known error becomes one sentence on stderr and an exit code; unknown ones keep their traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from msr_enhance.cli.output import data_only, say
from msr_enhance.errors import (
    DataError,
    LeakageError,
    ModelError,
    MsrEnhanceError,
    PromptError,
    StoreCorruptError,
    StoreError,
    StoreIdentityError,
    StoreIOError,
    StoreLockedError,
    StoreVersionError,
    UnknownIdError,
)

EXIT_CODES: dict[type[MsrEnhanceError], int] = {
    DataError: 3,
    PromptError: 4,
    ModelError: 5,
    LeakageError: 7,
    StoreCorruptError: 8,
    StoreVersionError: 9,
    StoreIdentityError: 10,
    StoreLockedError: 11,
    StoreIOError: 12,
    UnknownIdError: 13,
    StoreError: 6,  # after its kinds: the first that fits counts
}
"""Exit codes by kind of error; 1 is any other error of the library, 2 a wrong command line."""


@contextmanager
def problems() -> Iterator[None]:
    """Turn the library's errors into a message and an exit code."""
    try:
        with data_only():
            yield
    except MsrEnhanceError as error:
        say(f"error: {error}")
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        raise typer.Exit(code) from error
    except OSError as error:
        say(f"error: {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stop:
        say("stopped; what was committed is kept, run the same command to go on")
        raise typer.Exit(130) from stop
