"""Several relays in memory that share one engine in memory, and clients of theirs that are made of bare streams."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tests.stream_client import StreamClient
from triorelay.cluster import Cluster, ClusterConfig
from triorelay.protocol import HelloOption, encode_event, encode_hello
from triorelay.relay import Config, Relay
from triorelay.relay._connection import Peer
from triorelay.relay._server import run_relay
from triorelay.testing._engine import MemoryEngine
from triorelay.testing._memory import MemoryListener, MemoryPoller, MemoryStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LEASE = 5.0


Client = StreamClient[MemoryStream]


@dataclass(eq=False)
class Member:
    """One relay of the realm."""

    relay: Relay
    listener: MemoryListener
    cluster: Cluster
    running: trio.CancelScope = field(default_factory=trio.CancelScope)
    clients: list[Client] = field(default_factory=list)

    def connect(self, *, bound: int = 0, uid: int = 1, names: tuple[str, ...] = ()) -> Client:
        peer = Peer("memory", "memory", None, bound, uid=uid, certificate_names=names)
        client = Client(self.listener.connect(peer))
        self.clients.append(client)
        return client

    async def claim(
        self, id: str, options: HelloOption = HelloOption.ACK, *, names: tuple[str, ...] = ()
    ) -> tuple[Client, int]:
        """Claim `id`; return the client and the relay's answer, 0 for a welcome."""
        client = self.connect(names=names)
        await client.send(encode_hello(ord(id), options))
        answer = await client.receive(2)
        assert answer[:1] == id.encode("latin-1")
        return client, answer[1]

    async def join(self, id: str, *, names: tuple[str, ...] = ()) -> Client:
        """Claim `id`, which must be granted."""
        client, code = await self.claim(id, names=names)
        assert code == 0
        return client

    async def observe(self) -> tuple[Client, set[str]]:
        """Return an observer, and the present clients."""
        client = self.connect()
        await client.send(encode_hello(0, HelloOption.EVENTS))
        await client.expect(b"\0\0")
        present = set()
        while (event := await client.receive(4))[1] == 1:
            present.add(chr(event[3]))
        assert event == encode_event(7, 0)
        return client, present

    def check_balance(self) -> None:
        """Every accepted frame, and every further copy of one, is written, queued or dropped."""
        ledger, queued = self.relay.ledger, self.relay.exchange.queued_frames()
        assert sum(ledger.accepted) + ledger.copied == ledger.written + queued + sum(ledger.dropped.values())

    def dropped(self) -> dict[str, int]:
        dropped = self.relay.ledger.summary(0)["dropped"]
        assert isinstance(dropped, dict)
        return dropped


class Checker(trio.abc.Instrument):
    """Checks every relay's ledger after each step of each task."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        for member in self.members:
            member.check_balance()


@dataclass(eq=False)
class Realm:
    """The engine and its relays."""

    engine: MemoryEngine
    nursery: trio.Nursery
    members: list[Member] = field(default_factory=list)

    async def add(self, config: Config | None = None, *, name: str = "", **options: object) -> Member:
        """Start a relay."""
        name = name or f"relay{len(self.members) + 1}"
        settings: dict[str, object] = {"urls": ("nats://memory",), "lease": LEASE, "name": name, **options}
        cluster = Cluster(ClusterConfig(**settings), self.engine)  # type: ignore[arg-type]
        relay = Relay(config or Config(), cluster)
        member = Member(relay, MemoryListener(), cluster)

        async def run(*, task_status: trio.TaskStatus[Relay]) -> None:
            with member.running:
                await run_relay(relay, [member.listener], (), MemoryPoller, task_status=task_status)

        await self.nursery.start(run)
        self.members.append(member)
        return member

    async def agree(self, ids: str) -> None:
        """Wait until every relay knows exactly these ids."""
        for member in self.members:
            await until(lambda member=member: member.cluster.uplink.up and present(member.relay) == {*map(ord, ids)})  # type: ignore[misc]


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Let the clock jump until `condition` holds; it must within so many seconds."""
    with trio.fail_after(seconds):
        for _ in itertools.takewhile(lambda _: not condition(), itertools.count()):
            await trio.sleep(0.01)


def present(relay: Relay) -> set[int]:
    """Return the ids that a relay's clients see."""
    return {*relay.exchange.registry.ids(), *relay.exchange.registry.remote_holders}


@asynccontextmanager
async def open_realm(count: int = 2, *, latency: float = 0.0, config: Config | None = None) -> AsyncIterator[Realm]:
    """Run an engine and so many relays; at the end all drain, and every ledger balances at every step."""
    engine = MemoryEngine(LEASE, latency=latency)
    async with trio.open_nursery() as nursery:
        realm = Realm(engine, nursery)
        checker = Checker(realm.members)
        trio.lowlevel.add_instrument(checker)
        try:
            for _ in range(count):
                await realm.add(config)
            yield realm
            for member in realm.members:
                for client in member.clients:
                    client.stream.close()
                member.relay.drain()
        finally:
            trio.lowlevel.remove_instrument(checker)
    for member in realm.members:
        member.check_balance()
        assert member.relay.exchange.queued_frames() == 0
