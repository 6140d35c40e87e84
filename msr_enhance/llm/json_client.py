"""JSON over HTTP to one server: time limits, retries, a size limit, and a way to stop at once."""

from __future__ import annotations

import datetime
import http.client
import json
import random
import socket
import threading
import urllib.parse
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from msr_enhance.errors import ModelError

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LARGEST_REPLY = 64 * 2**20
_CONNECT_WITHIN = 10.0
_BUSY = (408, 425, 429)
_SHOWN = 300


@dataclass(frozen=True)
class Reply:
    """What a server said.

    Attributes:
        status: Status code of HTTP.
        content: The JSON value of a success (2xx), else the server's message, fit to be printed.
    """

    status: int
    content: Any

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300


class JsonClient:
    """Asks one server, each question over a connection of its own; several threads may ask at once.

    It connects directly: proxies of the environment are not used, redirects are not followed.

    Args:
        url: Address of the server, for example ``http://gpu-7:30000``; a path is kept as a prefix.
        timeout: Longest silence of the server, in seconds.
        retries: How often a question is asked again after a lost connection, silence, a broken reply,
            "too many requests" (429) or an error of the server (5xx). A refusal (other 4xx) is final.
        api_key: Sent as a bearer token.

    Raises:
        ModelError: The address or the key cannot be used.
    """

    def __init__(self, url: str, *, timeout: float, retries: int, api_key: str | None = None) -> None:
        parts = _address(url)
        if parts.username or parts.password:
            raise ModelError("The address holds a user name or password; leave them out and write api_key.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
            raise ModelError("api_key holds characters that no key has (line ends, for example).")
        self.url = url.rstrip("/")
        self._timeout, self._retries = timeout, retries
        self._secure = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._talking: set[http.client.HTTPConnection] = set()

    def get(self, path: str) -> Reply:
        """Ask for a page."""
        return self._ask("GET", path, None, self._retries)

    def post(self, path: str, question: Any, *, retries: int | None = None) -> Reply:
        """Send a JSON value.

        Returns:
            A success, a refusal, or the server's error when it still answers with one at the end.

        Raises:
            ModelError: No reply came, or none that is JSON.
        """
        body = json.dumps(question, allow_nan=False).encode()
        return self._ask("POST", path, body, self._retries if retries is None else retries)

    def stop(self) -> None:
        """Make every question that is under way end now; new ones are not asked until `resume`."""
        with self._lock:
            self._stopped.set()
            for connection in self._talking:
                if connection.sock is not None:
                    try:
                        connection.sock.shutdown(socket.SHUT_RDWR)
                    except OSError:  # closed meanwhile
                        continue

    def resume(self) -> None:
        """Questions may be asked again."""
        self._stopped.clear()

    def _ask(self, method: str, path: str, body: bytes | None, retries: int) -> Reply:
        fault, reply = "", None
        for attempt in range(retries + 1):
            asked: float | None = None
            try:
                reply, asked = self._once(method, path, body)
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                reply, fault = None, f"{type(error).__name__}: {error}"
            if reply is not None and reply.status < 500 and reply.status not in _BUSY:
                return reply
            if attempt < retries and self._stopped.wait(_pause(attempt, asked)):
                break
        if self._stopped.is_set():
            raise ModelError(f"{self.url} was not asked to the end: the run was stopped.")
        if reply is not None:
            return reply
        raise ModelError(
            f"{self.url} gave no usable reply in {retries + 1} attempts: {readable(fault)}. Is the server "
            "running, and is this its address? Rows that were committed are kept; start the server and run "
            "the same command again."
        )

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[Reply, float | None]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=min(self._timeout, _CONNECT_WITHIN))
        try:
            connection.connect()
            connection.sock.settimeout(self._timeout)
            with self._lock:
                if self._stopped.is_set():
                    raise ConnectionAbortedError("stopped")
                self._talking.add(connection)
            connection.request(method, self._prefix + path, body, self._headers)
            response = connection.getresponse()
            raw = response.read(LARGEST_REPLY + 1)
            if len(raw) > LARGEST_REPLY:
                raise ModelError(
                    f"{self.url} sent more than {LARGEST_REPLY // 2**20} MiB for one prompt. It may return "
                    "the states of every token; start it with --return-hidden-states-mode last."
                )
            if response.length:  # a cut body is no error of its own
                raise http.client.IncompleteRead(raw, response.length)
            asked = _retry_after(response.headers.get("Retry-After"))
            if 200 <= response.status < 300:
                return Reply(response.status, json.loads(raw)), asked
            where = response.headers.get("Location", "") if 300 <= response.status < 400 else ""
            return Reply(response.status, readable(where or _message(raw))), asked
        finally:
            with self._lock:
                self._talking.discard(connection)
            connection.close()


def readable(text: str) -> str:
    """Foreign text on one line: cut to 300 characters, what cannot be printed is escaped."""
    line = " ".join(text.split())
    shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in shown
    )


def _address(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ModelError(f"{url!r} is no address of a server; write one such as http://localhost:30000.")
    return parts


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: what the server asked for, else longer each time, by chance."""
    if asked is not None:
        return min(asked, 4 * LONGEST_WAIT)
    # Chance keeps many clients from coming back at the same moment; nothing secret about it.
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1.0)  # noqa: S311


def _retry_after(header: str | None) -> float | None:
    """Seconds a server asks to wait, written as a number or as a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
        return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _message(raw: bytes) -> str:
    """The message of an error, from the shapes servers give it, else the body itself."""
    text = raw.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(content, dict):
        for key in ("error", "message", "detail"):
            found = content.get(key)
            if isinstance(found, dict):
                found = found.get("message")
            if isinstance(found, str) and found:
                return found
    return text
