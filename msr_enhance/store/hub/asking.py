"""Asking the Hub: what may pass is tried again, and every refusal becomes one sentence without a token."""

from __future__ import annotations

import contextlib
import datetime
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from msr_enhance.errors import StoreError, StoreIOError
from msr_enhance.store.hub.cache import Kind

TRIES = 5
FIRST_WAIT = 1.0
LONGEST_WAIT = 120.0
SILENCE = 120.0
_BUSY = (408, 429, 500, 502, 503, 504)
_SHOWN = 300
_Answer = TypeVar("_Answer")
_BOUNDED: dict[Any, tuple[int, Any]] = {}  # calls under way with a client, and its own time limits
_BOUNDING = threading.Lock()


def asked(
    call: Callable[[], _Answer],
    repo: str,
    revision: str | None = None,
    *,
    token: str | None = None,
    again: Callable[[Exception], bool] | None = None,
    kind: Kind = "dataset",
) -> _Answer:
    """Ask the Hub, again where it is busy: after what it asks to wait, else longer each time, by chance.

    Args:
        call: Asks, through the Hub's own client.
        repo: Repository, for the error.
        revision: Revision, for the error.
        token: Never shown, wherever the Hub may repeat it.
        again: Whether an error may pass; by default `passing`.
        kind: Of the repository, for the error.

    Returns:
        What the call returned.

    Raises:
        StoreError: The Hub refuses.
        StoreIOError: The Hub cannot be reached, is busy or silent, or the disk refuses.
    """
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise StoreError("The token holds characters that no token has (a line end, for example).")
    fault: Exception
    for attempt in range(TRIES):
        try:
            with _bounded_silence():
                return call()
        except StoreError:
            raise
        except Exception as error:  # of whichever HTTP library the Hub's client uses
            fault = error
        wait = _pause(attempt, fault)
        if attempt == TRIES - 1 or not (again or passing)(fault) or wait > LONGEST_WAIT:
            break
        time.sleep(wait)
    # Not raised inside the handler: a traceback would print the Hub's words as they came.
    raise _explained(fault, repo, revision, token, kind)


@contextlib.contextmanager
def reading(what: Path) -> Iterator[None]:
    """Turn an error of the disk into one of a store.

    Raises:
        StoreIOError: The disk refuses.
    """
    try:
        yield
    except OSError as error:
        raise StoreIOError(f"{what} cannot be read: {error.strerror or error}.") from error


def no_repository(repo: str, kind: Kind = "dataset") -> str:
    """What to say where the Hub does not know a repository, or does not show it."""
    return (
        f"{repo} is no {kind} repository of the Hub, or is private and no token that may read it is set. "
        "Check the spelling (owner/name), or run `hf auth login`."
    )


def passing(error: Exception) -> bool:
    """Whether an error may pass: the Hub is busy, or the connection broke."""
    root = _root(error)
    # An error page where JSON should be comes as an error of decoding.
    return busy(error) or _network(root) or isinstance(root, json.JSONDecodeError)


def busy(error: Exception) -> bool:
    """Whether the Hub answered that it is busy (429) or has an error of its own (5xx)."""
    return _status(_root(error)) in _BUSY


def passing_in_download(error: Exception) -> bool:
    """Whether an error of a download may pass and the Hub's client has not tried again by itself.

    It does so where it asks for a file's facts, after a silence or a cut body, and when told to come
    later (429); not after an error of the storage (5xx), nor when a connection is reset.
    """
    own = _status(error)
    return (own is not None and own >= 500) or type(error).__name__ in ("ReadError", "WriteError")


@contextlib.contextmanager
def _bounded_silence() -> Iterator[None]:
    """The Hub's client waits for ever where a call names no time limit; not here."""
    from huggingface_hub import get_session

    session: Any = get_session()  # one for all threads
    with _BOUNDING:
        calls, was = _BOUNDED.get(session, (0, session.timeout))
        endless = was.read is None
        if endless:
            _BOUNDED[session] = calls + 1, was
            session.timeout = SILENCE
    try:
        yield
    finally:
        if endless:
            with _BOUNDING:
                calls, was = _BOUNDED.pop(session)
                if calls > 1:
                    _BOUNDED[session] = calls - 1, was
                else:  # other users of the client in this process find it as it was
                    session.timeout = was


def _root(error: BaseException) -> BaseException:
    """The error that the Hub's client hides behind one of its own."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _network(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2")


def _status(error: BaseException) -> int | None:
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _pause(attempt: int, error: Exception) -> float:
    """Seconds before the next attempt."""
    told = _told_to_wait(_root(error))
    if told is not None:
        return told + random.uniform(0.0, FIRST_WAIT)  # noqa: S311
    # Chance keeps many readers from coming back at the same moment; nothing secret about it.
    return FIRST_WAIT * 2.0**attempt * random.uniform(0.5, 1.0)  # noqa: S311


def _told_to_wait(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait: a number, a date, or the rest of its window of requests."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    window = re.search(r";\s*r=0;\s*t=(\d+)", headers.get("ratelimit", ""))
    said = window.group(1) if window and _status(error) == 429 else headers.get("retry-after")
    if said is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(said))
    with contextlib.suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(said)
        return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
    return None


def _explained(
    fault: Exception, repo: str, revision: str | None, token: str | None, kind: Kind
) -> StoreError:
    from huggingface_hub import errors as hub

    error = _root(fault)
    status = _status(error)
    if isinstance(error, hub.GatedRepoError):
        return StoreError(f"{repo} is gated: accept its terms on the Hub and run `hf auth login`.")
    if isinstance(error, hub.RepositoryNotFoundError):
        return StoreError(no_repository(repo, kind))
    if isinstance(error, hub.RevisionNotFoundError):
        return StoreError(
            f"{repo} has no revision {revision or 'main'!r}; write a branch, tag or commit it has."
        )
    said = f"{type(error).__name__}: {_readable(str(error), token)}"
    if status in (401, 402, 403):
        return StoreError(
            f"The Hub refuses {repo} ({said}). Run `hf auth login` with a token that may do this; to push, "
            "one that may write there."
        )
    if isinstance(error, hub.OfflineModeIsEnabled):
        return StoreIOError(f"{repo}: HF_HUB_OFFLINE is set. Unset it, or name a local folder.")
    refused = status is not None and 400 <= status < 500 and status not in _BUSY
    if refused or (isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError)):
        return StoreError(f"The Hub refuses this for {repo}: {said}")
    if isinstance(error, OSError) and error.errno is not None and not _network(error):
        return StoreIOError(
            f"{repo}: the disk refuses: {said}. Make room there and run the same command again."
        )
    if isinstance(error, hub.LocalEntryNotFoundError):
        return StoreIOError(f"{repo}: a file is not in the cache, and the Hub cannot be reached.")
    told = _told_to_wait(error) if status in _BUSY else None
    later = "" if told is None else f" The Hub asks to come back in {told:,.0f} s."
    return StoreIOError(
        f"{repo}: the Hub fails or cannot be reached: {said}.{later} Run the same command again; it goes on "
        "from there, finished files are kept."
    )


def _readable(text: str, token: str | None) -> str:
    """Foreign text on one line, cut, without tokens and signed addresses; controls are escaped."""
    for secret in filter(None, (token, token and token.strip())):
        text = text.replace(secret, "<token>")
    text = re.sub(r"\b(hf|api_org)_\w{3,}|Bearer \S+", "<token>", text)
    line = " ".join(re.sub(r"\?\S+", "", text).split()).rstrip(".")
    shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in shown
    )
