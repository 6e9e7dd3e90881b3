"""The ids that other relays hold, as far as this one has been told.

1. A lease is there from the change that tells of it until its key is deleted, another lease takes its place, or nothing
   was heard of it for the length of a lease by this relay's own clock: that a key ran out is told to nobody.
2. `revision` is how far the engine's changes were told. A token above it belongs to a lease that will yet be told of.
3. When the connection is lost, what was held elsewhere stays until it runs out. After the next one is made, ids that
   were held and have not come back are `expected` for one more lease: their relays may need longer to come back, and
   nobody else should take their ids meanwhile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from ._wire import LeaseValue, decode_ids


@dataclass(frozen=True, slots=True)
class Seen:
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


def seen_of(id: int, revision: int, value: LeaseValue) -> Seen:
    """Return the lease that was told of.

    Raises:
        Garbage: its value has no meaning.
    """
    return Seen(id, value.token or revision, value.relay, value.name, decode_ids(value.to))


class View:
    """The leases of other relays.

    Attributes:
        revision: the newest revision told.
    """

    def __init__(self, lease: float, joined: Callable[[Seen], None], left: Callable[[Seen], None]) -> None:
        """Make an empty view; `joined` and `left` are called as leases come and go, `lease` seconds is their length."""
        self.revision: int = 0
        self._lease = lease
        self._joined = joined
        self._left = left
        self._seen: dict[int, Seen] = {}
        self._heard: dict[int, float] = {}
        self._expected: dict[int, float] = {}
        self._before: set[int] = set()
        self._lost_at = -1.0
        self._changed: dict[int, trio.Event] = {}

    def __iter__(self) -> Iterator[Seen]:
        return iter(list(self._seen.values()))

    def get(self, id: int) -> Seen | None:
        """Return the lease of `id` that another relay has."""
        return self._seen.get(id)

    def may_come_back(self, id: int) -> bool:
        """Return whether `id` was held before the connection was lost, and its relay may still come back."""
        return self._expected.get(id, 0.0) > trio.current_time()

    def changed(self, id: int) -> trio.Event:
        """Return what is set when the lease of `id` comes, goes or changes."""
        return self._changed.setdefault(id, trio.Event())

    def hear(self, seen: Seen) -> None:
        """Another relay has set its lease."""
        id = seen.id
        old = self._seen.get(id)
        self._heard[id] = trio.current_time()
        self._expected.pop(id, None)
        if old is not None and (old.token, old.relay) == (seen.token, seen.relay):
            return
        if old is not None:
            self._end(id)
        self._seen[id] = seen
        self._tell(id)
        self._joined(seen)

    def forget(self, id: int) -> None:
        """The lease of `id` was given up, or this relay has it: nobody is expected back."""
        self._expected.pop(id, None)
        self._before.discard(id)
        self._end(id)

    def _end(self, id: int) -> None:
        seen = self._seen.pop(id, None)
        if seen is not None:
            self._tell(id)
            self._left(seen)

    def _tell(self, id: int) -> None:
        changed = self._changed.pop(id, None)
        if changed is not None:
            changed.set()

    def lapse(self) -> None:
        """Forget what was not heard of for the length of a lease."""
        oldest = trio.current_time() - self._lease
        for id in [id for id in self._seen if self._heard[id] <= oldest]:
            self._end(id)

    def lost(self) -> None:
        """The connection is lost."""
        self._before |= {id for id in self._seen if self._heard[id] > self._lost_at} | set(self._expected)
        self._lost_at = trio.current_time()
        self.revision = 0

    def confirmed(self) -> None:
        """All that is there has been told after a new connection was made."""
        until = trio.current_time() + self._lease
        self._expected = {id: until for id in self._before if self._heard[id] <= self._lost_at}
        self._before.clear()
