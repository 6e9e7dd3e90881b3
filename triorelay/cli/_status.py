"""A relay's status as it comes from `/status`, and what follows from it."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from ..recording import Entry, Lost, Run
from ._logging import one_line


class Client(msgspec.Struct, frozen=True):
    """A client, as the status has it."""

    id: int
    name: str
    transport: str
    address: str
    principal: str
    pid: int | None
    process: str
    connected_seconds: float
    sent: int
    received: int
    queued: int
    waiting_for: int | None
    waiting_seconds: float
    shared: bool = False

    @property
    def origin(self) -> str:
        """Where it comes from, for people; names that the client chose are shown in printable ASCII."""
        process = f"{self.process} ({self.pid})" if self.pid else ""
        return one_line("  ".join(filter(None, (f"{self.transport} {self.address}".strip(), process))))


class Ledger(msgspec.Struct, frozen=True):
    """The ledger, as the status has it."""

    accepted: int
    written: int
    queued: int
    dropped: dict[str, int]


class Realm(msgspec.Struct, frozen=True):
    """The relays that act as one, as the status has them."""

    realm: str
    relay: str
    up: bool
    elsewhere: list[tuple[int, str]]
    lost: int
    garbage: int
    shared: list[tuple[int, str, int]] = []

    @property
    def others(self) -> dict[str, list[int]]:
        """The ids that each other relay holds, by its name."""
        names = sorted({name for _, name in self.elsewhere})
        return {name: [id for id, holder in self.elsewhere if holder == name] for name in names}


class TookOver(msgspec.Struct, frozen=True):
    """The last handover."""

    from_version: str
    seconds_ago: float


class Status(msgspec.Struct, frozen=True):
    """The status. Keys that a newer relay adds are ignored."""

    version: str
    uptime_seconds: float
    draining: bool
    listeners: list[str]
    clients: list[Client]
    pairs: list[tuple[int, int, int]]
    drops: list[tuple[int | None, int | None, str, int]]
    ledger: Ledger
    cluster: Realm | None = None
    took_over: TookOver | None = None

    @property
    def holders(self) -> Counter[int]:
        """How many clients here hold each id: more than one if it is shared."""
        return Counter(client.id for client in self.clients)

    def sharers(self, id: int) -> dict[str, int]:
        """Return how many clients of each other relay of the realm share `id`, by the relay's name."""
        shared = [] if self.cluster is None else self.cluster.shared
        return {name: count for held, name, count in shared if held == id}

    def sharing(self, id: int) -> str:
        """Say how many clients share `id`, here and at other relays; empty if only one has it."""
        here, sharers = self.holders[id], self.sharers(id)
        if here + sum(sharers.values()) < 2:
            return ""
        if not sharers:
            return f"shared by {here}"
        elsewhere = [f"{count} at {one_line(name, 64)}" for name, count in sharers.items()]
        return f"shared by {', '.join([f'{here} here', *elsewhere] if here else elsewhere)}"

    @property
    def waiting(self) -> list[Client]:
        """The clients that wait for another, longest first."""
        waiting = (client for client in self.clients if client.waiting_for is not None)
        return sorted(waiting, key=lambda client: -client.waiting_seconds)

    @property
    def dropped(self) -> int:
        return sum(self.ledger.dropped.values())


class Look(msgspec.Struct, frozen=True):
    """Frames for a viewer, as `/monitor` sends them; without data, only how many were skipped."""

    time: float
    source: int = 0
    destination: int = 0
    data: str | None = None
    skipped: int = 0

    @property
    def entries(self) -> Iterator[Entry]:
        """The same as a recording has it. ValueError: the data are no hexadecimal digits."""
        nanoseconds = round(self.time * 1e9)
        if self.skipped:
            yield Lost(nanoseconds, self.skipped)
        if self.data is not None:
            yield Run(nanoseconds, self.source, self.destination, bytes.fromhex(self.data))


class Change:
    """The rates between two statuses, a second; `accepted`, `written` and `dropped` are of the whole relay."""

    def __init__(self, before: Status | None, after: Status) -> None:
        self._seconds = after.uptime_seconds - before.uptime_seconds if before else 0.0
        if self._seconds <= 0:
            # The first one, or one of another run.
            before = after
        assert before is not None
        self._clients = {client.id: client for client in before.clients}
        self._pairs = {(source, destination): count for source, destination, count in before.pairs}
        self.accepted = self._rate(after.ledger.accepted, before.ledger.accepted)
        self.written = self._rate(after.ledger.written, before.ledger.written)

    def sent(self, client: Client) -> float:
        return self._rate(client.sent, self._clients.get(client.id, client).sent)

    def received(self, client: Client) -> float:
        return self._rate(client.received, self._clients.get(client.id, client).received)

    def pair(self, source: int, destination: int, count: int) -> float:
        return self._rate(count, self._pairs.get((source, destination), 0))

    def _rate(self, now: int, before: int) -> float:
        return (now - before) / self._seconds if self._seconds > 0 else 0.0
