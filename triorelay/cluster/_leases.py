"""The ids that this relay holds among all of the realm: claimed, renewed, given up, and lost.

1. The revision by which a lease's key was created is its fencing token, for as long as the lease lasts, through all
   its renewals. A lease belongs to one session: another session of the same id gets another token.
2. The relay renews all leases after a third of their length. If it cannot renew a lease, because the key ran out or
   belongs to another relay, it settles it: it creates the key again, or gives the id up to the other relay.
3. After an absence of the engine it settles every id, whether granted before or during the absence. If another relay
   has the key by now, this relay yields, with one exception: the other relay, too, took or kept the id during the
   absence, and this one had a lease before it, older than the other's, if that had one.
4. An id is given up when all that its client sent to clients elsewhere is handed over: the token is valid until then.
5. A lost lease ends its session at once, with the reason `fenced`.
6. A lost lease or an unfinished claim leaves frames in queues, and perhaps a key. A background task removes them. No
   claim of the id begins here before that is done or the engine has failed to answer.
7. A successor continues with the leases of the relay before it, under the same nonce, so other relays notice
   nothing. It settles them as after a loss of the connection.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio

from ..relay import CloseReason, Grant, LeaseState, Registry, id_name, log
from ._engine import Engine, EngineAway
from ._uplink import NO_ANSWER, Uplink
from ._wire import BadMessage, LeaseValue, decode_lease, encode_ids, encode_lease, key_of

TRIES = 8
"""How often a lease is settled again because its key changed meanwhile, before the connection counts as lost."""


class Lease:
    """One id of this relay, for one session.

    Attributes:
        id: the id.
        session: numbers this relay's claims.
        grant: what its client may do.
        asked: whether the engine was asked to create its key.
        token: the fencing token; 0 while there is no lease.
        revision: the key's newest revision that is known.
        former: the token of the first lease that ran out while the engine was away; 0 for none.
        adopted: whether the id was taken or kept while the engine was away.
        leaving: the client left.
        gone: set when the id is given up or lost.
        changing: held while the key is being changed.
    """

    def __init__(self, id: int, session: int, grant: Grant) -> None:
        self.id = id
        self.session = session
        self.grant = grant
        self.asked = False
        self.token = 0
        self.revision = 0
        self.former = 0
        self.adopted = False
        self.leaving = False
        self.gone: trio.Event = trio.Event()
        self.changing: trio.Lock = trio.Lock()


class Leases:
    """The leases of one relay.

    Attributes:
        tokens: the fencing token of each id, 0 if there is no lease.
    """

    def __init__(
        self,
        uplink: Uplink,
        registry: Registry,
        handed_over: Callable[[int], Awaitable[None]],
        forgotten: Callable[[Lease], None],
    ) -> None:
        """Make it without leases.

        Args:
            uplink: the connection to the engine.
            registry: the sessions here.
            handed_over: waits until no frame of an id is queued for elsewhere, and all that left them was published.
            forgotten: called when a lease is over.
        """
        self.tokens: list[int] = [0] * 256
        self._uplink = uplink
        self._registry = registry
        self._handed_over = handed_over
        self._forgotten = forgotten
        self._leases: dict[int, Lease] = {}
        self._clearing: dict[int, trio.Event] = {}
        self._count = 0

    def get(self, id: int) -> Lease | None:
        """Return the lease of `id`."""
        return self._leases.get(id)

    def __len__(self) -> int:
        return len(self._leases)

    def new(self, id: int, grant: Grant) -> Lease:
        """Return a lease of `id` that is to be claimed; `add` takes it."""
        self._count += 1
        return Lease(id, self._count, grant)

    def add(self, lease: Lease) -> None:
        """Take a lease that was claimed."""
        self._leases[lease.id] = lease
        self.tokens[lease.id] = lease.token

    # -- handover

    @property
    def claims(self) -> int:
        """How many claims were made."""
        return self._count

    def capture(self) -> list[LeaseState]:
        """Describe the leases whose clients are there."""
        return [
            LeaseState(
                id=lease.id,
                session=lease.session,
                token=lease.token,
                revision=lease.revision,
                former=lease.former,
                adopted=lease.adopted,
            )
            for lease in self._leases.values()
            if not lease.leaving
        ]

    def restore(self, states: Iterable[LeaseState], claims: int) -> None:
        """Continue with the leases of a relay before this one; ids of sessions here that have none are adopted."""
        self._count = claims
        described = {state.id: state for state in states}
        for id in self._registry.ids():
            session, state = self._registry.holder(id), described.get(id)
            assert session is not None
            lease = self.new(id, session.grant)
            lease.adopted = True
            if state is not None:
                lease.session, lease.former, lease.adopted = state.session, state.former, state.adopted
                lease.token, lease.revision = state.token, state.revision
            self.add(lease)

    # -- giving up

    def give_up(self, id: int) -> None:
        """Note that the session that held `id` left, or was never registered."""
        lease = self._leases.get(id)
        if lease is not None and not lease.leaving:
            lease.leaving = True
            if not self._uplink.start_soon(self._give_up, lease):
                self._forget(lease)

    async def _give_up(self, lease: Lease) -> None:
        try:
            await self._handed_over(lease.id)
            async with lease.changing:
                engine = self._uplink.connected
                if engine is not None and lease.token and not lease.gone.is_set():
                    # The last bundle of this id goes before the deletion over the same connection. Another relay hears
                    # of the deletion only after the engine took it, so LEFT comes after the last frame.
                    await self._uplink.bounded(engine.delete(key_of(lease.id), lease.revision))
        except EngineAway:
            pass  # the key runs out by itself
        finally:
            self._forget(lease)

    def clear(self, lease: Lease) -> None:
        """Clear away, in the background, what is left of a lease that this relay does not have; see `cleared`."""
        self._clearing[lease.id] = trio.Event()
        if not self._uplink.start_soon(self._clear, lease):
            self._clearing.pop(lease.id).set()

    async def _clear(self, lease: Lease) -> None:
        try:
            # Frames of its session may still be queued. They are dropped as `fenced` while the id has no token; under
            # the token of the next session they would seem to be that one's.
            await self._handed_over(lease.id)
            engine = self._uplink.connected
            if engine is not None:
                await self._uplink.bounded(self._take_back(engine, lease))
        except EngineAway:
            pass  # the key runs out by itself
        finally:
            self._clearing.pop(lease.id).set()

    async def _take_back(self, engine: Engine, lease: Lease) -> None:
        entry = await engine.read(key_of(lease.id))
        value = _read(entry)
        if entry is not None and value is not None and self._is_of(value, lease):
            await engine.delete(key_of(lease.id), entry[1])

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
        """Create the key of `lease`; return whether this relay has it now.

        Raises:
            EngineAway: the engine does not answer. The key may have been created.
        """
        key, value = key_of(lease.id), self.value_of(lease)
        revision = await self._uplink.bounded(engine.create(key, value))
        if not revision:
            entry = await self._uplink.bounded(engine.read(key))
            other = _read(entry)
            if entry is None or other is None or other.relay != self._uplink.nonce:
                return False
            # It is this relay's, of an earlier session whose key could not be deleted: `cleared` said that nothing here
            # needs it. Overwriting gives the key a new revision, and so this session a token of its own.
            revision = await self._uplink.bounded(engine.update(key, value, entry[1]))
        lease.token = lease.revision = revision
        return bool(revision)

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
        key, bounded = key_of(lease.id), self._uplink.bounded
        for _ in range(TRIES):
            if lease.gone.is_set() or (lease.leaving and not lease.token):
                return
            if lease.token:
                # The usual case: the key has the revision that the last renewal gave it.
                revision = await bounded(engine.update(key, self.value_of(lease), lease.revision))
                if revision:
                    lease.revision = revision
                    return
            entry = await bounded(engine.read(key))
            other = _read(entry)
            if entry is not None and other is not None and self._is_of(other, lease):
                # An answer was lost, and the change was made: continue from its revision. The token is in the
                # value, except in the one that created the key.
                self._grant(lease, other.token or entry[1], entry[1])
                continue
            ours = other is not None and other.relay == self._uplink.nonce
            if other is not None and not ours and not _is_senior(lease, other):
                self.lose(lease, other.name)
                return
            # The key is free, or belongs to an earlier session of this relay, or to a relay that yields. The new
            # session gets a new token in each case: other relays must see that a session ended, and drop frames for it.
            lease.former = lease.former or lease.token
            lease.adopted = True
            self._grant(lease, 0, 0)
            value = self.value_of(lease)
            asked = engine.create(key, value) if entry is None else engine.update(key, value, entry[1])
            if revision := await bounded(asked):
                self._grant(lease, revision, revision)
                return
        raise EngineAway(f"the lease of {id_name(lease.id)} changes too often")

    def lose(self, lease: Lease, holder: str) -> None:
        """Note that another relay has the id of `lease`: close the session here."""
        session = self._registry.holder(lease.id)
        if session is not None:
            log(logging.WARNING, "id lost to another relay", id=id_name(lease.id), relay=holder)
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

    def value_of(self, lease: Lease) -> bytes:
        """Return what the key of `lease` is set to."""
        session = self._registry.holder(lease.id)
        value = LeaseValue(
            relay=self._uplink.nonce,
            name=self._uplink.name,
            session=lease.session,
            token=lease.token,
            former=lease.former,
            adopted=lease.adopted,
            to=encode_ids(lease.grant.to if session is None else session.to),
        )
        return encode_lease(value)


def _read(entry: tuple[bytes, int] | None) -> LeaseValue | None:
    try:
        return None if entry is None else decode_lease(entry[0])
    except BadMessage:
        return None  # no relay wrote this value, so it is no claim


def _is_senior(lease: Lease, other: LeaseValue) -> bool:
    """Return whether `lease` has priority over `other`, which has its key now, because it is older than the absence."""
    former = lease.former or lease.token
    return other.adopted and bool(former) and (not other.former or former < other.former)
