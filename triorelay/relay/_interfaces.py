"""What parts of a relay, and what joins it, need to know of one another."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from trio import TaskStatus

if TYPE_CHECKING:
    from ._outbox import Outbox
    from ._policy import Grant
    from ._relay import Relay


class Service(Protocol):
    """Something that runs as long as the relay does, through its drain, such as the admin endpoint."""

    async def run(self, relay: "Relay", *, task_status: TaskStatus[None]) -> None:
        """Run until cancelled; call `task_status.started()` when ready. An exception ends the relay."""


class Remote(Service, Protocol):
    """Other relays that act as one with this one: ids are held once among all of them.

    It puts an outbox into `Registry.outboxes` for each id that is held elsewhere (`Registry.appear`), so that routing
    knows no difference between a client here and one elsewhere.
    """

    @property
    def outboxes(self) -> Iterable["Outbox"]:
        """The queues of frames for ids elsewhere."""

    async def claim(self, id: int, grant: "Grant") -> None:
        """Wait until `id`, which no session here holds and no other claims, is this relay's to give to a session.

        Raises:
            Refused: it is held elsewhere, or the claim cannot be decided now.

        Cancelled leaves the id unclaimed.
        """

    def release(self, id: int) -> None:
        """Give up a claim that no session was registered for. Sessions that leave are noticed."""

    async def leave(self) -> None:
        """Wait until what is queued for elsewhere is handed over and all ids are given up; the caller sets a bound."""

    def snapshot(self) -> dict[str, object]:
        """Return what the status shows of it."""


class Elsewhere(Protocol):
    """An id that a client of another relay holds.

    Attributes:
        id: the id.
        to: the ids that it may send to; None for all.
    """

    @property
    def id(self) -> int: ...
    @property
    def to(self) -> frozenset[int] | None: ...


class Sink(Protocol):
    """Where an outbox writes to: a connection, or another relay."""

    send_frame: Callable[[bytes], int]

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take some of `data` and return how many bytes; raise BlockingIOError where it takes none now."""


class Sender(Protocol):
    """Whoever may be paused for a destination.

    Attributes:
        id: its id.
        waiting_since: when it began to wait.
        wait_told: whether the log was told.
    """

    id: int
    waiting_since: float
    wait_told: bool

    def unpause(self, outbox: "Outbox") -> None:
        """Take note that the chunk left with `outbox` was placed or dropped."""


class Marker(Protocol):
    """Whoever wants to know when a position of the queue was reached."""

    def reached(self) -> None:
        """Take note: every byte before the mark was written or dropped."""
