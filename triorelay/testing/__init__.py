"""A relay in memory, for the tests of programs that use triorelay.

    import triorelay.testing

    async def test_it(autojump_clock):
        async with triorelay.testing.open_relay() as relay:
            async with relay.open_client("A") as a, relay.open_client("B") as b:
                await a.send("B", b"1")
                assert await b.receive() == ("A", b"1")

It is the real relay, with sessions, queues and the ledger; only the sockets are memory. Clocks that jump work with it.
"""

#   _memory  connections in memory
#   _engine  an engine for clusters in memory

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from .._fields import check_count
from ..client import Backoff, Client, open_client
from ..client._bare import open_bare_nursery
from ..protocol import id_byte
from ..relay import Config, Relay
from ..relay._connection import Peer
from ..relay._server import run_relay
from ._memory import CAPACITY, MemoryListener, MemoryPoller, MemoryStream


class MemoryRelay:
    """A running relay in memory, made by `open_relay`.

    Attributes:
        relay: the relay: its `snapshot()` has the ledger.
    """

    def __init__(self, relay: Relay, listener: MemoryListener) -> None:
        self.relay = relay
        self._listener = listener

    def connect(self, bound_id: str | bytes | int | None = None) -> MemoryStream:
        """Return a bare connection to the relay; the caller closes it.

        Args:
            bound_id: the id that it has without a hello, as if it had bound a path; None to say hello.
        """
        return self._listener.connect(Peer("memory", "memory", bound_id=id_byte(bound_id) if bound_id else 0))

    def open_client(
        self,
        id: str | bytes | int | None = None,
        *,
        token: str | bytes | None = None,
        observer: bool = False,
        shared: bool = False,
        lossy: bool = False,
        reconnect: Backoff | None = None,
        strict: bool = False,
    ) -> AbstractAsyncContextManager[Client]:
        """Open a client of this relay; `id` and the options are those of `triorelay.open_client`."""

        async def connect() -> MemoryStream:
            return self.connect()

        return open_client(
            connect,
            id,
            token=token,
            observer=observer,
            shared=shared,
            lossy=lossy,
            reconnect=reconnect,
            strict=strict,
        )


@asynccontextmanager
async def open_relay(config: Config | None = None, *, capacity: int = CAPACITY) -> AsyncIterator[MemoryRelay]:
    """Run a relay in memory for the length of the block, and drain it at the end.

    An error that leaves the block comes out bare, not in an ExceptionGroup.

    Args:
        config: its settings; listeners in it are ignored.
        capacity: bytes that a connection holds in each direction; 2 for the answer to a hello at least.

    Raises:
        ValueError: `capacity` is less than 2.
        TypeError: it is no whole number.
    """
    check_count("capacity", capacity, 2)
    relay = Relay(config or Config())
    listener = MemoryListener(capacity)
    async with open_bare_nursery() as nursery:
        await nursery.start(run_relay, relay, [listener], (), MemoryPoller)
        yield MemoryRelay(relay, listener)
        relay.drain()
