"""One relay's part in a realm: how its parts work together, and what happens when the engine comes and goes.

1. The relay connects, gets all leases, and settles its own; then it is up. It renews its leases until the connection is
   lost.
2. When it is not up any more, it drops the frames that are queued for ids elsewhere as `cluster_down`, and those that
   are still sent there. Clients here notice nothing else. It closes the connection, so that no frame arrives late.
3. Then it reconnects, after growing pauses. While the engine is away, ids elsewhere stay present until their leases run
   out by this relay's clock.
4. A relay that hands over goes down in the step of the capture. Frames queued for ids elsewhere do not move: it hands
   them over before, or drops them. If the handover fails, it reconnects, as after any loss.
5. A successor acts under the same nonce, with the same leases and tokens: to other relays it is the same relay, whose
   connection was lost for a moment. It has clients, so it does not end even if the engine is required and away.
6. Neither the engine nor a bug in the code for it ends the relay: either costs the connection, and logs a line.
"""

import logging
import random
from contextlib import suppress

import trio

from ..relay import (
    ConfigError,
    DropReason,
    EventCode,
    Exchange,
    Grant,
    Outbox,
    RealmState,
    RealmStatus,
    Relay,
    RemoteLease,
    Session,
    Throttle,
    id_name,
    log,
)
from ._bundles import Bundles
from ._claims import Claims
from ._config import ClusterConfig
from ._engine import Backplane, Engine, EngineAway, Reading
from ._exports import Exports
from ._imports import Imports
from ._lease import Lease
from ._leases import Leases
from ._uplink import NO_ANSWER, Uplink
from ._view import View, remote_lease
from ._wire import BadMessage, Bundle, Dropped, Held, Question, decode, decode_key, id_of, subject_of_relay

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between attempts to connect: less than half a lease, so that an engine that restarts is soon found again."""
RENEWALS = 3
"""Renewals in the length of a lease."""
LEASES_WAITED = 2
"""For how many lengths of a lease a claim waits at most: one runs out in the first."""
TICK = 0.25
"""Seconds between two checks for leases that have run out."""
HANDING_OVER = 1.0
"""Seconds before a handover to send what is queued for elsewhere; the successor waits six for the offer."""
GIVING_UP = 0.25
"""Seconds to give up all ids at the engine, after the deadline of the drain."""


class Cluster:
    """The other relays of a realm: give it to `serve` as its remote. It serves one relay, once.

    Attributes:
        config: its settings.
        uplink: the connection to the engine.
    """

    view: View
    leases: Leases
    imports: Imports
    exports: Exports
    claims: Claims

    def __init__(self, config: ClusterConfig, backplane: Backplane) -> None:
        """Make a cluster that reaches its engine by `backplane`."""
        self.config = config
        self.uplink: Uplink = Uplink(config)
        self._backplane = backplane
        self._last_reason = ""
        self._bad_messages = 0
        self._reconnects = 0
        self._caught_up = trio.Event()
        self._assembled = trio.Event()

    def _assemble(self, relay: Relay) -> None:
        """Make the parts, from the bottom up."""
        exchange, uplink = relay.exchange, self.uplink
        self._relay = relay
        self._exchange: Exchange = exchange
        self._bad_log = Throttle(interval=10)
        self._bundles = Bundles(uplink, exchange.round)
        self.view = View(
            self.config.lease, lambda lease: self.exports.joined(lease), self._left_elsewhere, self._revived_elsewhere
        )
        self.leases = Leases(
            uplink, self.view, exchange.registry, lambda id: self.exports.handed_over(id), self._lease_over
        )
        self.imports = Imports(exchange, uplink, self.view, self.leases, self._bundles, lambda: relay.router.tap)
        self.exports = Exports(exchange, uplink, self._bundles, self.leases)
        self.claims = Claims(uplink, self.view, self.leases, exchange.registry, lambda: relay.config)
        self._assembled.set()

    # -- for the relay

    @property
    def outboxes(self) -> list[Outbox]:
        """The queues of frames for ids elsewhere."""
        return self.exports.outboxes

    async def claim(self, id: int, grant: Grant, *, shared: bool) -> None:
        """Claim `id` among all relays; see `Remote`."""
        stall = self._relay.config.stall_timeout or float("inf")
        await self.claims.claim(id, grant, shared, min(stall, LEASES_WAITED * self.config.lease))

    def release(self, id: int) -> None:
        """Give up the claim of `id`; see `Remote`."""
        self.leases.give_up(id)

    async def leave(self) -> None:
        """Wait until nothing is queued for elsewhere and no id is held; see `Remote`."""
        try:
            await self.leases.given_up()
        except trio.Cancelled:
            self.exports.discard(DropReason.DRAINING)
            with trio.move_on_after(GIVING_UP, shield=True):
                await self.leases.given_up()
            raise

    async def before_handover(self) -> None:
        """Wait until what is queued for elsewhere is handed over; see `Remote`."""
        await self._assembled.wait()
        with trio.move_on_after(HANDING_OVER), suppress(EngineAway):
            for id in self._exchange.registry.ids():
                await self.exports.handed_over(id)
            if (engine := self.uplink.connected) is not None:
                await engine.ping()

    def capture(self) -> RealmState:
        """Go down, and describe what a successor needs; see `Remote`."""
        uplink = self.uplink
        uplink.lost("it is handed over")
        self._go_down(DropReason.CLUSTER_DOWN)
        with self._exchange.round.step():
            return RealmState(
                realm=self.config.realm,
                nonce=uplink.nonce,
                name=uplink.name,
                connection=uplink.connection,
                claims=self.leases.claims,
                leases=self.leases.capture(),
                elsewhere=list(self.view),
                received=self.imports.capture(),
                lost=self.imports.lost,
            )

    def restore(self, relay: Relay, state: RealmState | None) -> None:
        """Continue from `state`; see `Remote`."""
        self._assemble(relay)
        uplink = self.uplink
        if state is None or state.realm != self.config.realm:
            self.leases.restore((), 0)
            return
        uplink.nonce, uplink.name, uplink.connection = state.nonce, self.config.name or state.name, state.connection
        self.leases.restore(state.leases, state.claims)
        self.view.restore(state.elsewhere)
        self.exports.restore(self.view)
        self.imports.restore(state.received)
        self.imports.lost = state.lost

    @property
    def away(self) -> str:
        """Why no client can get an id now; empty if clients can."""
        if self.config.fallback == "local" or self.uplink.up:
            return ""
        return f"away from the realm {self.config.realm}: {self._last_reason or 'it is being joined'}"

    def status(self) -> RealmStatus:
        """Return what an operator sees of the realm."""
        uplink = self.uplink
        age = trio.current_time() - uplink.confirmed_at
        return RealmStatus(
            realm=self.config.realm,
            relay=uplink.name,
            up=uplink.up,
            elsewhere=sorted((lease.id, lease.name) for lease in self.view),
            shared=sorted((lease.id, lease.name, lease.clients) for lease in self.view if lease.shared),
            lost=self.imports.lost,
            garbage=self._bad_messages,
            reconnects=self._reconnects,
            confirmed_seconds=None if age == float("inf") else round(age, 3),
        )

    # -- its tasks

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connected until cancelled; started after the first attempt.

        Raises:
            ConfigError: the engine is required, and the first attempt failed.
        """
        if not relay.handovers:  # else `restore` has done it
            self._assemble(relay)
        watchers = relay.exchange.registry.watchers
        watchers.add(self._session_changed)
        try:
            async with trio.open_nursery() as nursery:
                self.uplink.nursery = nursery
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._keep_connected, relay.pump.watching)
                try:
                    await self.uplink.decided()
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    self.uplink.nursery = None
        finally:
            watchers.discard(self._session_changed)
            self._go_down(DropReason.DRAINING)

    async def _keep_connected(self, reading: Reading) -> None:
        pause, required = FIRST_PAUSE, self.config.required and not self._relay.handovers
        while True:
            came_up = False
            self._caught_up = trio.Event()
            self.uplink.begin()
            try:
                async with self._backplane.connect(self, reading) as engine:
                    try:
                        await self._come_up(engine)
                        came_up = True
                        await self._stay_up(engine)
                    finally:
                        self._go_down(DropReason.CLUSTER_DOWN)
            except EngineAway as away:
                self._tell_away(away, required=required and not came_up)
            except Exception as error:
                self.uplink.failed(error)
            if not came_up:
                self.uplink.attempt_failed()
            required = False
            pause = FIRST_PAUSE if came_up else pause
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _tell_away(self, away: EngineAway, *, required: bool) -> None:
        if required:
            hint = f"; {away.hint}" if away.hint else ""
            raise ConfigError(f"cluster: the engine cannot be used: {away}{hint}") from None
        if self._last_reason != str(away):
            self._last_reason = str(away)
            held = "granted here alone" if self.config.fallback == "local" else "refused"
            hints = {"hint": away.hint} if away.hint else {}
            log(logging.WARNING, "cluster away", realm=self.config.realm, reason=str(away), **hints, claims=held)

    async def _come_up(self, engine: Engine) -> None:
        uplink = self.uplink
        uplink.engine = engine
        uplink.connection += 1
        with trio.move_on_after(self.config.lease):
            await self._caught_up.wait()
            await uplink.bounded(engine.subscribe(subject_of_relay(self.config.realm, uplink.nonce)))
            begun = trio.current_time()
            await self.leases.settle_all(engine)
            if not uplink.reason:
                self._go_up(begun)
                return
        raise EngineAway(uplink.reason or NO_ANSWER)

    def _go_up(self, begun: float) -> None:
        self._reconnects += self.uplink.confirmed_at != float("-inf")
        self.uplink.came_up(begun)
        self.view.confirmed()
        with self._exchange.round.step():
            self.exports.come_up(self.view)
        self._last_reason = ""
        elsewhere = len({lease.id for lease in self.view})
        log(logging.INFO, "cluster joined", realm=self.config.realm, relay=self.uplink.name, elsewhere=elsewhere)

    async def _stay_up(self, engine: Engine) -> None:
        """Renew the leases until the connection is lost."""
        uplink, period = self.uplink, self.config.lease / RENEWALS
        while True:
            with trio.move_on_at(uplink.confirmed_at + period):
                await uplink.gone.wait()
            if uplink.reason:
                raise EngineAway(uplink.reason)
            begun = trio.current_time()
            if await self.leases.renew(engine):
                # While this process was stopped, its leases may have run out.
                if uplink.confirmed():
                    uplink.confirmed_at = begun
            else:
                uplink.lost(NO_ANSWER)

    def _go_down(self, reason: DropReason) -> None:
        """Drop what is queued for elsewhere; its queues stay, and drop what is put into them."""
        if self.uplink.went_down():
            with self._exchange.round.step():
                self._bundles.discard()
                self.imports.connection_lost()
                self.exports.discard(reason)
        self.view.lost()

    async def _keep_time(self) -> None:
        while True:
            await trio.sleep(TICK)
            try:
                with self._exchange.round.step():
                    confirmed = self.uplink.confirmed()
                    self.view.lapse()
                    if confirmed:
                        self.exports.check_stalled(self._relay.wait_log)
            except Exception as error:
                self.uplink.failed(error)

    # -- reports of the engine

    def lost(self, reason: str) -> None:
        """Note that the connection is lost."""
        self.uplink.lost(reason)
        self._caught_up.set()

    def caught_up(self) -> None:
        """Note that the engine has reported all leases that existed when the connection was made."""
        self._caught_up.set()

    def drained(self) -> None:
        """Note that the connection is congested no more."""
        if self.uplink.up:
            with self._exchange.round.step():
                self.exports.go_on()

    def key_changed(self, key: str, value: bytes | None, revision: int) -> None:
        """Note that a lease came, was renewed, or was given up."""
        try:
            id = id_of(key)
            held = None if value is None else decode_key(value, revision)
            leases = [] if held is None else [remote_lease(id, lease, shared=held.shared) for lease in held.leases]
        except BadMessage as bad:
            self._note_bad(f"key {key[:20]}", bad)
            return
        self.view.revision = revision
        self.view.hear(id, [lease for lease in leases if lease.relay != self.uplink.nonce])
        ours = self.leases.get(id)
        if held is not None and ours is not None and self.uplink.up and not ours.changing.locked():
            self.leases.reported(ours, held, revision)
        self.imports.go_on()

    def message(self, subject: str, payload: bytes | memoryview) -> None:
        """Take a message of another relay."""
        try:
            message = decode(payload)
        except BadMessage as bad:
            self._note_bad(subject, bad)
            return
        match message:
            case Bundle():
                for credit in message.credits:
                    self.exports.credit(message.relay, credit)
                if message.pieces:
                    self.imports.receive(message)
            case Question():
                self.claims.asked(message)
            case Held():
                self.claims.answered(message)
            case Dropped():
                self.imports.dropped_elsewhere(message)

    def _note_bad(self, where: str, bad: BadMessage) -> None:
        self._bad_messages += 1
        self._bad_log.log(logging.WARNING, "cluster garbage", where=where, reason=str(bad))

    # -- reports between the parts

    def _left_elsewhere(self, lease: RemoteLease) -> None:
        # LEFT comes after the last frame, so what waits of its relay is placed first.
        self.imports.source_left(lease.relay)
        self.exports.left(lease)

    def _revived_elsewhere(self, lease: RemoteLease) -> None:
        self.uplink.lost(f"the lease of {id_name(lease.id)} ran out here, and its relay {lease.name} renewed it")

    def _lease_over(self, lease: Lease) -> None:
        self.imports.session_left(lease.token)
        self._show_again(lease.id)

    def _session_changed(self, code: EventCode, session: Session) -> None:
        if code is EventCode.LEFT:
            self.leases.give_up(session.id)
            self._show_again(session.id)

    def _show_again(self, id: int) -> None:
        """Let clients here reach the holders of `id` elsewhere, if that had to wait for the end of a session here."""
        for other in self.view.holders(id):
            self.exports.joined(other)
