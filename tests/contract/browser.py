"""A headless browser driven through the DevTools protocol: pages, clicks, keys, errors, requests,
pictures.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
    ),
    *("--remote-allow-origins=*", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
)

# elements that pass a test, those in shadow trees too
DEEP = """window.deep = (test, root = document, found = []) => {
  for (const e of root.querySelectorAll("*")) {
    if (test(e)) found.push(e);
    if (e.shadowRoot) deep(test, e.shadowRoot, found);
  }
  return found;
}"""


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0
        self.errors: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events on the way are kept."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            found = json.loads(self.socket.recv(timeout=60))
            if found.get("id") == self.number:
                assert "error" not in found, found
                return dict(found["result"])
            self._event(found)

    def _event(self, found: dict[str, Any]) -> None:
        method, params = found["method"], found["params"]
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str([a.get("value", a.get("description")) for a in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """Value of a script."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """The value of a script once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}; errors: {self.errors}"
            time.sleep(0.1)
        return value

    def go(self, address: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=address)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        about = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.hover(x, y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", **about)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **about)

    def hover(self, x: float, y: float) -> None:
        """Move the pointer to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 5) -> None:
        """Press the left button at one place of the window, move in steps, release at the other."""
        (x0, y0), (x1, y1) = start, end
        self.trace(
            [(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1)]
        )

    def trace(self, places: list[tuple[float, float]]) -> None:
        """Press the left button at the first of some places of the window, move over them, release
        at the last.
        """
        (x0, y0), (x1, y1) = places[0], places[-1]
        self.hover(x0, y0)
        self.call(
            "Input.dispatchMouseEvent", type="mousePressed", x=x0, y=y0, button="left", clickCount=1
        )
        for x, y in places[1:]:
            self.call(
                "Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1
            )
        self.call(
            "Input.dispatchMouseEvent",
            type="mouseReleased",
            x=x1,
            y=y1,
            button="left",
            clickCount=1,
        )

    def key(self, name: str) -> None:
        """Press a key."""
        about = {"key": name, "code": name, "windowsVirtualKeyCode": {"End": 35}[name]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, path: Path) -> None:
        """Save what the window shows as PNG."""
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )


@contextmanager
def browser(profile: Path, size: tuple[int, int] = (1366, 768)) -> Iterator[Page]:
    """A browser with one empty page; no host but 127.0.0.1 can be found."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={profile}",
    ]
    with subprocess.Popen(
        [*command, "about:blank"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            port = _port(profile / "DevToolsActivePort")
            from urllib.request import urlopen

            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                target = next(t for t in json.load(answer) if t["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    page.call(f"{domain}.enable")
                page.call("Page.addScriptToEvaluateOnNewDocument", source=DEEP)
                screen: dict[str, Any] = {
                    "width": size[0],
                    "height": size[1],
                    "deviceScaleFactor": 1,
                }
                page.call("Emulation.setDeviceMetricsOverride", mobile=False, **screen)
                yield page
        finally:
            process.terminate()
            process.wait(20)


def _port(path: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and (lines := path.read_text().splitlines()) and len(lines) > 1:
            return int(lines[0])
        time.sleep(0.1)
    raise TimeoutError(f"the browser never wrote {path}")
