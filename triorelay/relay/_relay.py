"""A relay as a whole: its settings, its limits, its drain, and what an operator may ask of it.

What frames need is in `exchange` and `router`; tasks are in `_server`, `_admission` and `_client_task`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol

import trio

from .. import _build, _version
from ..protocol import LARGE_CHUNK, CloseReason, DropReason, EventCode, id_name
from ._buckets import Buckets
from ._config import Config
from ._exchange import DROPS_KEPT, PLACES, Exchange
from ._log import Throttle, log
from ._outbox import Outbox
from ._policy import Grant, Policy
from ._pump import Pump
from ._reload import RELOADED, Prepared, judge_anew, prepare, refuse_weaker
from ._router import Router
from ._session import Session
from ._snapshot import shown, snapshot
from ._state import RealmState
from ._tls import CLIENT_BYTES, PENDING_BYTES

if TYPE_CHECKING:
    import ssl

    from ._ledger import Ledger
    from ._pending import Arrival

RESUMED_AT_ONCE = 8
"""Sessions that continue with a part of a chunk between two passes of the pump: less than a millisecond of work."""
WRONG_TOKENS_AT_ONCE = 10
"""From one address or user; enough to try a script with an old token a few times by hand."""
WRONG_TOKEN_INTERVAL = 0.5
"""Seconds that the answer to each further one waits longer."""
RELAY_RESERVE = 512
"""Bytes that a session without an id may cost."""


class Service(Protocol):
    """A task beside the relay, such as the admin endpoint. It runs until the relay has drained."""

    async def run(self, relay: "Relay", *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled; call `task_status.started()` when ready. An exception ends the relay.

        One that answers questions about the relay waits for `Relay.in_charge` first.
        """


@dataclass(frozen=True, slots=True)
class RealmStatus:
    """What an operator sees of the other relays.

    Attributes:
        realm: its name.
        relay: this relay's name in it.
        up: whether frames may go to and come from other relays.
        elsewhere: ids that other relays hold, and the names of those relays; a shared id once for each of them.
        shared: ids that clients of other relays share, the names of those relays, and how many clients share each there
            by what the relay wrote last, every third of a lease.
        lost: frames known to have been lost on the way here.
        garbage: messages that this relay could not parse.
        reconnects: how often it reconnected.
        confirmed_seconds: how long ago the leases of this relay were confirmed; None if they never were.
    """

    realm: str
    relay: str
    up: bool
    elsewhere: list[tuple[int, str]]
    shared: list[tuple[int, str, int]]
    lost: int
    garbage: int
    reconnects: int
    confirmed_seconds: float | None


class Remote(Service, Protocol):
    """Other relays that act as one with this one: an id is held once among all of them, or shared.

    It puts an outbox into the registry for each relay that holds an id (`Registry.add_remote`), so that routing knows
    no difference between a client here and one elsewhere.
    """

    @property
    def outboxes(self) -> Iterable[Outbox]:
        """The queues of frames for ids elsewhere."""

    async def claim(self, id: int, grant: Grant, *, shared: bool) -> None:
        """Wait until this relay may give `id` to a session. No session here holds or claims it, except to share it.

        Raises:
            Refused: it is held elsewhere, or the claim cannot be decided now.

        Cancelled leaves the id unclaimed.
        """

    def release(self, id: int) -> None:
        """Give up a claim that no session was registered for, unless others share it. Leaving sessions are noticed."""

    async def leave(self) -> None:
        """Wait until what is queued for elsewhere is handed over and all ids are given up; the caller sets a bound."""

    async def before_handover(self) -> None:
        """Wait until what is queued for elsewhere is handed over, for about a second at most."""

    def capture(self) -> RealmState:
        """Go down, and describe what a successor needs to continue; if it does not, this one comes up again itself."""

    def restore(self, relay: "Relay", state: RealmState | None) -> None:
        """Continue from `state`, None from a relay of no realm; sessions, which are there already, keep their ids."""

    @property
    def away(self) -> str:
        """Why no client can get an id now; empty if clients can."""

    def status(self) -> RealmStatus:
        """Return what the status shows of it."""


class Relay:
    """A running relay, handed out by `serve` once it listens.

    Attributes:
        config: its settings.
        addresses: where it listens, as addresses that clients understand.
        draining: whether it is shutting down; `drain_asked` is set from then on.
        in_charge: set once it serves; until then an old relay may have its clients, and services accept no connection.
        unreachable: by path of a Unix socket, why clients do not reach the relay there; empty if they do.
        ledger: where every frame went.
        sessions_ended: how many sessions ended, by transport and outcome.
        handovers: how many relays handed over to one another before this one.
        took_over: the version of the last of them, and when; None if this is the first one.
    """

    pump: Pump

    def __init__(self, config: Config, remote: Remote | None = None) -> None:
        self.config: Config = config
        self.remote = remote
        self.addresses: list[str] = []
        self.draining: bool = False
        self.in_charge: trio.Event = trio.Event()
        self.unreachable: dict[str, str] = {}
        self.exchange: Exchange = Exchange(config, lambda: () if remote is None else remote.outboxes)
        self.router: Router = Router(self.exchange)
        self.ledger: Ledger = self.exchange.ledger
        self.sessions_ended: Counter[tuple[str, str]] = Counter()
        self.handovers: int = 0
        self.took_over: tuple[str, float] | None = None
        prepared = prepare(config)
        self.policy: Policy = prepared.policy
        self.tls: ssl.SSLContext | None = prepared.tls
        self.wrong_tokens: Buckets = Buckets(interval=WRONG_TOKEN_INTERVAL, burst=WRONG_TOKENS_AT_ONCE)
        self.arrivals: dict[Arrival, None] = {}
        self.close_listeners: Sequence[Callable[[], None]] = ()
        self.resuming: trio.Semaphore = trio.Semaphore(RESUMED_AT_ONCE)
        self.wait_log: Throttle = Throttle(interval=0.5, burst=20)
        self.client_log: Throttle = Throttle(interval=0.1, burst=50)
        self.started: float = trio.current_time()
        self.drain_asked: trio.Event = trio.Event()
        self._all_placed = trio.Event()

    def snapshot(self) -> dict[str, object]:
        """Return the status, taken in one step: the contents of `GET /status`."""
        return {
            "version": _version.__version__,
            "build": _build.BUILD,
            "uptime_seconds": round(trio.current_time() - self.started, 3),
            "handovers": self.handovers,
            "took_over": self._took_over(),
            "draining": self.draining,
            "listeners": [shown(address) for address in self.addresses],
            **snapshot(self.exchange),
            **({"cluster": asdict(self.remote.status())} if self.remote is not None else {}),
        }

    def _took_over(self) -> dict[str, object] | None:
        if self.took_over is None:
            return None
        version, at = self.took_over
        return {"from_version": version, "seconds_ago": round(trio.current_time() - at, 3)}

    @property
    def memory_ceiling(self) -> int:
        """Bytes that clients can make the relay hold at most."""
        config = self.config
        # A queue may exceed its bound by a chunk, and its buffers are at most twice as large as their contents. A
        # client may have one chunk that waits and one that is not routed yet.
        queue = 2 * (config.queue_bytes + LARGE_CHUNK) + 2 * LARGE_CHUNK
        held = 255 * 2 * config.hold_frames * 9 // 8
        counters = DROPS_KEPT * 200 + 256 * 256 * 36
        tls = PLACES * CLIENT_BYTES + config.max_pending * PENDING_BYTES if config.tls else 0
        return PLACES * queue + held + counters + config.max_pending * RELAY_RESERVE + tls

    def reload(self, config: Config) -> None:
        """Take over policy, address filter, address map and TLS files from `config`; the rest takes a restart.

        Sessions that may not hold their id any more are closed. New connections get the new certificate.

        Args:
            config: the settings; their files are read, which may block.

        Raises:
            ConfigError: a file of `config` cannot be used, or all principals, the client CA or the certificate would be
                gone; nothing has changed.
        """
        self.take_over(prepare(config))

    def take_over(self, prepared: Prepared) -> None:
        """As `reload`, with files that were read already (`prepare`, in a thread)."""
        config = prepared.config
        refuse_weaker(self.config, config)
        self.config = replace(self.config, **{name: getattr(config, name) for name in RELOADED})
        self.policy, self.tls = prepared.policy, prepared.tls
        denied = judge_anew(self.exchange, prepared.policy)
        log(logging.INFO, "reloaded", principals=len(config.principals), denied=denied)
        names = [
            field.name for field in fields(Config) if getattr(self.config, field.name) != getattr(config, field.name)
        ]
        if names:
            log(logging.WARNING, "these settings take a restart", settings=names)

    def close_client(self, id: int) -> bool:
        """Close the session that holds `id`, or all that share it, for an operator; return whether there is any."""
        holders = self.exchange.registry.holders(id)
        for session in holders:
            session.close(CloseReason.CLOSED)
        return bool(holders)

    def forget(self, session: Session, reason: CloseReason) -> None:
        """Forget a session whose outbox is discarded and whose id is free."""
        self.exchange.sessions.pop(session, None)
        for subscriber in self.exchange.registry.subscribers:
            subscriber.sent_to.pop(session.outbox, None)
        self._check_all_placed()
        transport = session.connection.peer.transport
        self.sessions_ended[transport, reason.label] += 1
        self.client_log.log(
            logging.INFO,
            "client left" if session.id else "observer left",
            **({"id": id_name(session.id)} if session.id else {}),
            transport=transport,
            reason=reason.label,
        )

    # -- the drain

    def drain(self) -> None:
        """Begin to shut down; `serve` returns when that is done. Idempotent, and safe to call in any task."""
        if self.draining:
            return
        self.draining = True
        exchange = self.exchange
        log(logging.INFO, "draining", clients=len(exchange.registry), deadline=self.config.drain_timeout)
        for close in self.close_listeners:
            close()
        exchange.hold.end(DropReason.DRAINING)
        self.pump.stop()
        for session in list(exchange.registry.subscribers):
            session.notify(EventCode.DRAINING, 0)
        for session in list(exchange.sessions):
            session.wake()
        for arrival in self.arrivals:
            arrival.place.cancel()
        self.drain_asked.set()

    async def all_placed(self) -> None:
        """Wait until no session has anything left that it read and could not place; for the drain."""
        self._check_all_placed()
        await self._all_placed.wait()

    def _check_all_placed(self) -> None:
        if self.draining and not any(session.blocked for session in self.exchange.sessions):
            self._all_placed.set()
