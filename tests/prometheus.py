"""A real Prometheus that scrapes a relay under load, and the queries of the Grafana dashboard."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tests.components import require
from triorelay.client import Client, open_client
from triorelay.protocol import HelloRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DASHBOARD = Path(__file__).parents[1] / "docs" / "how-to" / "prometheus" / "grafana.json"
PATIENCE = 60
RATE_INTERVAL = "6s"
"""What Grafana would put in for `$__rate_interval`: some scrapes of a second each."""

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: triorelay
    static_configs: [{{targets: ["{target}"]}}]
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard.

    Attributes:
        title: what stands above it.
        kind: `stat` or `timeseries`.
        place: where it is: x, y, width and height, in the units of the dashboard's grid of 24 columns.
        unit: what its values are.
        queries: what it asks, in PromQL with all variables filled in, and how it names what comes.
    """

    title: str
    kind: str
    place: tuple[int, int, int, int]
    unit: str
    queries: list[tuple[str, str]]


def panels() -> list[Panel]:
    """The panels of the dashboard, asked for every relay."""
    found: list[Panel] = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        queries = [(filled_in(target["expr"]), target["legendFormat"]) for target in panel["targets"]]
        grid = panel["gridPos"]
        place = (grid["x"], grid["y"], grid["w"], grid["h"])
        found.append(Panel(panel["title"], panel["type"], place, panel["fieldConfig"]["defaults"]["unit"], queries))
    return found


def filled_in(query: str) -> str:
    """Return a query with its variables filled in, as Grafana does."""
    values = {"$__rate_interval": RATE_INTERVAL, "$job": "triorelay", "$instance": ".*"}
    for name, value in values.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector that an expression is now."""
        return self._ask("query", query=expression)

    def query_range(self, expression: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """The series of the last `seconds`."""
        now = time.time()
        return self._ask("query_range", query=expression, start=f"{now - seconds}", end=f"{now}", step=f"{step}")

    def _ask(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result


@contextmanager
def scraping(target: str, directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus for the length of the block; it scrapes `target` once a second."""
    port = free_port()
    (directory / "prometheus.yml").write_text(CONFIG.format(target=target))
    command = [
        require("prometheus"),
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with ExitStack() as stack:
        log = stack.enter_context((directory / "prometheus.log").open("wb"))
        process = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ}))
        stack.callback(process.kill)
        deadline = time.monotonic() + PATIENCE
        prometheus = Prometheus(port)
        while True:
            try:
                prometheus.query("1")
                break
            except OSError:
                assert process.poll() is None, (directory / "prometheus.log").read_text()
                assert time.monotonic() < deadline, "Prometheus does not answer"
                time.sleep(0.1)
        yield prometheus


@asynccontextmanager
async def load(relay: str) -> AsyncIterator[None]:
    """Have clients of a relay talk, wait, lose frames, come and go, for the length of the block.

    A and B talk. E floods X, which reads slowly, so that E waits. A sends to Y too, which is not there. Visitors come,
    and one more that wants to be A is refused.
    """

    async def take(client: Client, pause: float) -> None:
        async for _ in client:
            await trio.sleep(pause)

    async def flood(client: Client) -> None:
        while True:
            await client.send("X", bytes(65536))

    async def talk(a: Client, b: Client) -> None:
        for number in itertools.count():
            await a.send("B", b"ping " * (1 + number % 40))
            await b.send("A", b"pong")
            await a.send("Y", b"lost")
            await trio.sleep(0.01)

    async def visit() -> None:
        while True:
            async with open_client(relay) as visitor:
                await visitor.send("A", b"!")
            with suppress(HelloRefused):
                async with open_client(relay, "A"):
                    pass
            await trio.sleep(0.1)

    async with AsyncExitStack() as stack:
        a, b, e, x = [await stack.enter_async_context(open_client(relay, id)) for id in "ABEX"]
        nursery = await stack.enter_async_context(trio.open_nursery())
        for client, pause in ((a, 0), (b, 0), (x, 0.2)):
            nursery.start_soon(take, client, pause)
        nursery.start_soon(flood, e)
        nursery.start_soon(talk, a, b)
        nursery.start_soon(visit)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
