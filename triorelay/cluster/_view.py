"""The ids that other relays hold, as far as the engine has reported them to this one.

1. An id has one lease for each relay that has a holder of it. A lease is known from the change that reports it until a
   change of its key leaves it out, or this relay got no change that renewed it for the length of a lease by its own
   clock: the engine does not report keys that ran out, and the key of a shared id lives on by the other relays.
2. `revision` is the last change that the engine reported. A token above it belongs to a lease that is not reported yet.
3. When the connection is lost, the leases of other relays stay until they run out. After the next connection, leases
   that have not come back are `expected` for the length of one more lease: their relays may need longer to come back,
   and no other relay should take their ids meanwhile.
4. If one change replaces a lease of a shared id by that of another relay, the new one comes before the old one goes. In
   any other change the old lease goes first, because its session does.
5. If a lease that ran out here is renewed under the same token, the view calls `revived`: what is in flight under that
   token does not match what the other relay counts.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import trio

from ..relay import RemoteLease
from ._wire import LeaseValue, decode_ids


def remote_lease(id: int, value: LeaseValue, *, shared: bool) -> RemoteLease:
    """Return the lease that was reported.

    Raises:
        BadMessage: its value has no meaning.
    """
    to = decode_ids(value.to)
    return RemoteLease(id, value.token, value.relay, value.name, to, shared, value.renewed, value.clients)


UNKNOWN = -1
"""Counts no renewal: what comes next is one."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """When the renewal `renewed` of the lease `token` was reported."""

    token: int
    renewed: int
    at: float


class View:
    """The leases of other relays.

    Attributes:
        revision: the newest reported revision.
    """

    def __init__(
        self,
        lease: float,
        joined: Callable[[RemoteLease], None],
        left: Callable[[RemoteLease], None],
        revived: Callable[[RemoteLease], None],
    ) -> None:
        """Make an empty view of leases of `lease` seconds.

        Args:
            lease: the length of a lease.
            joined: called when one comes.
            left: called when one goes.
            revived: called before one comes again that ran out here.
        """
        self.revision: int = 0
        self._lease = lease
        self._joined = joined
        self._left = left
        self._revived = revived
        self._leases: dict[int, dict[str, RemoteLease]] = {}
        self._heard: dict[int, dict[str, _Heard]] = {}
        self._expected: set[int] = set()
        self._expected_until = 0.0
        self._changed: dict[int, trio.Event] = {}

    def __iter__(self) -> Iterator[RemoteLease]:
        return iter([lease for leases in self._leases.values() for lease in leases.values()])

    def get(self, id: int, relay: str) -> RemoteLease | None:
        """Return the lease of `id` that the other relay has."""
        return self._leases.get(id, {}).get(relay)

    def holders(self, id: int) -> list[RemoteLease]:
        """Return the leases of `id` that other relays have: none, one, or those of the relays that share it."""
        return list(self._leases.get(id, {}).values())

    def may_come_back(self, id: int) -> bool:
        """Return whether `id` was held before the connection was lost, and its relay may still come back."""
        return id in self._expected and trio.current_time() < self._expected_until

    def is_over(self, id: int, value: LeaseValue) -> bool:
        """Return whether a lease that a key has was not renewed for its length.

        It is measured from the report of its last renewal, which came after that. So it is true of the newest value of
        the key if it is true here of the one that is replaced.
        """
        heard = self._heard.get(id, {}).get(value.relay)
        if heard is None or (heard.token, heard.renewed) != (value.token, value.renewed):
            return False
        return heard.at <= trio.current_time() - self._lease

    def changed(self, id: int) -> trio.Event:
        """Return what is set by `tell`: when a lease of `id` comes, goes or changes, or the connection is lost."""
        return self._changed.setdefault(id, trio.Event())

    def hear(self, id: int, leases: Collection[RemoteLease]) -> None:
        """Note which leases of other relays the key of `id` has now; none if it was deleted or is this relay's."""
        now, heard = trio.current_time(), self._heard.get(id, {})
        old = self._leases.get(id, {})
        self._heard[id] = {lease.relay: self._note(heard.get(lease.relay), lease, now) for lease in leases}
        self._expected.discard(id)
        if not leases:
            del self._heard[id]
        there = {lease.relay: lease for lease in leases if self._heard[id][lease.relay].at > now - self._lease}
        gone = [lease for relay, lease in old.items() if relay not in there or there[relay].token != lease.token]
        new = [lease for relay, lease in there.items() if relay not in old or old[relay].token != lease.token]
        passed_on = [lease for lease in gone if lease.shared and lease.relay not in there and new and new[0].shared]
        for lease in gone:
            if lease not in passed_on:
                self._end(lease)
        for lease in new:
            before = heard.get(lease.relay)
            if before is not None and before.token == lease.token and before.renewed != UNKNOWN:
                self._revived(lease)
            self._leases.setdefault(id, {})[lease.relay] = lease
            self.tell(id)
            self._joined(lease)
        for lease in passed_on:
            self._end(lease)
        for relay, known in self._leases.get(id, {}).items():
            # Others know it as it came, with the rights of then.
            self._leases[id][relay] = replace(known, renewed=there[relay].renewed, clients=there[relay].clients)

    @staticmethod
    def _note(before: _Heard | None, lease: RemoteLease, now: float) -> _Heard:
        if before is not None and (before.token, before.renewed) == (lease.token, lease.renewed):
            return before
        return _Heard(lease.token, lease.renewed, now)

    def _end(self, lease: RemoteLease) -> None:
        leases = self._leases[lease.id]
        del leases[lease.relay]
        if not leases:
            del self._leases[lease.id]
        self.tell(lease.id)
        self._left(lease)

    def tell(self, id: int) -> None:
        """Set `changed` of `id`."""
        changed = self._changed.pop(id, None)
        if changed is not None:
            changed.set()

    def restore(self, leases: Iterable[RemoteLease]) -> None:
        """Continue with `leases` of a relay before this one, whose connection is lost. They are not announced."""
        now = trio.current_time()
        for lease in leases:
            self._leases.setdefault(lease.id, {})[lease.relay] = lease
            self._heard.setdefault(lease.id, {})[lease.relay] = _Heard(lease.token, UNKNOWN, now)
        self.lost()

    def lapse(self) -> None:
        """Forget leases that were not reported for the length of a lease."""
        oldest = trio.current_time() - self._lease
        for lease in [lease for lease in self if self._heard[lease.id][lease.relay].at <= oldest]:
            self._end(lease)

    def lost(self) -> None:
        """Note that the connection is lost."""
        for id in list(self._changed):
            self.tell(id)
        if trio.current_time() >= self._expected_until:
            self._expected.clear()
        self._expected.update(self._leases)
        self._expected_until = float("inf")
        self.revision = 0
        # The next connection may report a renewal first that was reported before. It counts as a new one, because its
        # age is unknown.
        self._heard = {
            id: {relay: _Heard(heard.token, UNKNOWN, heard.at) for relay, heard in heards.items()}
            for id, heards in self._heard.items()
        }

    def confirmed(self) -> None:
        """Note that all leases have been reported after a new connection was made."""
        self._expected_until = trio.current_time() + self._lease
