"""A real browser, driven through Chrome's DevTools protocol over a pair of pipes: the standard library is enough."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PATIENCE_S = 60.0

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--no-default-browser-check", "--remote-debugging-pipe",
)  # fmt: skip

# The browser reads commands from descriptor 3 and answers on 4, whatever numbers the pipes had here.
_START = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find() -> str | None:
    """The browser's program: EDGEZOO_CHROMIUM, or the first of the usual names; None where there is none."""
    return os.environ.get("EDGEZOO_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One open page. errors: what its console or the browser complained of. requests: addresses it asked for."""

    def __init__(self, reader: int, writer: int) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._reader, self._writer, self._buffer, self._number = reader, writer, b"", 0
        self._session: str | None = None
        self._loaded = False

    def open(self, address: str, *, width: int, height: int, dark: bool) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._loaded = False
        self.send("Page.navigate", url=address)
        until = time.monotonic() + PATIENCE_S
        while not self._loaded:
            self._hear(self._receive(until))

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON would carry it."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of the first element, as a person does."""
        self.evaluate(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', inline: 'center'}})"
        )
        box = self.evaluate(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", **where)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **where)

    def press(self, key: str) -> None:
        """A key, to what has the focus."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self, path: Path) -> None:
        """A screenshot of what is in view, as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writer, data) :]
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = self._receive(until)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._hear(answer)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"the browser did not answer within {PATIENCE_S:g} s"
            read = os.read(self._reader, 1 << 16)
            assert read, "the browser went away"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _hear(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])


@contextmanager
def opened(program: str, file: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Iterator[Tab]:
    """The file open in a browser of its own, with a profile that goes away with it."""
    command_out, command_in = os.pipe()
    answer_out, answer_in = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(command_out), str(answer_in), program, f"--user-data-dir={profile}",
             *_FLAGS, "about:blank"],
            pass_fds=(command_out, answer_in), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_out)
        os.close(answer_in)
        try:
            tab = Tab(answer_out, command_in)
            tab.open(file.resolve().as_uri(), width=width, height=height, dark=dark)
            yield tab
        finally:
            os.close(command_in)  # the browser ends with its pipe
            os.close(answer_out)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
