"""A headless Chromium that talks to nobody but this machine, driven by the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import websocket

HERE = Path(__file__).resolve().parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--password-store=basic",
    "--remote-debugging-port=0",
    # Nothing of its own goes out, and no name leads anywhere.
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    "--disable-features=AutofillServerCommunication,MediaRouter,OptimizationHints,Translate",
    "--metrics-recording-only",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Enter": 13}


def chromium() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def wait_until(ready: Callable[[], object], seconds: float, what: str, every: float = 0.2) -> object:
    """The first answer of ``ready`` that counts as true.

    Raises:
        TimeoutError: none came in time; the sentence says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)
    return answer


class Guarded:
    """A command that does not outlive this process; see guarded.py."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "guarded.py"), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )

    def wait_until(self, ready: Callable[[], object], seconds: float, what: str) -> object:
        """As the function of this name; it also fails, with the end of the log, when the command ends."""

        def living() -> object:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{what}: the program ended: {self.log.read_text(errors='replace')[-2000:]}"
                )
            return ready()

        return wait_until(living, seconds, what)

    def close(self) -> None:
        """End it, and wait until it is gone."""
        self.process.stdin.close()
        self.process.wait(timeout=20)


class Browser:
    """A headless Chromium with a profile of its own.

    Args:
        folder: for its profile and its log.
    """

    def __init__(self, folder: Path) -> None:
        profile = folder / "profile"
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}"]
        # Chromium's sandbox does not work for root, who runs tests in most containers.
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        self.program = Guarded([*command, "about:blank"], folder / "chromium.log")
        place = profile / "DevToolsActivePort"
        self.program.wait_until(
            lambda: place.is_file() and len(place.read_text().split()) == 2, 60, "Chromium to start"
        )
        self.address = f"http://127.0.0.1:{place.read_text().split()[0]}"

    def tab(self) -> "Tab":
        """A new, empty tab."""
        request = urllib.request.Request(f"{self.address}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Tab(json.load(answer)["webSocketDebuggerUrl"])

    def close(self) -> None:
        self.program.close()


class Tab:
    """One tab: commands, and a record of what went wrong in it.

    ``requests`` are the addresses asked for, ``problems`` failed requests, errors on the console and
    uncaught exceptions, one sentence each.
    """

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.asked: dict[str, str] = {}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        # Without a screen no tab has the focus, and JupyterLab counts only what has had it.
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)

    def send(self, method: str, **parameters) -> dict:
        """Give one command and return its result.

        Raises:
            RuntimeError: the browser refuses it.
        """
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.note(message.get("method"), message.get("params", {}))

    def note(self, event: str | None, said: dict) -> None:
        """Keep what an event tells."""
        if event == "Network.requestWillBeSent":
            address = said["request"]["url"]
            self.asked[said["requestId"]] = address[:200]
            if not address.startswith("data:"):
                self.requests.append(address)
        elif event == "Network.loadingFailed" and not said.get("canceled"):
            self.problems.append(f"not loaded: {self.asked.get(said['requestId'])}: {said['errorText']}")
        elif event == "Runtime.exceptionThrown":
            thrown = said["exceptionDetails"]
            text = thrown.get("exception", {}).get("description", thrown["text"])
            self.problems.append(f"exception: {text}")
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            words = [str(part.get("value", part.get("description", ""))) for part in said["args"]]
            self.problems.append(f"console: {' '.join(words)}")
        elif event == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.problems.append(f"log: {said['entry']['text']} {said['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression; a promise is waited for.

        Raises:
            RuntimeError: it throws.
        """
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            thrown = result["exceptionDetails"].get("exception", {})
            raise RuntimeError(f"{expression[:200]}: {thrown.get('description', 'an exception')}")
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float, what: str) -> object:
        """The first value of a JavaScript expression that counts as true."""
        return wait_until(lambda: self.evaluate(expression), seconds, what)

    def open(self, address: str) -> None:
        """Go to a page and wait until it has loaded."""
        # Where we are now goes first: an old page that is complete would be taken for the new one.
        self.send("Page.navigate", url="about:blank")
        self.wait_for("location.href === 'about:blank'", 30, "an empty tab")
        self.requests.clear()
        self.problems.clear()
        self.send("Page.navigate", url=address)
        loaded = "location.href !== 'about:blank' && document.readyState === 'complete'"
        self.wait_for(loaded, 60, f"{address} to load")

    def offline(self) -> None:
        """Switch the network off; pages on disk still open."""
        self.send(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )

    def resize(self, width: int, height: int = 900) -> None:
        """The size of the window, in pixels; up to 600 wide it behaves like a telephone."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width <= 600,
        )

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp") * times:
            more = dict(text) if kind == "keyDown" else {}
            more["windowsVirtualKeyCode"] = KEYS[key]
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.send("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click the middle of the first element that a CSS selector finds."""
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = f"(e => [e.x + e.width / 2, e.y + e.height / 2])(document.querySelector({selector!r})"
        x, y = self.evaluate(box + ".getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, file: Path, whole: bool = False, highest: int = 12_000) -> None:
        """Write what the tab shows as a PNG file.

        Args:
            whole: the whole page and not what the window shows, at most ``highest`` pixels of it.
        """
        more = {}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            height = min(size["height"], highest)
            clip = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
            more = {"captureBeyondViewport": True, "clip": clip}
        data = self.send("Page.captureScreenshot", format="png", **more)["data"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the browser may be gone already
            self.send("Page.close")
        self.socket.close()
