"""Claims: from a hello, or a path that is an id, to a session in the registry.

1. The current policy decides, and decides again after a wait, because it may have changed meanwhile.
2. Claims of one id form one queue, in the order in which their connections were accepted, with or without a hello. The
   first has its turn, and keeps it while it waits for the holder or for other relays. A claim whose client has hung up
   gets its turn too: the relay routes what that client sent.
3. A held id is refused, with three exceptions: the claim and the holders share it; the holder has hung up, and the
   claim waits for its end; the same principal replaces its own session. In each case what the holder sent is routed
   first, because only then its id becomes free.
4. Joining is one step: the id is taken, and welcome, presence and held frames are queued before anything else.
"""

import logging
from collections import Counter

import trio

from ..protocol import CloseReason, HelloOption, Refusal, id_name
from ._client_task import finish_hung_up
from ._exchange import PLACES
from ._pending import Arrival, origin_of
from ._policy import Grant, Refused, token_digest
from ._relay import Relay
from ._session import Session

OBSERVERS_OF_AN_ORIGIN = 32
"""More than one address or user needs to watch a relay. With fewer than `PLACES` others still get their places."""


class Claims:
    """The claims of one relay: an arrival with an `id` has begun its claim, and was not refused."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._registry = relay.exchange.registry

    def _queue(self, id: int) -> list[Arrival]:
        """Return the claims of `id`, in the order in which their connections were accepted."""
        return [one for one in self._relay.arrivals if one.id == id]

    def begin(self, arrival: Arrival) -> Session | None:
        """Begin the claim of a hello; return the session if the client has nothing to wait for.

        Raises:
            Refused: the policy does not allow the claim, or there is no room.
        """
        arrival.grant = self._grant(arrival, arrival.hello.id)
        arrival.id = arrival.hello.id
        if not arrival.id or self._relay.remote is not None:
            return None
        is_alone = self._queue(arrival.id) == [arrival]
        return self._join(arrival) if is_alone and self._is_free(arrival) else None

    def drop(self, arrival: Arrival) -> None:
        """End a claim: the next one of its id has its turn. Idempotent."""
        if id := arrival.id:
            arrival.id = 0
            self._call_first(id)

    def _call_first(self, id: int) -> None:
        """Give the first claim of `id` its turn, unless another one has it."""
        queue = self._queue(id)
        if queue and not any(one.called.is_set() for one in queue):
            queue[0].called.set()

    @property
    def in_line(self) -> int:
        """How many claims wait behind another claim for an id that is about to be free."""
        if self._relay.remote is not None:
            return 0
        claims = Counter(one.id for one in self._relay.arrivals)
        return sum(count - 1 for id, count in claims.items() if id and count > 1 and self._comes_free(id))

    def _comes_free(self, id: int) -> bool:
        return all(one.connection.hung_up() and not one.waits for one in self._registry.holders(id))

    async def settle(self, arrival: Arrival) -> Session:
        """Wait for the id if it may become free, and register the session in one step.

        Raises:
            Refused: the client may not have the id, or cannot now.
        """
        if arrival.id:
            await self._claim_here(arrival)
            await self._claim_elsewhere(arrival)
        elif not arrival.hello.is_observer:
            await self._claim_any(arrival)
        try:
            arrival.grant = self._grant(arrival, arrival.id)
            return self._join(arrival)
        except Refused:
            if self._relay.remote is not None:
                self._relay.remote.release(arrival.id)
            raise

    def _grant(self, arrival: Arrival, id: int) -> Grant:
        """Return what the policy of this moment grants, if that includes `id`."""
        if self._relay.draining:
            raise Refused(Refusal.DRAINING, "the relay is shutting down")
        digest = token_digest(arrival.hello.token)
        return self._relay.policy.grant(arrival.connection.peer, digest, id=id, mapped=arrival.mapped)

    def _shares(self, arrival: Arrival) -> bool:
        return HelloOption.SHARE in arrival.hello.options or arrival.id in self._relay.config.share

    def _is_free(self, arrival: Arrival) -> bool:
        """Return whether one more session may hold its id."""
        holder = self._registry.holder(arrival.id)
        return holder is None or (holder.shared and self._shares(arrival))

    def _check_room(self, arrival: Arrival) -> None:
        """Refuse a client or observer too many: with shared ids there may be more clients than ids."""
        if len(self._registry) >= PLACES:
            raise Refused(Refusal.FULL, f"{PLACES} clients are there")
        if arrival.hello.is_observer:
            observers = [session for session in self._relay.exchange.sessions if not session.id]
            if sum(origin_of(one.connection.peer) == arrival.origin for one in observers) >= OBSERVERS_OF_AN_ORIGIN:
                raise Refused(Refusal.FULL, "too many observers from this address")
            return
        principal, limit = arrival.grant.principal, self._relay.config.max_clients_per_principal
        if limit and sum(session.principal == principal for session in self._registry) >= limit:
            raise Refused(Refusal.FULL, f"{principal or 'its principal'} has {limit} clients already")

    async def _claim_here(self, arrival: Arrival) -> None:
        """Wait until no session and no earlier claim here has the id, or only sessions that share it."""
        relay, registry, id = self._relay, self._registry, arrival.id
        with trio.move_on_after(relay.config.stall_timeout or float("inf")):
            # Every claim that came in the same moment is in the queue after a checkpoint.
            await trio.lowlevel.checkpoint()
            self._call_first(id)
            await arrival.called.wait()
            while not self._is_free(arrival):
                holders = registry.holders(id)
                if all(holder.connection.hung_up() for holder in holders):
                    for holder in holders:
                        finish_hung_up(relay, holder)
                elif not self._shares(arrival) and self._replaces(arrival.grant, holders[0]):
                    holders[0].close(CloseReason.REPLACED)
                else:
                    break
                for holder in holders:
                    if not holder.freed.is_set():
                        await holder.freed.wait()
            else:
                return
        raise Refused(Refusal.TAKEN, "another session holds it")

    def _replaces(self, grant: Grant, holder: Session) -> bool:
        """Return whether a claim with `grant` takes the id of `holder` away from it."""
        replaces = self._relay.config.duplicate == "replace" and not holder.shared
        return replaces and grant.proven and holder.principal == grant.principal

    async def _claim_elsewhere(self, arrival: Arrival) -> None:
        """Claim the id, which is free here or shared, among the other relays of a realm, if there are any."""
        if self._relay.remote is not None:
            await self._relay.remote.claim(arrival.id, arrival.grant, shared=self._shares(arrival))

    async def _claim_any(self, arrival: Arrival) -> None:
        """Claim the highest free id of 128 to 255 that the grant includes."""
        allowed = arrival.grant.ids - self._relay.config.share
        if allowed.isdisjoint(range(128, 256)):
            raise Refused(Refusal.NOT_ALLOWED, f"{arrival.grant.principal} may hold no id of 128 to 255")
        arrival.called.set()
        while id := self._registry.highest_free(allowed - {one.id for one in self._relay.arrivals}):
            arrival.id = id
            try:
                await self._claim_elsewhere(arrival)
            except Refused as refused:
                self.drop(arrival)
                if refused.refusal is not Refusal.TAKEN:
                    raise
                allowed -= {id}
            else:
                return
        raise Refused(Refusal.FULL, "no id of 128 to 255 is free for it")

    def _join(self, arrival: Arrival) -> Session:
        self._check_room(arrival)
        exchange, hello, id = self._relay.exchange, arrival.hello, arrival.id
        options = hello.options | HelloOption.SHARE if self._shares(arrival) else hello.options
        session = exchange.open_session(id, arrival.connection, arrival.grant, options, mapped=arrival.mapped)
        session.rest = arrival.rest
        if hello.wants_answer:
            session.outbox.welcome(bytes((id, Refusal.WELCOME)))
        if session.events:
            session.outbox.put(self._registry.presence(session))
        if id:
            exchange.hand_over(session.outbox)
            self._registry.announce(session)
        peer = arrival.connection.peer
        self._relay.client_log.log(
            logging.INFO,
            "client joined" if id else "observer joined",
            **({"id": id_name(id)} if id else {}),
            transport=peer.transport,
            address=peer.address,
            principal=session.principal,
            **({"pid": peer.pid, "process": peer.process} if peer.pid else {}),
        )
        return session
