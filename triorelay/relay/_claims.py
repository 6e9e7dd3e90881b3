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
from bisect import insort

import trio

from ..protocol import CloseReason, Hello, Refusal, id_name
from ._client_task import finish_hung_up
from ._connection import Connection, Peer
from ._exchange import PLACES
from ._pending import origin_of
from ._policy import Grant, Refused, token_digest
from ._relay import Relay
from ._requests import presence
from ._session import Session

OBSERVERS_OF_AN_ORIGIN = 32
"""More than one address or user needs to watch a relay. With fewer than `PLACES` others still get their places."""


class Claim:
    """What one connection asks for.

    Attributes:
        connection: the client's.
        hello: its hello; for a client without one, the hello that means the same.
        number: its place in the order of accept.
        mapped: whether it has its id without a hello.
        id: the id; 0 for an observer, and for any free id until one is chosen.
        digest: of the token that it gave; empty if it gave none.
        grant: what the policy lets it do.
        called: set when it has its turn.
    """

    grant: Grant

    def __init__(self, connection: Connection, hello: Hello, number: int, mapped: bool) -> None:
        self.connection = connection
        self.hello = hello
        self.number = number
        self.mapped = mapped
        self.id: int = hello.id
        self.digest: bytes = token_digest(hello.token)
        self.called: trio.Event = trio.Event()


def _number(claim: Claim) -> int:
    # A claim that has its turn keeps it.
    return -1 if claim.called.is_set() else claim.number


class Claims:
    """The claims of one relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._registry = relay.exchange.registry
        self._queues: dict[int, list[Claim]] = {}
        self._wrong_tokens = relay.wrong_tokens

    def begin(self, connection: Connection, hello: Hello, number: int, *, mapped: bool) -> Claim:
        """Check a claim, and put it into the queue of its id; the caller ends it by `settle` or `drop`.

        Args:
            connection: the client's.
            hello: its hello; for a client without one, the hello that means the same.
            number: the connection's place in the order of accept.
            mapped: whether it has its id without a hello.

        Raises:
            Refused: the client may not have the id.
        """
        claim = Claim(connection, hello, number, mapped)
        claim.grant = self._grant(claim)
        if hello.id:
            insort(self._queues.setdefault(hello.id, []), claim, key=_number)
        return claim

    def drop(self, claim: Claim) -> None:
        """End a claim: the next one of its id has its turn. Idempotent."""
        queue = self._queues.get(claim.id, [])
        if claim in queue:
            queue.remove(claim)
            if queue:
                queue[0].called.set()
            else:
                del self._queues[claim.id]

    def at_once(self, claim: Claim) -> Session | None:
        """Register a client that has nothing to wait for; return None if there is more to it."""
        shared = self._shares(claim.hello, claim.id)
        if self._relay.remote is not None or self._queues.get(claim.id) != [claim]:
            return None
        if not self._is_free(claim.id, shared=shared):
            return None
        try:
            self._check_room(claim.grant)
        except Refused:
            return None
        self.drop(claim)
        return self._join(claim)

    @property
    def in_line(self) -> int:
        """How many claims wait behind another claim for an id that is about to be free."""
        if self._relay.remote is not None:
            return 0
        return sum(len(queue) - 1 for id, queue in self._queues.items() if len(queue) > 1 and self._comes_free(id))

    def _comes_free(self, id: int) -> bool:
        return all(one.connection.hung_up() and not one.waits for one in self._registry.holders(id))

    async def slow_down(self, peer: Peer) -> None:
        """Wait before a wrong token is answered, longer with each one from its origin. A right one never waits."""
        origin = origin_of(peer)
        wait = self._wrong_tokens.wait(origin)
        self._wrong_tokens.count(origin)
        await trio.sleep(wait)

    async def settle(self, claim: Claim) -> Session:
        """Wait for the id if it may become free, and register the session in one step.

        Raises:
            Refused: the client may not have the id, or cannot now.
        """
        try:
            if claim.hello.is_observer:
                self._check_room_for_observer(claim.connection.peer)
                return self._join(claim)
            if claim.id:
                shared = self._shares(claim.hello, claim.id)
                await self._claim_here(claim, shared)
                await self._claim_elsewhere(claim, shared=shared)
            else:
                await self._claim_any(claim)
            try:
                claim.grant = self._grant(claim)
                self._check_room(claim.grant)
            except Refused:
                if self._relay.remote is not None:
                    self._relay.remote.release(claim.id)
                raise
            return self._join(claim)
        finally:
            self.drop(claim)

    def _grant(self, claim: Claim) -> Grant:
        """Return what the policy of this moment grants, if that includes the id of the claim.

        Raises:
            Refused: it does not.
        """
        policy, peer = self._relay.policy, claim.connection.peer
        if self._relay.draining:
            raise Refused(Refusal.DRAINING, "the relay is shutting down")
        grant = policy.grant(peer, claim.digest)
        if claim.id and claim.id not in grant.ids:
            raise Refused(Refusal.NOT_ALLOWED, f"{grant.principal} may not hold this id")
        if claim.mapped and policy.id_without_hello(peer) != claim.id:
            raise Refused(Refusal.NOT_ALLOWED, "its address is not in the map any more")
        return grant

    def _shares(self, hello: Hello, id: int) -> bool:
        return hello.shares or id in self._relay.config.share

    def _is_free(self, id: int, *, shared: bool) -> bool:
        """Return whether one more session may hold `id`."""
        holder = self._registry.holder(id)
        return holder is None or (shared and holder.shared)

    def _check_room(self, grant: Grant) -> None:
        """Refuse one more client if all places are taken: with shared ids there may be more clients than ids.

        Raises:
            Refused: they are, or the principal has as many as it may.
        """
        if len(self._registry) >= PLACES:
            raise Refused(Refusal.FULL, f"{PLACES} clients are there")
        limit = self._relay.config.max_clients_per_principal
        if limit and sum(session.principal == grant.principal for session in self._registry) >= limit:
            raise Refused(Refusal.FULL, f"{grant.principal or 'its principal'} has {limit} clients already")

    async def _claim_here(self, claim: Claim, shared: bool) -> None:
        """Wait until no session and no earlier claim here has the id, or only sessions that share it.

        Raises:
            Refused: its holder stays, or leaves too slowly.
        """
        relay, registry, id = self._relay, self._registry, claim.id
        with trio.move_on_after(relay.config.stall_timeout or float("inf")):
            # Every claim that came in the same moment is in the queue after a checkpoint.
            await trio.lowlevel.checkpoint()
            queue = self._queues[id]
            if not any(other.called.is_set() for other in queue):
                queue[0].called.set()
            await claim.called.wait()
            while not self._is_free(id, shared=shared):
                holders = registry.holders(id)
                if all(holder.connection.hung_up() for holder in holders):
                    for holder in holders:
                        finish_hung_up(relay, holder)
                elif not shared and self._replaces(claim.grant, holders[0]):
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

    async def _claim_elsewhere(self, claim: Claim, *, shared: bool = False) -> None:
        """Claim the id, which is free here or `shared`, among the other relays of a realm, if there are any.

        Raises:
            Refused: it is held elsewhere, or that cannot be decided now.
        """
        if self._relay.remote is not None:
            await self._relay.remote.claim(claim.id, claim.grant, shared=shared)

    async def _claim_any(self, claim: Claim) -> None:
        """Claim the highest free id of 128 to 255 that the grant includes.

        Raises:
            Refused: there is none.
        """
        allowed = claim.grant.ids - self._relay.config.share
        if allowed.isdisjoint(range(128, 256)):
            raise Refused(Refusal.NOT_ALLOWED, f"{claim.grant.principal} may hold no id of 128 to 255")
        while id := self._registry.highest_free(allowed - self._queues.keys()):
            claim.id = id
            claim.called.set()
            self._queues[id] = [claim]
            try:
                await self._claim_elsewhere(claim)
            except Refused as refused:
                self.drop(claim)
                if refused.refusal is not Refusal.TAKEN:
                    raise
                allowed -= {id}
            else:
                return
        raise Refused(Refusal.FULL, "no id of 128 to 255 is free for it")

    def _check_room_for_observer(self, peer: Peer) -> None:
        """Refuse one more observer if there is no place for it.

        Raises:
            Refused: clients have all places, or its address has as many as it may.
        """
        if len(self._registry) >= PLACES:
            raise Refused(Refusal.FULL, "clients have all places")
        observers = [session for session in self._relay.exchange.sessions if not session.id]
        origin = origin_of(peer)
        if sum(origin_of(session.connection.peer) == origin for session in observers) >= OBSERVERS_OF_AN_ORIGIN:
            raise Refused(Refusal.FULL, "too many observers from this address")

    def _join(self, claim: Claim) -> Session:
        exchange, hello, id = self._relay.exchange, claim.hello, claim.id
        session = exchange.open_session(
            id,
            claim.connection,
            claim.grant,
            events=hello.wants_events,
            mapped=claim.mapped,
            shared=self._shares(hello, id),
            lossy=hello.is_lossy,
        )
        if hello.wants_answer:
            session.outbox.welcome(bytes((id, Refusal.WELCOME)))
        if session.events:
            session.outbox.put(presence(exchange, session))
            self._registry.subscribers[session] = None
        if id:
            exchange.hand_over(session.outbox)
            self._registry.announce(session)
        peer = claim.connection.peer
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
