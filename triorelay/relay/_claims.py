"""Claims: from a hello, or a path that is an id, to a session in the registry.

1. The current policy decides, and again after a wait, because it may have changed.
2. An id that is held is refused, with three exceptions: the claim and its holders share it; its holder has hung up, and
   the claim waits for its end; or the same principal replaces its holder. What the holder sent is routed first, because
   only then its id becomes free.
3. The local side is decided first: while other relays are asked, the id is reserved, so that no second claim here
   overtakes.
4. Joining is one step: the id is taken, and welcome, presence and held frames are queued before anything else.
"""

import logging
from dataclasses import replace

import trio

from ..protocol import CloseReason, Hello, HelloOption, Refusal, id_name
from ._buckets import Buckets
from ._client_task import finish_hung_up
from ._connection import Connection, Peer
from ._exchange import PLACES
from ._pending import origin_of
from ._policy import Grant, Refused, UnknownToken, token_digest
from ._relay import Relay
from ._requests import presence
from ._session import Session

OBSERVERS_OF_AN_ORIGIN = 32
"""More than one place needs to look on; with fewer descriptors than `PLACES` the others still get theirs."""
WRONG_TOKENS_AT_ONCE = 10
"""From one origin; enough for a script with an old token that is tried by hand."""
WRONG_TOKEN_INTERVAL = 0.5
"""Seconds after which one more is looked at: 63 million a year, of 2**128."""


class Claims:
    """The claims of one relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._registry = relay.exchange.registry
        self._wrong_tokens = Buckets(trio.current_time, interval=WRONG_TOKEN_INTERVAL, burst=WRONG_TOKENS_AT_ONCE)

    def join_at_once(self, connection: Connection) -> Session | None:
        """Register a client that needs no hello and does not have to wait; return None if it has to."""
        relay = self._relay
        id = relay.policy.id_without_hello(connection.peer)
        if not id or relay.remote is not None or not self._is_free(id, shared=id in relay.config.share):
            return None
        hello = Hello(id, HelloOption.NONE)
        try:
            grant = self._grant(connection.peer, hello, b"")
            self._check_room()
            return self._join(connection, hello, grant, id, mapped=True)
        except Refused:
            return None

    async def token_turn(self, peer: Peer) -> None:
        """Wait until a token of this origin may be looked at: not at once where it gave many wrong ones."""
        while True:
            wait = self._wrong_tokens.wait(origin_of(peer))
            if not wait:
                return
            await trio.sleep(wait)

    async def claim(self, connection: Connection, hello: Hello, *, mapped: bool) -> Session:
        """Wait for the id where that makes sense, and register the session in one step.

        Raises:
            Refused: the client may not have the id, or cannot now.
        """
        peer, digest = connection.peer, token_digest(hello.token)
        grant = self._grant(peer, hello, digest)
        if hello.is_observer:
            self._check_room_for_observer(peer)
            return self._join(connection, hello, grant, 0)
        if hello.id:
            shared = self._shares(hello, hello.id)
            if shared and self._relay.remote is not None:
                raise Refused(Refusal.NOT_ALLOWED, "ids are not shared in a realm")
            await self._claim_here(hello.id, grant, shared)
            await self._claim_elsewhere(hello.id, grant)
        else:
            hello = replace(hello, id=await self._claim_any(grant))
        try:
            grant = self._grant(peer, hello, digest)
            self._check_room()
            if mapped and self._relay.policy.id_without_hello(peer) != hello.id:
                raise Refused(Refusal.NOT_ALLOWED, "its address is not in the map any more")
        except Refused:
            if self._relay.remote is not None:
                self._relay.remote.release(hello.id)
            raise
        return self._join(connection, hello, grant, hello.id, mapped=mapped)

    def _grant(self, peer: Peer, hello: Hello, digest: bytes) -> Grant:
        """Return what the policy of this moment grants, if that includes the id of the hello.

        Raises:
            Refused: it does not.
        """
        if self._relay.draining:
            raise Refused(Refusal.DRAINING, "the relay is shutting down")
        try:
            grant = self._relay.policy.grant(peer, digest)
        except UnknownToken:
            self._wrong_tokens.count(origin_of(peer))
            raise
        if hello.id and hello.id not in grant.ids:
            raise Refused(Refusal.NOT_ALLOWED, f"{grant.principal} may not hold this id")
        return grant

    def _shares(self, hello: Hello, id: int) -> bool:
        return hello.shares or id in self._relay.config.share

    def _is_free(self, id: int, *, shared: bool) -> bool:
        """Return whether one more session may hold `id`."""
        holder = self._registry.holder(id)
        return holder is None or (shared and holder.shared)

    def _check_room(self) -> None:
        """Refuse one more client where all places are taken, as they can be where ids are shared.

        Raises:
            Refused: they are.
        """
        if len(self._registry) >= PLACES:
            raise Refused(Refusal.FULL, f"{PLACES} clients are there")

    async def _claim_here(self, id: int, grant: Grant, shared: bool) -> None:
        """Wait until no session and no claim here has `id`, or only sessions that share it.

        Raises:
            Refused: its holder stays, or leaves too slowly.
        """
        relay, registry = self._relay, self._registry
        with trio.move_on_after(relay.config.stall_timeout or float("inf")):
            while True:
                if (reservation := registry.reservation(id)) is not None:
                    await reservation.wait()
                    continue
                if self._is_free(id, shared=shared):
                    return
                holders = registry.holders(id)
                if all(holder.connection.hung_up() for holder in holders):
                    for holder in holders:
                        finish_hung_up(relay, holder)
                elif not shared and self._replaces(grant, holders[0]):
                    holders[0].close(CloseReason.REPLACED)
                else:
                    break
                for holder in holders:
                    if not holder.freed.is_set():
                        await holder.freed.wait()
        if registry.holder(id) is not None or registry.reservation(id) is not None:
            raise Refused(Refusal.TAKEN, "another session holds it")

    def _replaces(self, grant: Grant, holder: Session) -> bool:
        """Return whether a claim with `grant` takes the id of `holder` away from it."""
        replaces = self._relay.config.duplicate == "replace" and not holder.shared
        return replaces and grant.proven and holder.principal == grant.principal

    async def _claim_elsewhere(self, id: int, grant: Grant) -> None:
        """Claim `id`, which no session here holds, among the other relays of a realm, if there are any.

        Raises:
            Refused: it is held elsewhere, or that cannot be decided now.
        """
        if self._relay.remote is not None:
            with self._registry.reserve(id):
                await self._relay.remote.claim(id, grant)

    async def _claim_any(self, grant: Grant) -> int:
        """Claim the highest free id of 128 to 255 that `grant` includes, and return it.

        Raises:
            Refused: there is none.
        """
        allowed = grant.ids - self._relay.config.share
        if allowed.isdisjoint(range(128, 256)):
            raise Refused(Refusal.NOT_ALLOWED, f"{grant.principal} may hold no id of 128 to 255")
        while id := self._registry.highest_free(allowed):
            try:
                await self._claim_elsewhere(id, grant)
            except Refused as refused:
                if refused.refusal is not Refusal.TAKEN:
                    raise
                allowed -= {id}
            else:
                return id
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

    def _join(self, connection: Connection, hello: Hello, grant: Grant, id: int, *, mapped: bool = False) -> Session:
        exchange = self._relay.exchange
        session = exchange.open_session(
            id,
            connection,
            grant,
            events=hello.wants_events,
            mapped=mapped,
            shared=self._shares(hello, id),
            lossy=hello.is_lossy,
        )
        if hello.wants_answer:
            session.outbox.welcome(bytes((id, Refusal.WELCOME)))
        if session.events:
            session.outbox.put(presence(exchange, session))
            self._registry.subscribers.add(session)
        if id:
            exchange.hold.hand_over(session.outbox)
            self._registry.announce(session)
        peer = connection.peer
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
