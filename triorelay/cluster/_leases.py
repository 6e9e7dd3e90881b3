"""The ids that this relay holds among all of the realm: claimed, renewed, given up, and lost.

1. The revision by which a lease's key was created is its fencing token, for as long as the lease lasts, through all
   its renewals.
2. All leases are renewed at a third of their length. A lease that cannot be renewed, because the key ran out or is
   another's, is settled: created again, or given up to whom it belongs to by now.
3. What was granted while the engine was away is settled on return, like what was held before. Whoever finds the key
   taken meanwhile yields, with one exception: the other relay, too, took or kept the id while the engine was away, and
   this one had a lease before that, an older one than the other's, if that had any.
4. An id is given up when all that its client sent to clients elsewhere is handed over: the token is good until then.
5. A lease that is lost ends its session at once, with the reason `fenced`.
6. What a lost lease or an unfinished claim leaves with the engine, its subscription and perhaps its key, is taken back
   on the side. No claim of the id begins here before that is done or the engine has failed to answer.
"""

import logging
from typing import TYPE_CHECKING

import trio

from ..relay import CloseReason, Countdown, Grant, id_name, log
from ._engine import Engine, EngineAway
from ._wire import Garbage, LeaseValue, decode_lease, encode_ids, encode_lease, key_of, subject_of_id

if TYPE_CHECKING:
    from ._cluster import Cluster

TRIES = 8
"""How often a lease is settled anew because its key changed meanwhile, before the connection counts as lost."""


class Lease:
    """One id of this relay.

    Attributes:
        id: the id.
        grant: what its client may do.
        token: the fencing token; 0 while there is no lease.
        revision: the key's newest revision that is known.
        former: the token of the first lease that ran out while the engine was away; 0 for none.
        adopted: whether the id was taken or kept while the engine was away.
        leaving: the client left.
        gone: set when the id is given up or lost.
        changing: held while the key is being changed.
    """

    def __init__(self, id: int, grant: Grant) -> None:
        self.id = id
        self.grant = grant
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
        tokens: the fencing token of each id, 0 where there is no lease.
    """

    def __init__(self, cluster: "Cluster") -> None:
        self.tokens: list[int] = [0] * 256
        self._cluster = cluster
        self._leases: dict[int, Lease] = {}
        self._withdrawing: dict[int, trio.Event] = {}

    def get(self, id: int) -> Lease | None:
        """Return the lease of `id`."""
        return self._leases.get(id)

    def __len__(self) -> int:
        return len(self._leases)

    # -- giving up

    def give_up(self, id: int) -> None:
        """The session that held `id` left, or was never registered."""
        lease = self._leases.get(id)
        if lease is not None and not lease.leaving:
            lease.leaving = True
            if not self._cluster.start_soon(self._give_up, lease):
                self._forget(lease)

    async def _give_up(self, lease: Lease) -> None:
        handed_over = trio.Event()
        Countdown(lease.id, self._cluster.outboxes, handed_over.set)
        await handed_over.wait()
        async with lease.changing:
            engine = self._cluster.connected_engine
            if engine is not None and lease.token and not lease.gone.is_set():
                try:
                    await self._cluster.bounded(engine.delete(key_of(lease.id), lease.revision))
                    await self._cluster.bounded(engine.unsubscribe(self._subject(lease.id)))
                except EngineAway:
                    pass  # the key runs out by itself
        self._forget(lease)

    def withdraw(self, engine: Engine, id: int) -> None:
        """Take back, on the side, what is left with `engine` of an id that has no lease here; see `cleared`."""
        self._withdrawing[id] = trio.Event()
        if not self._cluster.start_soon(self._withdraw, engine, id):
            self._withdrawing.pop(id).set()

    async def _withdraw(self, engine: Engine, id: int) -> None:
        try:
            await self._cluster.bounded(self._take_back(engine, id))
        except EngineAway:
            pass  # the key runs out by itself, and the subscription ends with the connection
        finally:
            self._withdrawing.pop(id).set()

    async def _take_back(self, engine: Engine, id: int) -> None:
        key = key_of(id)
        entry = await engine.read(key)
        value = _read(entry)
        if entry is not None and value is not None and value.relay == self._cluster.nonce:
            await engine.delete(key, entry[1])
        await engine.unsubscribe(self._subject(id))

    async def cleared(self, id: int) -> None:
        """Wait until there is no lease of `id`, and nothing left of one with the engine that is being taken back."""
        while True:
            if (lease := self._leases.get(id)) is not None:
                await lease.gone.wait()
            elif (withdrawing := self._withdrawing.get(id)) is not None:
                await withdrawing.wait()
            else:
                return

    async def given_up(self) -> None:
        """Wait until there is no lease left."""
        for lease in list(self._leases.values()):
            await lease.gone.wait()

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

        if not self._leases:
            try:
                await self._cluster.bounded(engine.ping())
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
        while unsettled := [lease for lease in self._leases.values() if lease not in settled]:
            for lease in unsettled:
                if not lease.leaving:
                    await self._cluster.bounded(engine.subscribe(self._subject(lease.id)))
            settled |= set(unsettled)
            if not await self.renew(engine):
                raise EngineAway("it does not answer in time")

    async def _settle(self, engine: Engine, lease: Lease) -> None:
        key = key_of(lease.id)
        for _ in range(TRIES):
            if lease.gone.is_set() or (lease.leaving and not lease.token):
                return
            if lease.token:
                renewed = engine.update(key, value_of(self._cluster, lease), lease.revision)
                revision = await self._cluster.bounded(renewed)
                if revision:
                    lease.revision = revision
                    return
            entry = await self._cluster.bounded(engine.read(key))
            other = _read(entry)
            if entry is not None and other is not None and other.relay == self._cluster.nonce:
                self._grant(lease, other.token or entry[1], entry[1])
                continue
            if other is not None and not _is_senior(lease, other):
                self.lose(lease, other.name)
                return
            lease.former = lease.former or lease.token
            lease.adopted = True
            self._grant(lease, 0, 0)
            value = value_of(self._cluster, lease)
            asked = engine.create(key, value) if entry is None else engine.update(key, value, entry[1])
            if revision := await self._cluster.bounded(asked):
                self._grant(lease, revision, revision)
                return
        raise EngineAway(f"the lease of {id_name(lease.id)} changes too often")

    def lose(self, lease: Lease, holder: str) -> None:
        """Another relay has the id of `lease`: close the session here."""
        session = self._cluster.relay.exchange.registry.holder(lease.id)
        self._forget(lease)
        engine = self._cluster.engine_or_none
        if engine is not None:
            self.withdraw(engine, lease.id)
        if session is not None:
            log(logging.WARNING, "id lost to another relay", id=id_name(lease.id), relay=holder)
            session.close(CloseReason.FENCED)

    def add(self, lease: Lease) -> None:
        """Take a lease that was claimed."""
        self._leases[lease.id] = lease
        self.tokens[lease.id] = lease.token

    def _grant(self, lease: Lease, token: int, revision: int) -> None:
        lease.token, lease.revision = token, revision
        if self._leases.get(lease.id) is lease:
            self.tokens[lease.id] = token

    def _forget(self, lease: Lease) -> None:
        if self._leases.get(lease.id) is lease:
            del self._leases[lease.id]
            self.tokens[lease.id] = 0
        self._cluster.imports.session_left(lease.token)
        lease.gone.set()

    def _subject(self, id: int) -> str:
        return subject_of_id(self._cluster.config.realm, id)


def value_of(cluster: "Cluster", lease: Lease) -> bytes:
    """Return what the key of `lease` is set to."""
    session = cluster.relay.exchange.registry.holder(lease.id)
    value = LeaseValue(
        relay=cluster.nonce,
        name=cluster.name,
        token=lease.token,
        former=lease.former,
        adopted=lease.adopted,
        to=encode_ids(lease.grant.to if session is None else session.to),
    )
    return encode_lease(value)


def _read(entry: tuple[bytes, int] | None) -> LeaseValue | None:
    try:
        return None if entry is None else decode_lease(entry[0])
    except Garbage:
        return None  # whoever wrote it has no claim


def _is_senior(lease: Lease, other: LeaseValue) -> bool:
    """Return whether `lease` goes before `other`, which has its key by now, because it was there before the absence."""
    former = lease.former or lease.token
    return other.adopted and bool(former) and (not other.former or former < other.former)
