"""A real Chromium, without a driver: its DevTools protocol over two pipes, as much of it as the tests need.

Messages are JSON, each ended by a zero byte. A command carries an id, and the answer carries it back; what has no id is
an event. Waiting for something in the page is a promise in the page, which is awaited.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
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
    """A Chromium that runs, as one test sees it: without what other tests left in it."""

    def __init__(self, chromium: Chromium, to_browser: trio.lowlevel.FdStream) -> None:
        self._chromium = chromium
        self._to_browser = to_browser
        self._answers: dict[int, trio.MemorySendChannel[Any]] = {}
        self._pages: dict[str, Page] = {}
        self.context = ""

    async def command(self, method: str, parameters: dict[str, object], session: str | None = None) -> Any:
        number = next(self._chromium.numbers)
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
        target = await self.command("Target.createTarget", {"url": "about:blank", "browserContextId": self.context})
        attached = await self.command("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = Page(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Runtime", "Log", "Page"):
            await page.command(f"{domain}.enable")
        return page

    def take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.pop(message["id"]).send_nowait(message)
        elif message.get("sessionId") in self._pages:
            self._pages[message["sessionId"]].notice(message["method"], message["params"])


class Chromium:
    """A Chromium that runs from its first use until `end`: most of what a test with a browser costs is its start.

    Attributes:
        numbers: of commands. They are never used twice, so that an answer belongs to one.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self.numbers = itertools.count(1)
        self._words = [program, *FLAGS, f"--user-data-dir={profile}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: tuple[int, int] = -1, -1
        self._rest = b""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Browser]:
        """Use it for the length of the block, with cookies, storage and caches of its own.

        It ends when the block fails, since it may have got half a command.
        """
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._start()
        sending, receiving = (trio.lowlevel.FdStream(os.dup(pipe)) for pipe in self._pipes)
        browser = Browser(self, sending)
        try:
            async with sending, receiving, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, receiving, browser)
                answer = await browser.command("Target.createBrowserContext", {})
                browser.context = answer["browserContextId"]
                yield browser
                with trio.fail_after(PATIENCE):
                    await browser.command("Target.disposeBrowserContext", answer)
                nursery.cancel_scope.cancel()
        except BaseException:
            self.end()
            raise

    async def _listen(self, receiving: trio.lowlevel.FdStream, browser: Browser) -> None:
        async for data in receiving:
            *messages, self._rest = (self._rest + data).split(b"\0")
            for message in messages:
                browser.take(json.loads(message))
        raise AssertionError("Chromium has ended")

    def _start(self) -> None:
        commands, to_browser = os.pipe()
        from_browser, answers = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, str(commands), str(answers), *self._words],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._pipes, self._rest = (to_browser, from_browser), b""

    def end(self) -> None:
        """Close its pipes, upon which it ends."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in self._pipes:
            os.close(pipe)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
