"""A headless Chromium, driven over a pipe with the DevTools protocol: nothing but the standard library."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "End": 35,
    "Home": 36,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "ArrowRight": 39,
}
PATIENCE = 60.0


def find():
    """Path of a browser, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One Chromium with one tab.

    Args:
        program: Its path.
        folder: A new folder for its profile.
    """

    def __init__(self, program: str, folder: Path) -> None:
        (ours, theirs), (answers, told) = os.pipe(), os.pipe()
        # The browser reads commands from 3 and writes to 4; the shell moves the pipes there.
        reads, writes = (fcntl.fcntl(one, fcntl.F_DUPFD, 20) for one in (ours, told))
        for one in (ours, told):
            os.close(one)
        self._out, self._in, self._left = theirs, answers, b""
        self._number, self.errors = 0, []
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", program, *options],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (reads, writes):
            os.close(one)
        self._session = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError, RuntimeError):
            self._session = None
            self._call("Browser.close")
        for one in (self._out, self._in):
            os.close(one)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, path, *, width=1280, height=900, dark=False, phone=False):
        """Load a page and wait until it has drawn itself; its faults are in `errors`."""
        self.errors, self.asked = [], []
        self.size(width, height, phone=phone)
        self.dark(dark)
        self._call("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("performance.getEntriesByName('shown').length > 0 && document.readyState === 'complete'")
        self.frames()

    def size(self, width, height, *, phone=False):
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def dark(self, on):
        value = "dark" if on else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def run(self, code):
        """The value of an expression in the page, awaited."""
        found = self._call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def wait(self, code, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not self.run(code):
            if time.monotonic() > end:
                raise TimeoutError(f"{code} stays false; {self.errors}")
            time.sleep(0.02)

    def frames(self):
        """Wait for two frames: what was asked for is then on the screen."""
        self.run("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(1))))")

    def key(self, name, *, shift=False):
        """Press a key as a person does."""
        same = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS[name], "modifiers": 8 * shift}
        text = {"text": "\r"} if name == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **same, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **same)

    def type(self, text):
        """Type letters into what has the focus."""
        for letter in text:
            self._call("Input.dispatchKeyEvent", type="char", text=letter)

    def mouse(self, kind, x, y, **more):
        self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x, y):
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def picture(self, path, *, whole=False):
        """A screenshot as PNG."""
        found = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def pdf(self):
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    def _call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._out, left) :]
        while True:
            said = self._next()
            if said.get("id") == self._number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]
            self._hear(said)

    def _hear(self, said):
        kind, what = said.get("method"), said.get("params", {})
        if kind == "Runtime.exceptionThrown" or (
            kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert")
        ):
            self.errors.append(json.dumps(what)[:500])
        elif kind == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.errors.append(what["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.asked.append(what["request"]["url"])

    def _next(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser says nothing")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError(f"the browser went away with code {self._process.poll()}")
            self._left += data
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)
