"""Which ids clients here can reach elsewhere: between what the view knows, the registry, and the links.

1. Whoever holds a lease elsewhere is in the registry with a link's outbox in place of a session's. Where a session here
   still has the id, because it just lost it, that waits until the session has ended.
2. While the relay is not up links are broken, and drop what is put into them as `cluster_down`. They stay in the
   registry even when their leases run out: nobody knows who has those ids by then, so it is not `no_route`.
3. When the relay is up again each id gets a new link. Ids that were there all the time are not announced again.
"""

from typing import TYPE_CHECKING

import trio

from ..relay import DropReason
from ._links import Link
from ._view import Seen

if TYPE_CHECKING:
    from ..relay import Outbox
    from ._cluster import Cluster
    from ._wire import Credit


class Elsewhere:
    """The ids of one realm that other relays hold, for clients of this one."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._links: dict[int, Link] = {}

    def __len__(self) -> int:
        return len(self._links)

    @property
    def outboxes(self) -> "list[Outbox]":
        """The queues of frames for them."""
        return [link.outbox for link in self._links.values()]

    def come_up(self) -> None:
        """Make new links to all that are there."""
        for id, link in list(self._links.items()):
            self._end(id, link, DropReason.CLUSTER_DOWN)
        for seen in self._cluster.view:
            self.joined(seen)

    def discard(self, reason: DropReason) -> None:
        """Break all links; what is queued for them is dropped, and what is sent to them."""
        for link in self._links.values():
            link.outbox.discard(reason)

    def joined(self, seen: Seen) -> None:
        """Let clients here reach `seen`; later, where one of them still has the id or the relay is not up."""
        cluster = self._cluster
        registry, hold = cluster.relay.exchange.registry, cluster.relay.exchange.hold
        if not cluster.up or registry.holder(seen.id) is not None:
            return
        link = self._links[seen.id] = Link(cluster, seen)
        registry.add_remote(seen, link.outbox)
        hold.hand_over(link.outbox)

    def left(self, seen: Seen) -> None:
        """The lease `seen` is over; what came of it is placed first."""
        cluster, registry = self._cluster, self._cluster.relay.exchange.registry
        cluster.imports.source_left(seen.relay)
        link = self._links.get(seen.id)
        if link is not None and cluster.up:
            self._end(seen.id, link, DropReason.PEER_GONE)
        if seen.id in registry.remote_holders:
            registry.remove_remote(seen.id)
        if link is not None and not cluster.up and registry.holder(seen.id) is None:
            registry.outboxes[seen.id] = link.outbox

    def _end(self, id: int, link: Link, reason: DropReason) -> None:
        link.outbox.discard(reason)
        del self._links[id]
        if self._cluster.relay.exchange.registry.outboxes[id] is link.outbox:
            self._cluster.relay.exchange.registry.outboxes[id] = None

    def credit(self, credit: "Credit") -> None:
        """Take note of credit."""
        link = self._links.get(credit.destination)
        if link is not None and (credit.token, credit.connection) == (link.seen.token, self._cluster.connection):
            link.credit(credit.placed)

    def look(self) -> None:
        """Look after links that wait."""
        now = trio.current_time()
        for link in self._links.values():
            link.look(now)
