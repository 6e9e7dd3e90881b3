"""docker/compose.cluster.yaml, brought up as its first lines say: clients of three hosts talk as if to one relay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.docker.project import Project, project_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.engine import Container

# Which client of the file is at which relay.
HOME = {"A": "relay1", "B": "relay2", "C": "relay3", "D": "relay1"}
RELAYS = ("relay1", "relay2", "relay3")
HERE = "--relay=tcp:127.0.0.1:9734"


@pytest.fixture
def project(base: str) -> Iterator[Project]:
    with project_of("compose.cluster.yaml", base) as project:
        yield project


async def run(relay: Container, command: str, *arguments: str) -> str:
    """Run a client on a relay's own host, and return what it printed."""
    return await relay.execute("triorelay", command, HERE, *arguments)


async def cluster_status(relay: Container) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(await relay.execute("triorelay", "status", "--json", "--admin=127.0.0.1:9736"))
    cluster: dict[str, Any] = status["cluster"]
    return cluster


@pytest.mark.needs("compose")
async def test_clients_of_three_hosts_talk_as_if_to_one_relay(project: Project) -> None:
    relays = {name: project.container(name) for name in RELAYS}
    clients = {name: project.container(name.lower()) for name in HOME}
    async with trio.open_nursery() as nursery:
        for client, peer in zip(clients.values(), "BADC", strict=True):
            nursery.start_soon(client.line, f"says {peer}")

    async with trio.open_nursery() as nursery:
        for name, relay in relays.items():
            nursery.start_soon(knows_everybody, name, relay)
        for number, relay in zip("123", relays.values(), strict=True):
            nursery.start_soon(hears_everybody, number, relay)
        for number, relay in zip("123", relays.values(), strict=True):
            await relay.followed("triorelay", "who", "--watch", HERE, pattern=rf"\b{number}\b")
        for relay in relays.values():
            nursery.start_soon(tells_everybody, relay)

    project.compose("stop", "--timeout", "1", *map(str.lower, HOME))
    project.compose("stop", *RELAYS)
    assert [await relay.ended() for relay in relays.values()] == [0, 0, 0]
    ledgers = [await relay.ledger() for relay in relays.values()]
    assert all(ledger.balances() for ledger in ledgers)
    # A frame in flight to a client that was stopped is never received.
    assert 0 < sum(ledger["imported"] for ledger in ledgers) <= sum(ledger["forwarded"] for ledger in ledgers)


async def knows_everybody(name: str, relay: Container) -> None:
    """Check that the file's clients are seen at one relay, and where they are."""
    assert set(HOME) <= set((await run(relay, "who")).split())
    cluster = await cluster_status(relay)
    assert cluster["up"]
    assert {chr(id) for id, _ in cluster["elsewhere"]} & set(HOME) == {id for id, home in HOME.items() if home != name}


async def hears_everybody(id: str, relay: Container) -> None:
    """Hold `id` at one relay until a word of each relay has come."""
    words = await run(relay, "receive", "--id", id, "--count", "3", "--format", "raw")
    assert words == "!!!"


async def tells_everybody(relay: Container) -> None:
    """Send a word from one relay to the three that listen."""
    for id in "123":
        await run(relay, "send", "--wait", "30", id, "!")
