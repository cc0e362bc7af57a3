"""A headless Chromium, driven over its DevTools protocol: what a page logs, requests and violates, and how it looks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OBSERVER = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""


def find() -> str | None:
    """The path of an installed Chromium; None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """A tab. `messages`: what the console shows; `requests`: the URLs of everything that it loads."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.messages: list[str] = []
        self.requests: list[str] = []

    async def read(self) -> None:
        """Take in answers and events until the tab is closed."""
        async for message in self._socket:
            event = message.json()
            params = event.get("params", {})
            match event.get("method"):
                case None:
                    self._answers.pop(event["id"]).set_result(event)
                case "Network.requestWillBeSent":
                    self.requests.append(params["request"]["url"])
                case "Log.entryAdded":
                    self.messages.append(params["entry"]["text"])
                case "Runtime.consoleAPICalled":
                    self.messages.append(str(params["args"]))
                case "Runtime.exceptionThrown":
                    self.messages.append(str(params["exceptionDetails"]))
                case "Page.loadEventFired":
                    self._loaded.set()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await self._answers[number]
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, script: str) -> Any:
        """The value of a script; a promise is waited for."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def open(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Load a file in a window of that width, and wait until its charts are drawn."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_OBSERVER)
        await self.resize(width)
        await self.set_theme(dark=dark)
        await self.call("Page.navigate", url=path.as_uri())
        await asyncio.wait_for(self._loaded.wait(), 30)
        assert await self.wait_for("!document.querySelector('.chart:not(.drawn)')"), "charts are not drawn"

    async def resize(self, width: int) -> None:
        """Make the window that wide."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def set_theme(self, *, dark: bool) -> None:
        """Make the system's theme dark or light."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def wait_for(self, condition: str) -> bool:
        """Whether a script becomes true within a few seconds."""
        for _ in range(100):
            if await self.evaluate(condition):
                return True
            await asyncio.sleep(0.05)
        return False

    async def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", captureBeyondViewport=True))["data"])

    async def print(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode((await self.call("Page.printToPDF", printBackground=True))["data"])


@asynccontextmanager
async def opened() -> AsyncIterator[Page]:
    """A tab of a Chromium of its own, which ends with the block."""
    program = find()
    assert program
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
            "--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    target = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    reader = asyncio.create_task(page.read())
                    yield page
                    reader.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await reader
        finally:
            process.terminate()
            await process.wait()


async def _port(file: Path) -> int:
    for _ in range(300):
        if file.exists() and (text := file.read_text()).strip():
            return int(text.split()[0])
        await asyncio.sleep(0.05)
    raise AssertionError("Chromium did not start")
