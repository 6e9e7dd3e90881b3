"""The relay's own dashboard, under load, in Chromium."""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from docs.pictures.relay import running_relay
from tests.admin.chromium import Chromium
from tests.components import require
from tests.prometheus import free_port, load

SECONDS = 60
"""Until its graphs have something to show."""


async def take_dashboard(path: Path) -> None:
    """Run a relay under load and take a picture of its dashboard."""
    with tempfile.TemporaryDirectory(prefix="triorelay-pictures-") as name:
        directory, port = Path(name), free_port()
        async with AsyncExitStack() as stack:
            stack.enter_context(running_relay("--admin", str(port), cwd=directory))
            await stack.enter_async_context(load(f"unix:{directory}/server_socket"))
            chromium = Chromium(require("chromium"), directory / "profile")
            stack.callback(chromium.end)
            browser = await stack.enter_async_context(chromium.open())
            page = await browser.open_page()
            await page.look_like(1280, 900)
            await page.visit(f"http://127.0.0.1:{port}/")
            await trio.sleep(SECONDS)
            await page.screenshot(path)
