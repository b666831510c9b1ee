"""A headless Chromium, driven over its debugging pipe: no port, no driver, nothing to install but the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--allow-pre-commit-input",  # or what is typed and clicked before the first picture of a page would be lost
    "--remote-debugging-pipe",
)
# the browser wants its pipes as the descriptors 3 and 4
LAUNCHER = "import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
PATIENCE_S = 120.0
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " ")}


def installed() -> str:
    """The browser's path; skips the test where there is none, but in CI, where one belongs."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail("chromium is missing")
    pytest.skip("chromium is missing")


class Page:
    """One tab. complaints: what the console and the security policy said.   requests: addresses asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._number = to_browser, from_browser, b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        self._number += 1
        number = self._number
        order = {"id": number, "method": method, "params": parameters}
        if self.session:
            order["sessionId"] = self.session
        os.write(self._to, json.dumps(order).encode() + b"\0")
        answer = self._next(lambda message: message.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def visit(self, file: Path) -> None:
        """Open a page, and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next(lambda message: message.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What an expression is worth in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key goes down and up."""
        code, text = KEYS[key]
        told = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """The mouse, in the middle of the first element that fits."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{find}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
        box = self.value(f"(b => [b.x, b.y, b.width, b.height])({find}.getClientRects()[0])")
        x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def show_as(self, width: int, scheme: str, *, height: int = 900) -> None:
        """The size of the window, and whether the reader prefers "light" or "dark"; nothing moves by itself.

        Waits until the page has that size: the browser answers before.
        """
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        preferred = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        sized = f"innerWidth === {width} && innerHeight === {height}"
        self.value(f"new Promise(done => (function look() {{ {sized} ? done() : setTimeout(look, 5); }})())")

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """A picture of the page, whole or what is in the window."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Errors, warnings, and whatever was printed."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in kinds]

    @property
    def requests(self) -> list[str]:
        """Addresses asked for, the page's own among them."""
        asked = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in asked]

    def _next(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that fits; the events before it are kept."""
        end = time.monotonic() + PATIENCE_S
        while True:
            while b"\0" in self._rest:
                one, self._rest = self._rest.split(b"\0", 1)
                message = json.loads(one)
                if "method" in message:
                    self.events.append(message)
                if fits(message):
                    return dict(message)
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser did not answer"
            read = os.read(self._from, 1 << 20)
            assert read, "the browser ended"
            self._rest += read


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """A browser with one empty tab; folder: for its profile. It ends with the block."""
    orders, answers = _pipe(), _pipe()
    command = [installed(), *ARGUMENTS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    launcher = [sys.executable, "-c", LAUNCHER, str(orders[0]), str(answers[1]), *command]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(launcher, pass_fds=(orders[0], answers[1]), stdout=quiet, stderr=quiet)
    os.close(orders[0])
    os.close(answers[1])
    try:
        page = Page(orders[1], answers[0])
        yield page
        page.session = None
        page.call("Browser.close")
        process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(orders[1])
        os.close(answers[0])


def _pipe() -> tuple[int, int]:
    """Both ends, away from the descriptors that the browser wants."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]
