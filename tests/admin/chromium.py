"""A real Chromium, without a driver: its DevTools protocol over two pipes, as much of it as the tests need.

Messages are JSON, each ended by a zero byte. A command carries an id, and the answer carries it back; what has no id is
an event. Waiting for something in the page is a promise in the page, which is awaited.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)

PATIENCE = 30
"""Seconds until something that should appear in a page is called missing: a loaded machine starts a browser slowly."""

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}
"""Of each key its code, and what it types."""

# Chromium reads commands from descriptor 3 and writes to 4, whatever these were before.
_EXEC = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One tab.

    Attributes:
        errors: what went wrong in it: uncaught exceptions, and errors and warnings of its console.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.errors: list[str] = []
        self._browser = browser
        self._session = session

    async def command(self, method: str, **parameters: object) -> Any:
        return await self._browser.command(method, parameters, self._session)

    async def visit(self, url: str) -> None:
        answer = await self.command("Page.navigate", url=url)
        assert not answer.get("errorText"), answer

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression in the page is true, and return its value."""
        look = (
            "new Promise(resolve => { const look = () => { let found; try { found = (%s) } catch {} "
            "found ? resolve(found) : setTimeout(look, 20) }; look() })"
        )
        with trio.move_on_after(PATIENCE):
            return await self.evaluate(look % expression)
        raise AssertionError(f"never true in the page: {expression}\n{await self.evaluate('document.body.innerText')}")

    async def press(self, key: str) -> None:
        code, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text
            )

    async def screenshot(self, path: Path) -> None:
        answer = await self.command("Page.captureScreenshot", captureBeyondViewport=True)
        await trio.Path(path).write_bytes(base64.b64decode(answer["data"]))

    async def look_like(self, width: int, height: int, *, scheme: str = "light", phone: bool = False) -> None:
        """Take a size in CSS pixels and a color scheme."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        await self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def notice(self, method: str, parameters: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.errors.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


class Browser:
    """A running Chromium."""

    def __init__(self, to_browser: trio.lowlevel.FdStream, from_browser: trio.lowlevel.FdStream) -> None:
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._numbers = itertools.count(1)
        self._answers: dict[int, trio.MemorySendChannel[Any]] = {}
        self._pages: dict[str, Page] = {}

    async def command(self, method: str, parameters: dict[str, object], session: str | None = None) -> Any:
        number = next(self._numbers)
        send, receive = trio.open_memory_channel[Any](1)
        self._answers[number] = send
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        await self._to_browser.send_all(json.dumps(message).encode() + b"\0")
        answer = await receive.receive()
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    async def open_page(self) -> Page:
        target = await self.command("Target.createTarget", {"url": "about:blank"})
        attached = await self.command("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = Page(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Runtime", "Log", "Page"):
            await page.command(f"{domain}.enable")
        return page

    async def listen(self) -> None:
        rest = b""
        async for data in self._from_browser:
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.pop(message["id"]).send_nowait(message)
                elif message.get("sessionId") in self._pages:
                    self._pages[message["sessionId"]].notice(message["method"], message["params"])


@asynccontextmanager
async def open_browser(program: str, profile: Path) -> AsyncIterator[Browser]:
    """Run Chromium with a new profile for the length of the block."""
    commands, to_browser = os.pipe()
    from_browser, answers = os.pipe()
    words = [sys.executable, "-c", _EXEC, str(commands), str(answers), program, *FLAGS, f"--user-data-dir={profile}"]
    async with (
        trio.lowlevel.FdStream(to_browser) as sending,
        trio.lowlevel.FdStream(from_browser) as receiving,
        trio.open_nursery() as nursery,
    ):
        with open(os.devnull, "w") as silence:  # noqa: ASYNC230 (it cannot block)
            process: trio.Process = await nursery.start(
                _run_process, words, {"pass_fds": (commands, answers), "stdout": silence, "stderr": silence}
            )
        os.close(commands)
        os.close(answers)
        browser = Browser(sending, receiving)
        nursery.start_soon(browser.listen)
        try:
            yield browser
            with trio.move_on_after(PATIENCE):
                await browser.command("Browser.close", {})
                await process.wait()
        finally:
            nursery.cancel_scope.cancel()


async def _run_process(
    words: list[str], options: dict[str, Any], task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> None:
    await trio.run_process(words, check=False, task_status=task_status, **options)
