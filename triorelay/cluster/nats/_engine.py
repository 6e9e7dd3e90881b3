"""NATS with JetStream as the engine of a realm: leases are keys of the bucket `triorelay-REALM`.

1. A connection lives as long as the block of `connect`.
2. Leases and frames use one connection, so their order stays.
3. A server that takes only small messages, or forbids what a relay needs, is refused at once with the reason.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .._config import ClusterConfig
from .._engine import EngineAway, Reading, Receiver
from ._bucket import Bucket
from ._connection import Connection, connect
from ._credentials import read_credentials

SMALLEST_PAYLOAD = 8192
"""Bytes of a message that a server must take: 4,096 for frames, and 4,096 for the rest of a bundle."""
OPENING = 2.0
"""Seconds in which JetStream must open the bucket and begin to send its keys."""


class NatsEngine(Bucket):
    """A connection, as a cluster needs it; see `Engine`. The keys are those of the bucket."""

    def __init__(self, connection: Connection, config: ClusterConfig) -> None:
        super().__init__(connection, f"triorelay-{config.realm}", config.lease)
        self.max_payload = connection.max_payload
        self.publish = connection.publish

    async def start(self, receiver: Receiver) -> None:
        """Open the bucket, and begin to receive its keys."""
        if self.max_payload < SMALLEST_PAYLOAD:
            raise EngineAway(
                f"it takes messages of {self.max_payload} bytes at most",
                f"raise its max_payload to {SMALLEST_PAYLOAD} or more",
            )
        await self.open()
        await self.watch(receiver.key_changed, receiver.caught_up)
        self._message = receiver.message

    @property
    def congested(self) -> bool:
        return self._connection.congested

    async def subscribe(self, subject: str) -> None:
        self._connection.subscribe(subject, lambda message: self._message(message.subject, message.payload))
        await self._connection.ping()  # a server that forbids it says so before it answers

    async def ping(self) -> None:
        await self._connection.ping()
        # What came before the answer is dealt with, so a relay that was stopped for a while takes that for no silence.
        self.check_heard()


class NatsBackplane:
    """A way to reach a NATS server."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config

    @asynccontextmanager
    async def connect(self, receiver: Receiver, reading: Reading) -> AsyncIterator[NatsEngine]:
        """Connect for the length of the block; see `Backplane`."""
        connection = await self._reach()
        connection.lost, connection.drained = receiver.lost, receiver.drained
        failure: EngineAway | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.write)
                with reading(connection):
                    try:
                        engine = NatsEngine(connection, self._config)
                        with trio.move_on_after(OPENING) as patience:
                            await engine.start(receiver)
                        if patience.cancelled_caught:
                            raise EngineAway("it does not answer in time")
                        yield engine
                    except EngineAway as away:
                        failure = away
                nursery.cancel_scope.cancel()
        finally:
            connection.close()
        if failure is not None:
            raise failure

    async def _reach(self) -> Connection:
        """Return a connection to one of the servers, in random order; the failure of the last where none answers."""
        urls = random.sample(self._config.urls, len(self._config.urls))
        credentials = await trio.to_thread.run_sync(read_credentials, self._config.credentials)
        while True:
            try:
                return await connect(urls.pop(), credentials)
            except EngineAway:
                if not urls:
                    raise
