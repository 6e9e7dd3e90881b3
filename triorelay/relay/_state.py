"""The state of a relay, without its tasks, as plain data: enough for another process to continue from it.

1. Each class with state describes itself in `capture`, and continues from that description in `restore`; `_succession`
   does both for the relay as a whole. Both are steps without a checkpoint.
2. Times are seconds before the moment of the capture, because two processes have different clocks; deadlines are the
   seconds that are left, None for never.
3. Sessions are positions in the list of `RelayState`. A place in a queue is in bytes, counted from the first byte in
   `QueueState.frames`.
4. A FLUSH waits anew for the last frame that its session has in each queue, which it may have sent after the FLUSH.
5. Limits, policy and address filter are not here: the successor has its own settings.
"""

from dataclasses import dataclass, field

from ..protocol import HelloOption
from ._ledger import Ledger
from ._policy import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """An outbox.

    Attributes:
        frames: what waits, whole frames.
        taken: how many bytes of `frames` the kernel has: 1 in the middle of a frame, else 0.
        paused: (session, frames) of the senders that wait for room, in order.
        dropped_sent: sources that got DROPPED for this queue.
        dropped_as: why the queue is broken and drops what is put there; empty if it is not broken.
    """

    frames: bytes = b""
    taken: int = 0
    paused: list[tuple[int, bytes]] = field(default_factory=list)
    dropped_sent: list[int] = field(default_factory=list)
    dropped_as: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """A session.

    Attributes:
        age: seconds since it got its id.
        ended: why it ends; None while it does not.
        stalled: seconds since its client last took something while frames wait for it; None while none do.
        left_since: seconds since its client shut its sending side and its id became free; None before.
        flushes: the numbers of its FLUSHes that are not answered, in order.
        event_marks: places in its queue behind which unasked events end.
        waiting: seconds since it began to wait for an outbox.

    The others are as in `Session`.
    """

    id: int
    grant: Grant
    queue: QueueState
    options: HelloOption = HelloOption.NONE
    mapped: bool = False
    half: bytes = b""
    rest: bytes = b""
    no_route_sent: list[int] = field(default_factory=list)
    age: float = 0.0
    ended: int | None = None
    freed: bool = False
    stalled: float | None = None
    left_since: float | None = None
    flushes: bytes = b""
    waiting: float = 0.0
    wait_logged: bool = False
    event_marks: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldState:
    """Frames that wait for an absent id.

    Attributes:
        id: the id.
        frames: as it would receive them.
        expiries: (seconds left, place): then the frames before `place` expire.
    """

    id: int
    frames: bytes
    expiries: list[tuple[float | None, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """An id that this relay holds among all of a realm; `age` are the seconds since it was renewed.

    The others are as in `Lease` of the cluster.
    """

    id: int
    session: int
    token: int
    revision: int
    former: int
    adopted: bool
    renewed: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class RemoteLease:
    """An id that another relay of a realm holds.

    Attributes:
        id: what is leased.
        token: its fencing token.
        relay: the holder's nonce.
        name: the holder's name.
        to: the ids that its clients may send to; None for all.
        shared: whether its clients share the id.
        renewed: counts the times that it was renewed.
        clients: how many clients of the holder had the id then.
    """

    id: int
    token: int
    relay: str
    name: str
    to: frozenset[int] | None
    shared: bool
    renewed: int = field(default=0, compare=False)
    clients: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmState:
    """A relay's part in a realm.

    Attributes:
        realm: the realm's name.
        nonce: names the relay among all.
        name: names it for people.
        connection: numbers its connections to the engine: the newest.
        claims: how many claims it has made.
        leases: the ids that it holds.
        elsewhere: the ids that others hold.
        received: (relay, its connection, token of the destination's lease, destination, bytes that came from it so).
        lost: frames known to have been lost on the way here.
    """

    realm: str
    nonce: str
    name: str
    connection: int
    claims: int
    leases: list[LeaseState]
    elsewhere: list[RemoteLease]
    received: list[tuple[str, int, int, int, int]]
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayState:
    """A relay.

    Attributes:
        uptime: seconds since the first relay of the succession started.
        sessions: all sessions, including those that have left and are still written to.
        arrivals: what the connections without an id have sent, in the order in which they came.
        dropped_sent: (destination, sources that got DROPPED for it).
        ended: how many sessions ended, by transport and outcome.
        wrong_tokens: (origin, seconds until its wrong tokens are forgotten).
        handovers: how many there were in the succession before this one.
        realm: its part in a realm; None if it has none.
    """

    uptime: float
    sessions: list[SessionState]
    arrivals: list[bytes]
    held: list[HeldState]
    ledger: Ledger
    dropped_sent: list[tuple[int, list[int]]]
    ended: dict[tuple[str, str], int]
    wrong_tokens: list[tuple[str, float]] = field(default_factory=list)
    handovers: int = 0
    realm: RealmState | None = None
