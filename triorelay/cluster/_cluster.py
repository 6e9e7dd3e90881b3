"""One relay's part in a realm: what it keeps, and what happens when the engine comes and goes.

1. A relay is `up` while it is connected to the engine, has been told of all leases, and its own were all confirmed
   within the length of a lease. Only then frames go out and come in: `confirmed` is asked for each batch, so a relay
   that was stopped for longer sends and takes nothing when it goes on.
2. When it is not up any more, what is queued for elsewhere is dropped as `cluster_down`, and so is what is sent there;
   clients here notice nothing else. The connection is closed, so that nothing of it is delivered late.
3. Then it connects anew, after pauses that grow. It is told of all leases, settles its own, and is up again.
4. While the engine is away, ids elsewhere are there until their leases run out by this relay's clock.
"""

import logging
import random
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from ..relay import ConfigError, DropReason, EventCode, Grant, Outbox, Relay, Session, log
from ._claims import Claims
from ._config import ClusterConfig
from ._elsewhere import Elsewhere
from ._engine import Backplane, Engine, EngineAway
from ._imports import Imports
from ._leases import Leases
from ._news import News
from ._view import View
from ._wire import subject_of_relay

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between attempts to connect: less than half a lease, so that an engine that restarts is soon found again."""
RENEWALS = 3
"""In the length of a lease."""
PATIENCE = 0.25
"""Of a lease, until the engine counts as away. A silent one is noticed 7/12 of a lease after the last renewal, before
leases of others, which are up to a third of their length older, seem to run out for a reason of their own."""
NO_ANSWER = "it does not answer in time"
LEASES_WAITED = 2
"""For how many lengths of a lease a claim waits at the most: one runs out in the first."""
TICK = 0.25
"""Seconds between looks at what runs out."""
GIVING_UP = 0.25
"""Seconds to tell the engine which ids are free, after the time for all else is over."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Cluster:
    """The other relays of a realm: give it to `serve` as its remote. It serves one relay, once.

    Attributes:
        config: its settings.
        nonce: names this run of this relay among all.
        name: names it for people.
        connection: numbers the connections to the engine.
        up: whether frames may go to and come from elsewhere.
    """

    relay: Relay
    _nursery: trio.Nursery

    def __init__(self, config: ClusterConfig, backplane: Backplane, *, name: str = "") -> None:
        """Make a cluster that reaches its engine by `backplane`; `name` is shown to people, the host's by default."""
        self.config = config
        self.nonce: str = secrets.token_hex(8)
        self.name: str = name or f"{socket.gethostname()}-{self.nonce[:4]}"
        self.connection: int = 0
        self.up: bool = False
        self.engine_or_none: Engine | None = None
        self.leases: Leases = Leases(self)
        self.elsewhere: Elsewhere = Elsewhere(self)
        self.view: View = View(config.lease, self.elsewhere.joined, self.elsewhere.left)
        self.imports: Imports = Imports(self)
        self.claims: Claims = Claims(self)
        self._backplane = backplane
        self._confirmed_until = 0.0
        self._running = False
        self._last_told = ""
        self._caught_up = trio.Event()
        self._lost = trio.Event()
        self._lost_reason = ""
        self._news = News(self)
        self._own_subject = subject_of_relay(config.realm, self.nonce)

    @classmethod
    def on_nats(cls, config: ClusterConfig, *, name: str = "") -> "Cluster":
        """Return a cluster whose engine is NATS.

        Raises:
            ConfigError: nats-py and trio-asyncio are not installed.
        """
        try:
            from ._nats import NatsBackplane
        except ImportError as error:
            raise ConfigError(
                f"cluster needs {error.name}, which is not installed: pip install 'triorelay[cluster]'"
            ) from None
        return cls(config, NatsBackplane(config), name=name)

    # -- what the relay asks for

    @property
    def outboxes(self) -> list[Outbox]:
        """The queues of frames for ids elsewhere."""
        return self.elsewhere.outboxes

    async def claim(self, id: int, grant: Grant) -> None:
        """Claim `id` among all relays; see `Remote`."""
        stall = self.relay.config.stall_timeout or float("inf")
        await self.claims.claim(id, grant, min(stall, LEASES_WAITED * self.config.lease))

    def release(self, id: int) -> None:
        """Give up the claim of `id`; see `Remote`."""
        self.leases.give_up(id)

    async def leave(self) -> None:
        """Wait until nothing is queued for elsewhere and no id is held; see `Remote`."""
        try:
            await self.leases.given_up()
        except trio.Cancelled:
            self.elsewhere.discard(DropReason.DRAINING)
            with trio.move_on_after(GIVING_UP, shield=True):
                await self.leases.given_up()
            raise

    def snapshot(self) -> dict[str, object]:
        """Return the realm, this relay's name in it, whether it is up, and which other relay holds which id."""
        return {
            "realm": self.config.realm,
            "relay": self.name,
            "up": self.up,
            "elsewhere": [[seen.id, seen.name] for seen in sorted(self.view, key=lambda seen: seen.id)],
            "lost": self.imports.lost,
            "garbage": self._news.garbage,
        }

    # -- what its parts ask for

    @property
    def engine(self) -> Engine:
        """The connection; there is one where this is asked."""
        assert self.engine_or_none is not None
        return self.engine_or_none

    @property
    def connected_engine(self) -> Engine | None:
        """The connection, None while the relay is not up."""
        return self.engine_or_none if self.up else None

    def confirmed(self) -> bool:
        """Return whether the relay may send to and take from elsewhere now."""
        if self.up and trio.current_time() >= self._confirmed_until:
            self.lost("its leases were not confirmed in time")
        return self.up and not self._lost.is_set()

    def start_soon(self, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> bool:
        """Do something on the side; return whether that is possible: not once the relay is being cancelled."""
        if self._running:
            self._nursery.start_soon(work, *args)
        return self._running

    async def bounded(self, asked: Awaitable[T]) -> T:
        """Wait for what was asked of the engine.

        Raises:
            EngineAway: it was lost meanwhile, or did not answer in time.
        """
        with trio.move_on_after(self.config.lease * PATIENCE):
            return await asked
        raise EngineAway(NO_ANSWER)

    # -- its task

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connected until cancelled; started after the first attempt.

        Raises:
            ConfigError: the engine is required, and the first attempt failed.
        """
        self.relay = relay
        relay.exchange.registry.watchers.add(self._session_changed)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self._running = nursery, True
                nursery.start_soon(self._keep_time)
                try:
                    await self._keep_connected(task_status)
                finally:
                    self._running = False
        finally:
            relay.exchange.registry.watchers.discard(self._session_changed)
            self._go_down(DropReason.DRAINING)

    async def _keep_connected(self, task_status: trio.TaskStatus[None]) -> None:
        pause, started = FIRST_PAUSE, False
        while True:
            try:
                async with self._backplane.connect(self) as engine:
                    await self._come_up(engine)
                    if not started:
                        task_status.started()
                    pause, started = FIRST_PAUSE, True
                    await self._stay_up(engine)
            except EngineAway as away:
                self._tell_away(away, first=not started)
            finally:
                self._go_down(DropReason.CLUSTER_DOWN)
            if not started:
                task_status.started()
                started = True
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _tell_away(self, away: EngineAway, *, first: bool) -> None:
        facts = {"realm": self.config.realm, "reason": str(away)} | ({"mend": away.mend} if away.mend else {})
        if first and self.config.required:
            mend = f"; {away.mend}" if away.mend else ""
            raise ConfigError(f"cluster: the engine cannot be used: {away}{mend}") from None
        if self._last_told != str(away):
            self._last_told = str(away)
            held = "granted here alone" if self.config.fallback == "local" else "refused"
            log(logging.WARNING, "cluster away", **facts, claims=held)

    async def _come_up(self, engine: Engine) -> None:
        self.engine_or_none = engine
        self.connection += 1
        with trio.move_on_after(self.config.lease):
            await self._caught_up.wait()
            await self.bounded(engine.subscribe(self._own_subject))
            begun = trio.current_time()
            await self.leases.settle_all(engine)
            if not self._lost.is_set():
                self._go_up(begun)
                return
        raise EngineAway(self._lost_reason or NO_ANSWER)

    def _go_up(self, begun: float) -> None:
        self.up = True
        self._confirmed_until = begun + self.config.lease
        self.view.confirmed()
        with self.relay.exchange.round.step():
            self.elsewhere.come_up()
        self._last_told = ""
        log(logging.INFO, "cluster joined", realm=self.config.realm, relay=self.name, elsewhere=len(self.elsewhere))

    async def _stay_up(self, engine: Engine) -> None:
        """Renew the leases until the connection is lost."""
        period = self.config.lease / RENEWALS
        while not self._lost.is_set():
            with trio.move_on_at(self._confirmed_until - self.config.lease + period):
                await self._lost.wait()
            begun = trio.current_time()
            if self._lost.is_set():
                break
            if await self.leases.renew(engine):
                self._confirmed_until = begun + self.config.lease
                self.confirmed()
            else:
                self.lost(NO_ANSWER)
        raise EngineAway(self._lost_reason)

    def _go_down(self, reason: DropReason) -> None:
        """Drop what is queued for elsewhere; its queues stay, and drop what is put into them."""
        was_up, self.up = self.up, False
        self.engine_or_none = None
        self._caught_up, self._lost, self._lost_reason = trio.Event(), trio.Event(), ""
        self.view.lost()
        if was_up:
            with self.relay.exchange.round.step():
                self.imports.connection_lost()
                self.elsewhere.discard(reason)

    async def _keep_time(self) -> None:
        while True:
            await trio.sleep(TICK)
            with self.relay.exchange.round.step():
                confirmed = self.confirmed()
                self.view.lapse()
                if confirmed:
                    self.elsewhere.look()

    # -- what the engine tells

    def lost(self, reason: str) -> None:
        """The connection is lost."""
        if not self._lost.is_set():
            self._lost_reason = reason
            self._lost.set()

    def caught_up(self) -> None:
        """All leases that were there when the connection was made have been told."""
        self._caught_up.set()

    def key_changed(self, key: str, value: bytes | None, revision: int) -> None:
        """A lease came, was renewed, or was given up."""
        self._news.key_changed(key, value, revision)

    def message(self, subject: str, payload: bytes) -> None:
        """Frames, credit, or a question about an id."""
        self._news.message(subject, payload)

    def _session_changed(self, code: EventCode, session: Session) -> None:
        if code is EventCode.LEFT:
            self.leases.give_up(session.id)
            seen = self.view.get(session.id)
            if seen is not None:
                self.elsewhere.joined(seen)
