"""A relay's connection to the engine, as the parts of its cluster see it.

1. A relay is `up` while it is connected, has got all leases, and all its own leases were confirmed within the length of
   a lease. Only then it sends and takes frames: it checks `confirmed` for each bundle, so a relay that was stopped for
   longer sends and takes nothing when it continues.
2. A connection is lost once; `lost` notes why. Messages sent after that are discarded, until `went_down` has dropped
   what waits and the cluster reconnects.
3. After a loss it is unknown whether the engine can be reached, until the next attempt has come up or failed: `decided`
   waits for that, so a short interruption decides no claim.
"""

import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from ..relay import LOGGER
from ._config import ClusterConfig
from ._engine import Engine, EngineAway
from ._wire import Message, encode, subject_of_relay

PATIENCE = 0.25
"""Of a lease, until the engine counts as away. A silent one is noticed 7/12 of a lease after the last renewal, before
leases of others, which are up to a third of their length older, seem to run out for a reason of their own."""
NO_ANSWER = "it does not answer in time"

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Uplink:
    """The state of the connection.

    Attributes:
        config: the cluster's settings.
        nonce: names this run of this relay among all.
        name: names it for people.
        connection: numbers the connections to the engine.
        engine: the connection, None if there is none.
        up: whether it came up, and the cluster has not handled its loss yet.
        confirmed_at: when the leases were confirmed last; minus infinity before.
        gone: set when the connection is lost.
        reason: why it was lost; empty while it was not.
        nursery: where work in the background runs; None once the relay is being cancelled.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.nonce: str = secrets.token_hex(8)
        self.name: str = config.name or f"{socket.gethostname()}-{self.nonce[:4]}"
        self.connection: int = 0
        self.engine: Engine | None = None
        self.up: bool = False
        self.confirmed_at: float = float("-inf")
        self.gone: trio.Event = trio.Event()
        self.reason: str = ""
        self._decided = trio.Event()
        self.nursery: trio.Nursery | None = None

    # -- its state

    def confirmed(self) -> bool:
        """Return whether the relay may send to and take from other relays now."""
        if self.up and trio.current_time() >= self.confirmed_at + self.config.lease:
            self.lost("its leases were not confirmed in time")
        return self.up and not self.reason

    @property
    def connected(self) -> Engine | None:
        """The engine, None while the relay may not use it."""
        return self.engine if self.confirmed() else None

    @property
    def congested(self) -> bool:
        """Whether the connection takes no more frames now."""
        return self.engine is None or self.engine.congested

    async def decided(self) -> Engine | None:
        """Return the engine, None if the last attempt to reach it failed; wait while one is under way."""
        while (engine := self.connected) is None and not self._decided.is_set():
            await self._decided.wait()
        return engine

    def lost(self, reason: str) -> None:
        """Note that the connection is lost. Idempotent."""
        if not self.reason:
            self.reason = reason
            self.gone.set()
            if self.up:
                self._decided = trio.Event()

    def begin(self) -> None:
        """Note that an attempt to connect begins; the loss before it is handled."""
        self.reason, self.gone = "", trio.Event()

    def came_up(self, confirmed_at: float) -> None:
        """Note that the relay got all leases, and had its own confirmed at this time."""
        self.up, self.confirmed_at = True, confirmed_at
        self._decided.set()

    def went_down(self) -> bool:
        """Note that the connection is over; return whether the relay was up."""
        was_up, self.up, self.engine = self.up, False, None
        return was_up

    def attempt_failed(self) -> None:
        """Note that the engine could not be reached."""
        self._decided.set()

    # -- using it

    def tell(self, relay: str, message: Message) -> None:
        """Send a message to another relay, if this one is up."""
        if self.engine is not None and not self.reason:
            self.engine.publish(subject_of_relay(self.config.realm, relay), encode(message))

    async def bounded(self, asked: Awaitable[T]) -> T:
        """Wait for an answer of the engine.

        Raises:
            EngineAway: the connection was lost meanwhile, or the engine did not answer in time.
        """
        with trio.move_on_after(self.config.lease * PATIENCE):
            return await asked
        raise EngineAway(NO_ANSWER)

    # -- work in the background

    def start_soon(self, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> bool:
        """Do something in the background; return whether that is possible: not once the relay is being cancelled."""
        if self.nursery is not None:
            self.nursery.start_soon(self._guarded, work, *args)
        return self.nursery is not None

    async def _guarded(self, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        try:
            await work(*args)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Log a bug: it ends this connection, and never the relay."""
        LOGGER.error("bug in the cluster", exc_info=error, extra={"fields": {}})
        self.lost(f"{type(error).__name__}: {error}")
