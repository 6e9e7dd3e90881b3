"""The ids that this relay holds among all of the realm: claimed, renewed, given up, and lost.

1. The revision by which a lease was created is its fencing token, for as long as the lease lasts, through all its
   renewals. A lease belongs to one session: another session of the same id gets another token. The lease of a shared id
   belongs to all sessions that share it here, from the first to the last.
2. An id has one key, and each change of it names the revision that it replaces. So the engine decides between any two
   claims, also if one of them shares and the other does not. The key of a shared id has the lease of each relay that
   has a holder. Each relay renews, adds and removes its own lease, and keeps those of the others as they are.
3. The relay renews all leases after a third of their length. If it cannot renew a lease, because the key ran out or
   belongs to another relay, it settles it: it creates the lease again, or gives the id up to the other relay. A lease
   that was not renewed for its length gets another token, because to other relays it has ended.
4. A single lease of a shared key does not run out in the engine. A relay that changes the key leaves out those that
   were not renewed for their length (`View.is_over`). The last relay deletes the key.
5. After an absence of the engine it settles every id, whether granted before or during the absence. If another relay
   has the key by now and they do not both share it, this relay yields, with one exception: the other relays, too, took
   or kept the id during the absence, and this one had a lease before it, older than theirs, if they had any.
6. An id is given up when all that its client sent to clients elsewhere is handed over: the token is valid until then.
7. A lost lease ends its sessions at once, with the reason `fenced`.
8. A lost lease or an unfinished claim leaves frames in queues, and perhaps a key. A background task removes them. No
   claim of the id begins here before that is done or the engine has failed to answer.
9. A session that a successor got from a relay of no realm, or of another one, has an id without a lease. The successor
   adopts it: it holds the id as if it had granted it while the engine was away.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from ..relay import CloseReason, Grant, LeaseState, Refusal, Refused, Registry, id_name, log
from ._engine import Engine, EngineAway
from ._lease import Lease
from ._uplink import NO_ANSWER, Uplink
from ._view import View
from ._wire import BadMessage, KeyValue, LeaseValue, decode_key, encode_ids, encode_key, key_of

TRIES = 32
"""How often a key is changed again because it changed meanwhile, before the connection counts as lost: as often as
there may be relays that share an id and renew it in the same moment."""
RESERVE = 1024
"""Bytes of the engine's max_payload that a key's value leaves: headers need some, and the numbers in it get longer."""


class Leases:
    """The leases of one relay.

    Attributes:
        tokens: the fencing token of each id, 0 if there is no lease.
        claims: how many claims were made.
    """

    def __init__(
        self,
        uplink: Uplink,
        view: View,
        registry: Registry,
        handed_over: Callable[[int], Awaitable[None]],
        forgotten: Callable[[Lease], None],
    ) -> None:
        """Make it without leases.

        Args:
            uplink: the connection to the engine.
            view: the leases of other relays.
            registry: the sessions here.
            handed_over: waits until no frame of an id is queued for elsewhere, and all that left them was published.
            forgotten: called when a lease is over.
        """
        self.tokens: list[int] = [0] * 256
        self.claims: int = 0
        self._uplink = uplink
        self._view = view
        self._registry = registry
        self._handed_over = handed_over
        self._forgotten = forgotten
        self._leases: dict[int, Lease] = {}
        self._clearing: dict[int, trio.Event] = {}

    def get(self, id: int) -> Lease | None:
        """Return the lease of `id`."""
        return self._leases.get(id)

    def new(self, id: int, grant: Grant, *, shared: bool) -> Lease:
        """Return a lease of `id` that is to be claimed; `add` takes it."""
        self.claims += 1
        return Lease(id, self.claims, grant, shared)

    def add(self, lease: Lease) -> None:
        """Take a lease that was claimed."""
        self._leases[lease.id] = lease
        self.tokens[lease.id] = lease.token

    # -- handover

    def capture(self) -> list[LeaseState]:
        """Describe the leases whose clients are there."""
        now = trio.current_time()
        return [
            LeaseState(
                id=lease.id,
                session=lease.session,
                token=lease.token,
                revision=lease.revision,
                former=lease.former,
                adopted=lease.adopted,
                renewed=lease.renewed,
                age=min(now - lease.renewed_at, self._uplink.config.lease),
            )
            for lease in self._leases.values()
            if not lease.leaving
        ]

    def restore(self, states: Iterable[LeaseState], claims: int) -> None:
        """Continue with the leases of a relay before this one; ids of sessions here that have none are adopted."""
        self.claims, now = claims, trio.current_time()
        described = {state.id: state for state in states}
        for id in self._registry.ids():
            session, state = self._registry.holder(id), described.get(id)
            assert session is not None
            lease = self.new(id, session.grant, shared=session.shared)
            lease.alone = not session.shared
            lease.adopted = True
            if state is not None:
                lease.session, lease.former, lease.adopted = state.session, state.former, state.adopted
                lease.token, lease.revision = state.token, state.revision
                lease.renewed, lease.renewed_at = state.renewed, now - state.age
            self.add(lease)

    # -- giving up

    def give_up(self, id: int) -> None:
        """Note that the last session that held `id` left, or was never registered."""
        lease = self._leases.get(id)
        if lease is not None and not lease.leaving and self._registry.holder(id) is None:
            lease.leaving = True
            self._take_away(lease, lambda: self._forget(lease))

    def clear(self, lease: Lease) -> None:
        """Clear away, in the background, what is left of a lease that this relay does not have; see `cleared`."""
        self._clearing[lease.id] = trio.Event()
        self._take_away(lease, lambda: self._clearing.pop(lease.id).set())

    def _take_away(self, lease: Lease, then: Callable[[], None]) -> None:
        if not self._uplink.start_soon(self._remove_last, lease, then):
            then()

    async def _remove_last(self, lease: Lease, then: Callable[[], None]) -> None:
        """Remove `lease` from its key when all that its sessions sent has left, and call `then`."""
        try:
            # The last bundle of this id goes before the deletion over the same connection. Another relay hears of the
            # deletion only after the engine took it, so LEFT comes after the last frame. Frames of a lost lease are
            # dropped as `fenced` meanwhile; under the token of the next session they would seem to be that one's.
            await self._handed_over(lease.id)
            async with lease.changing:
                engine = self._uplink.connected
                if engine is not None:
                    await self._remove(engine, lease)
        except EngineAway:
            pass  # the key runs out by itself
        finally:
            then()

    async def _remove(self, engine: Engine, lease: Lease) -> None:
        """Take `lease` out of its key, which ends with its last lease."""
        key, bounded = key_of(lease.id), self._uplink.bounded
        if lease.token and lease.alone and await bounded(engine.delete(key, lease.revision)):
            return
        for _ in range(TRIES):
            value, revision = await self._look(engine, lease.id)
            if not any(self._is_of(other, lease) for other in value.leases):
                return
            if others := self._others(lease.id, value):
                asked = engine.update(key, encode_key(KeyValue(shared=value.shared, leases=others)), revision)
            else:
                asked = engine.delete(key, revision)
            if await bounded(asked):
                return

    async def cleared(self, id: int) -> None:
        """Wait until there is no lease of `id`, and nothing left of one that is being cleared away."""
        while True:
            if (lease := self._leases.get(id)) is not None:
                await lease.gone.wait()
            elif (clearing := self._clearing.get(id)) is not None:
                await clearing.wait()
            else:
                return

    async def given_up(self) -> None:
        """Wait until there is no lease left."""
        for lease in list(self._leases.values()):
            await lease.gone.wait()

    # -- claiming

    async def create(self, engine: Engine, lease: Lease) -> bool:
        """Create `lease` in its key; return whether this relay has it now.

        Raises:
            EngineAway: the engine does not answer. The lease may have been created.
            Refused: so many relays share the id that the engine does not take its key.
        """
        if await self._write(engine, lease, (), 0):
            return True
        value, revision = await self._look(engine, lease.id)
        # What is this relay's in it is of an earlier session whose lease could not be removed: `cleared` said that
        # nothing here needs it. Writing over it gives this session a token of its own.
        others = self._others(lease.id, value)
        if not revision or not value.leases or (others and not (lease.shared and value.shared)):
            return False
        if len(self._value_of(lease, others)) + RESERVE > engine.max_payload:
            raise Refused(Refusal.FULL, f"{len(others)} relays share it, and the engine's max_payload allows no more")
        return await self._write(engine, lease, others, revision)

    # -- keeping

    async def renew(self, engine: Engine) -> bool:
        """Renew all leases; return whether that worked for each."""
        failed: list[int] = []

        async def renew_one(lease: Lease) -> None:
            try:
                async with lease.changing:
                    await self._settle(engine, lease)
            except EngineAway:
                failed.append(lease.id)

        try:
            await self._uplink.bounded(engine.ping())
        except EngineAway:
            return False
        async with trio.open_nursery() as nursery:
            for lease in list(self._leases.values()):
                nursery.start_soon(renew_one, lease)
        return not failed

    async def settle_all(self, engine: Engine) -> None:
        """Make sure after a new connection that each lease is this relay's; lose those that are not.

        Raises:
            EngineAway: that cannot be made sure of.
        """
        settled: set[Lease] = set()
        while set(self._leases.values()) - settled:
            settled |= set(self._leases.values())
            if not await self.renew(engine):
                raise EngineAway(self._uplink.reason or NO_ANSWER)

    async def _settle(self, engine: Engine, lease: Lease) -> None:
        for _ in range(TRIES):
            if lease.gone.is_set() or (lease.leaving and not lease.token):
                return
            # The usual case: the key has the revision that the last renewal gave it.
            if self._runs(lease) and lease.alone and await self._write(engine, lease, (), lease.revision):
                return
            value, revision = await self._look(engine, lease.id)
            ours = next((other for other in value.leases if self._is_of(other, lease)), None)
            others = self._others(lease.id, value)
            if others and not (lease.shared and value.shared):
                if not all(lease.goes_before(other) for other in others):
                    self.lose(lease, others[0].name)
                    return
                others = []
            if ours is not None and ours.renewed == lease.renewed:
                # The change was made, and its answer was lost; of one by a relay before this one the time is unknown.
                lease.renewed_at = max(lease.renewed_at, lease.asked_at)
            if ours is not None and self._runs(lease, ours.token):
                self._grant(lease, ours.token, revision)
            else:
                # The key is free, or belongs to relays that yield, or has no lease of this session that others still
                # know. It gets a new token in each case: other relays must see that a session ended, and drop frames
                # for it.
                lease.former = lease.former or lease.token
                lease.adopted = True
                self._grant(lease, 0, 0)
            if await self._write(engine, lease, others, revision):
                return
        raise EngineAway(f"the lease of {id_name(lease.id)} changes too often")

    def _runs(self, lease: Lease, token: int = 0) -> bool:
        """Return whether other relays still know `lease`, under its token or, if it has none yet, under `token`."""
        runs_out = lease.renewed_at + self._uplink.config.lease
        return bool(lease.token or token) and trio.current_time() < runs_out

    def reported(self, lease: Lease, value: KeyValue, revision: int) -> None:
        """Note what the engine reports of the key of `lease`, which this relay is not changing itself."""
        if revision <= lease.revision:
            return
        if any(self._is_of(other, lease) for other in value.leases):
            lease.revision, lease.alone = revision, len(value.leases) == 1
            return
        others = [other for other in value.leases if other.relay != self._uplink.nonce]
        if others and not (lease.shared and value.shared):
            self.lose(lease, others[0].name)

    def lose(self, lease: Lease, holder: str) -> None:
        """Note that another relay has the id of `lease`: close its sessions here."""
        sessions = self._registry.holders(lease.id)
        if sessions:
            log(logging.WARNING, "id lost to another relay", id=id_name(lease.id), relay=holder)
        for session in sessions:
            session.close(CloseReason.FENCED)
        self._forget(lease)
        self.clear(lease)

    def _grant(self, lease: Lease, token: int, revision: int) -> None:
        lease.token, lease.revision = token, revision
        if self._leases.get(lease.id) is lease:
            self.tokens[lease.id] = token

    def _forget(self, lease: Lease) -> None:
        if self._leases.get(lease.id) is lease:
            del self._leases[lease.id]
            self.tokens[lease.id] = 0
        if not lease.gone.is_set():
            lease.gone.set()
            self._forgotten(lease)

    def _is_of(self, value: LeaseValue, lease: Lease) -> bool:
        return (value.relay, value.session) == (self._uplink.nonce, lease.session)

    # -- the key

    async def _look(self, engine: Engine, id: int) -> tuple[KeyValue, int]:
        """Return the key of `id`, without leases if it has none, and its revision, 0 if it does not exist.

        Raises:
            EngineAway: the engine does not answer.
        """
        entry = await self._uplink.bounded(engine.read(key_of(id)))
        if entry is None:
            return _NO_LEASES, 0
        try:
            return decode_key(*entry), entry[1]
        except BadMessage:
            return _NO_LEASES, entry[1]  # no relay wrote this value, so it is no claim

    def _others(self, id: int, value: KeyValue) -> list[LeaseValue]:
        """Return the leases of other relays that a key has, without those that ran out."""
        nonce = self._uplink.nonce
        return [lease for lease in value.leases if lease.relay != nonce and not self._view.is_over(id, lease)]

    async def _write(self, engine: Engine, lease: Lease, others: Sequence[LeaseValue], revision: int) -> bool:
        """Set the key of `lease` to it and `others` if its revision is `revision`; return whether that was so.

        Raises:
            EngineAway: the engine does not answer. The key may have been set.
        """
        before = lease.renewed, lease.asked_at
        lease.renewed += 1
        lease.asked_at = asked_at = trio.current_time()
        key, value = key_of(lease.id), self._value_of(lease, others)
        asked = engine.update(key, value, revision) if revision else engine.create(key, value)
        written = await self._uplink.bounded(asked)
        if written:
            self._grant(lease, lease.token or written, written)
            lease.alone, lease.renewed_at = not others, asked_at
        else:
            lease.renewed, lease.asked_at = before
        return bool(written)

    def _value_of(self, lease: Lease, others: Sequence[LeaseValue]) -> bytes:
        holders = self._registry.holders(lease.id)
        rights = [session.to for session in holders] or [lease.grant.to]
        ours = LeaseValue(
            relay=self._uplink.nonce,
            name=self._uplink.name,
            session=lease.session,
            token=lease.token,
            renewed=lease.renewed,
            former=lease.former,
            adopted=lease.adopted,
            to=encode_ids(None if None in rights else frozenset().union(*(to for to in rights if to is not None))),
            clients=len(holders) or 1,
        )
        return encode_key(KeyValue(shared=lease.shared, leases=[*others, ours]))


_NO_LEASES = KeyValue(leases=[])
