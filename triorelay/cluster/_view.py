"""The ids that other relays hold, as far as the engine has reported them to this one.

1. A lease is known from the change that reports it until its key is deleted, another lease replaces it, or this relay
   got no change of it for the length of a lease by its own clock: the engine does not report keys that ran out.
2. `revision` is the last change that the engine reported. A token above it belongs to a lease that is not reported yet.
3. When the connection is lost, the leases of other relays stay until they run out. After the next connection, leases
   that have not come back are `expected` for the length of one more lease: their relays may need longer to come back,
   and no other relay should take their ids meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import trio

from ._wire import LeaseValue, decode_ids


@dataclass(frozen=True, slots=True)
class RemoteLease:
    """A lease of another relay.

    Attributes:
        id: what is leased.
        token: its fencing token.
        relay: the holder's nonce.
        name: the holder's name.
        to: the ids that the client may send to; None for all.
    """

    id: int
    token: int
    relay: str
    name: str
    to: frozenset[int] | None


def remote_lease(id: int, revision: int, value: LeaseValue) -> RemoteLease:
    """Return the lease that was reported.

    Raises:
        BadMessage: its value has no meaning.
    """
    return RemoteLease(id, value.token or revision, value.relay, value.name, decode_ids(value.to))


class View:
    """The leases of other relays.

    Attributes:
        revision: the newest reported revision.
    """

    def __init__(
        self, lease: float, joined: Callable[[RemoteLease], None], left: Callable[[RemoteLease], None]
    ) -> None:
        """Make an empty view; `joined` and `left` are called as leases come and go, `lease` seconds is their length."""
        self.revision: int = 0
        self._lease = lease
        self._joined = joined
        self._left = left
        self._leases: dict[int, RemoteLease] = {}
        self._heard: dict[int, float] = {}
        self._expected: dict[int, float] = {}
        self._before: set[int] = set()
        self._lost_at = -1.0
        self._changed: dict[int, trio.Event] = {}

    def __iter__(self) -> Iterator[RemoteLease]:
        return iter(list(self._leases.values()))

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, id: int) -> RemoteLease | None:
        """Return the lease of `id` that another relay has."""
        return self._leases.get(id)

    def may_come_back(self, id: int) -> bool:
        """Return whether `id` was held before the connection was lost, and its relay may still come back."""
        return self._expected.get(id, 0.0) > trio.current_time()

    def changed(self, id: int) -> trio.Event:
        """Return what is set when the lease of `id` comes, goes or changes."""
        return self._changed.setdefault(id, trio.Event())

    def hear(self, lease: RemoteLease) -> None:
        """Note that another relay has set its lease."""
        id = lease.id
        old = self._leases.get(id)
        self._heard[id] = trio.current_time()
        self._expected.pop(id, None)
        if old is not None and (old.token, old.relay) == (lease.token, lease.relay):
            return
        if old is not None:
            self._end(id)
        self._leases[id] = lease
        self._tell(id)
        self._joined(lease)

    def forget(self, id: int) -> None:
        """Note that the lease of `id` was given up, or that this relay has it: no relay is expected back with it."""
        self._expected.pop(id, None)
        self._before.discard(id)
        self._end(id)

    def _end(self, id: int) -> None:
        lease = self._leases.pop(id, None)
        if lease is not None:
            self._tell(id)
            self._left(lease)

    def _tell(self, id: int) -> None:
        changed = self._changed.pop(id, None)
        if changed is not None:
            changed.set()

    def restore(self, leases: Iterable[RemoteLease]) -> None:
        """Continue with `leases` of a relay before this one, whose connection is lost. They are not announced."""
        for lease in leases:
            self._leases[lease.id] = lease
            self._heard[lease.id] = trio.current_time()
        self.lost()

    def lapse(self) -> None:
        """Forget leases that were not reported for the length of a lease."""
        oldest = trio.current_time() - self._lease
        for id in [id for id in self._leases if self._heard[id] <= oldest]:
            self._end(id)

    def lost(self) -> None:
        """Note that the connection is lost."""
        self._before |= {id for id in self._leases if self._heard[id] > self._lost_at} | set(self._expected)
        self._lost_at = trio.current_time()
        self.revision = 0

    def confirmed(self) -> None:
        """Note that all leases have been reported after a new connection was made."""
        until = trio.current_time() + self._lease
        self._expected = {id: until for id in self._before if self._heard[id] <= self._lost_at}
        self._before.clear()
