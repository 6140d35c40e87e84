"""A small HTTP server in front of a tiny model, with the requests, answers and errors of SGLang.

Its answers come from a plain loop: one row, no cache, a full forward for every token.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import torch
from tiny_models import slow_answer

# What the tests ask of it, with answers of at most so many tokens.
SERVED_PROMPTS = [
    "In shop: plain kit | cooking; bold set | music.",
    "a",
    "In news: " + "slow report | history; " * 12,
    "In video: nothing yet.",
    "Which interests are common?",
]
SERVED_NEW = 6
NO_STATES = (
    "The server is not configured to return hidden states. Please set `--return-hidden-states-mode last`, "
    "`--return-hidden-states-mode full`, or the legacy `--enable-return-hidden-states` flag."
)


class HiddenStateServer:
    """Serves a model until the block ends.

    Args:
        model: A causal model in eval mode.
        end_ids: Token ids that end an answer without being asked for.
        name: What `/model_info` says the model is.
        window: Most tokens of prompt and answer.
        states: Whether it was started with the flag that returns states.
        api_key: The key it asks for.
        info: More of `/model_info` and `/server_info`.

    Attributes:
        asked: The bodies of all `/generate` requests, in the order they came.
        faults: What the next requests meet, one after the other: a method `fault_...` or a status.
        always: What every request meets once `faults` is used up.
        refuses: Token ids whose prompts are answered with an error 500, whatever the attempt.
        most_at_once: Most requests that were under way at the same time.
    """

    def __init__(
        self,
        model: Any,
        end_ids: set[int],
        *,
        name: str,
        window: int = 4_096,
        states: bool = True,
        api_key: str | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.end_ids, self.name, self.window = model, set(end_ids), name, window
        self.states, self.api_key, self.info = states, api_key, info or {}
        self.asked: list[dict[str, Any]] = []
        self.faults: deque[str | int] = deque()
        self.always: str | int | None = None
        self.refuses: set[int] = set()
        self.most_at_once = self._now = 0
        self.gone = threading.Event()
        self.lock, self._counting = threading.Lock(), threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No more connections; those that are open are dropped without an answer."""
        if not self.gone.is_set():
            self.gone.set()
            self._http.shutdown()
            self._http.server_close()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the requests that are under way; one whose answer is being sent is none any more."""
        with self._counting:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._counting:
                self._now -= 1

    def pages(self) -> dict[str, Any]:
        return {
            "/model_info": {"model_path": self.name, "is_generation": True, "weight_version": "default"}
            | self.info,
            "/server_info": {"dtype": "float32", "context_length": None, "api_key": "never shown"}
            | self.info,
            "/v1/models": {"data": [{"id": self.name, "max_model_len": self.window}]},
        }

    def generate(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and content of a `/generate` request."""
        ids, wanted = body["input_ids"], body["sampling_params"]
        if body["return_hidden_states"] != "last" or not self.states:
            return 400, {"error": {"message": NO_STATES}}
        if wanted["temperature"] != 0:
            return 400, {"error": {"message": "this server only answers greedily"}}
        new = wanted["max_new_tokens"]
        if len(ids) + new > self.window:
            text = (
                f"Requested token count exceeds the model's maximum context length of {self.window} tokens."
            )
            return 400, {"error": {"message": text}}
        ends = self.end_ids | set(wanted["stop_token_ids"])
        with self.lock:
            said, ended, _, predicting = slow_answer(self.model, ids, new, ends)
            if ended and len(said) < new:  # by which token: the slow loop leaves it out
                out = self.model(torch.tensor([[*ids, *said]])).logits
                said.append(int(out[0, -1].argmax()))
            else:
                ended = False
        finish = {"type": "stop", "matched": said[-1]} if ended else {"type": "length", "length": new}
        meta = {
            "id": "x",
            "finish_reason": finish,
            "prompt_tokens": len(ids),
            "completion_tokens": len(said),
            "cached_tokens": 0,
            "hidden_states": predicting[-1].tolist(),
        }
        return 200, {"text": "unused", "output_ids": said, "meta_info": meta}


def _handler(server: HiddenStateServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self._admitted():
                page = server.pages().get(self.path)
                self._send(*((404, {"detail": "Not Found"}) if page is None else (200, page)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/generate":
                self._send(404, {"detail": "Not Found"})
            elif self._admitted():
                self._answer(body)

        def _answer(self, body: dict[str, Any]) -> None:
            server.asked.append(body)
            fault = server.faults.popleft() if server.faults else server.always
            if server.refuses & set(body["input_ids"]):
                fault = 500
            if isinstance(fault, int):
                header = {"Retry-After": "0"} if fault == 429 else {}
                self._send(fault, {"error": {"message": f"fault\x1b[31m {fault}"}}, header)
                return
            with server.counted():
                status, content = server.generate(body)
                if fault:
                    content = getattr(self, f"fault_{fault}")(content)
            if content is not None and not server.gone.is_set():
                self._send(status, content)

        def fault_drop(self, content: Any) -> None:
            """The connection ends without a word."""

        def fault_cut(self, content: Any) -> None:
            """Half of the body."""
            raw = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2])

        def fault_page(self, content: Any) -> None:
            """A page for people where JSON should be."""
            self._send_raw(200, b"<html>Welcome to nginx</html>", {})

        def fault_slow(self, content: Any) -> Any:
            server.gone.wait(2.0)
            return content

        def fault_late(self, content: Any) -> Any:
            time.sleep(0.05)
            return content

        def fault_wide(self, content: Any) -> Any:
            content["meta_info"]["hidden_states"] *= 2
            return content

        def fault_nested(self, content: Any) -> Any:
            """The shape of `return_hidden_states=True`."""
            state = content["meta_info"]["hidden_states"]
            content["meta_info"]["hidden_states"] = [[state] * content["meta_info"]["prompt_tokens"], state]
            return content

        def fault_null(self, content: Any) -> Any:
            """How SGLang writes NaN."""
            content["meta_info"]["hidden_states"][0] = None
            return content

        def fault_nan(self, content: Any) -> Any:
            content["meta_info"]["hidden_states"][0] = float("nan")
            return content

        def fault_huge(self, content: Any) -> Any:
            content["meta_info"]["hidden_states"][0] = 10**400
            return content

        def fault_words(self, content: Any) -> Any:
            content["meta_info"]["hidden_states"][0] = "1.5"
            return content

        def fault_silent(self, content: Any) -> Any:
            del content["meta_info"]["hidden_states"]
            return content

        def fault_no_ids(self, content: Any) -> Any:
            del content["output_ids"]
            return content

        def fault_other(self, content: Any) -> Any:
            return {"choices": [{"text": "hello"}]}

        def fault_abort(self, content: Any) -> Any:
            content["meta_info"]["finish_reason"] = {"type": "abort", "message": "out of\nmemory \x1b[2J"}
            return content

        def fault_short(self, content: Any) -> Any:
            """The server's own limit cut the answer."""
            content["output_ids"] = content["output_ids"][:1]
            content["meta_info"]["finish_reason"] = {"type": "length", "length": 1}
            return content

        def fault_string(self, content: Any) -> Any:
            """How SGLang says that its own numbers broke."""
            content["meta_info"]["finish_reason"] = {"type": "stop", "matched": "NaN happened"}
            return content

        def fault_truncated(self, content: Any) -> Any:
            content["meta_info"]["prompt_tokens"] -= 1
            return content

        def fault_moved(self, content: Any) -> None:
            self._send_raw(307, b"", {"Location": "http://elsewhere:1/generate"})

        def _admitted(self) -> bool:
            if server.api_key is None or self.headers["Authorization"] == f"Bearer {server.api_key}":
                return True
            self._send(401, {"error": "Unauthorized"})
            return False

        def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            self._send_raw(status, json.dumps(content).encode(), headers or {})

        def _send_raw(self, status: int, raw: bytes, headers: dict[str, str]) -> None:
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)
            except OSError:  # the client left
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    return Handler
