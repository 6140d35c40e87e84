"""What came of one part in one worker, in a form that any engine can carry home."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from msr_enhance.errors import MsrEnhanceError
from msr_enhance.scale.part import Part

Work = Callable[[Part, Path], object]
"""Makes, or goes on with, the private store of a part in a folder. It must be picklable."""


class Outcome(NamedTuple):
    """How an attempt at a part ended.

    Attributes:
        kind: ``done``; ``stopped`` after a batch because the run is to end; ``declared`` for an error the
            library raises on purpose, which would come again; ``broken`` for any other error.
        more: What the work returned, as a truth value.
        error: Name of the error's class, or ``""``.
        words: Its message.
    """

    kind: Literal["done", "stopped", "declared", "broken"]
    more: bool = False
    error: str = ""
    words: str = ""


def attempt(work: Work, part: Part, folder: Path) -> Outcome:
    """Try a part once; no error leaves, except the death of the process."""
    try:
        return Outcome("done", more=bool(work(part, folder)))
    except KeyboardInterrupt:
        return Outcome("stopped")
    except MsrEnhanceError as error:
        return Outcome("declared", error=type(error).__name__, words=str(error))
    except Exception as error:
        traceback.print_exc()  # to the worker's own log: only one line of it travels home
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Outcome("broken", error=type(error).__name__, words=f"{error} ({where})")
