"""Claims: how a client here gets an id that is held once among all relays.

1. An id is claimed by creating its key: the engine lets one do that. Before that the relay subscribes to the id's
   subject, so that nothing that is sent to the lease is missed.
2. A key that is there belongs to a client elsewhere. Its relay is asked whether the client is still there; while no
   answer comes, and until the lease runs out, the claim waits.
3. While the engine is away, and where it goes away meanwhile, ids are granted here alone, or refused, as configured.
4. A claim that is given up midway may have created the key already. That is looked after, and until it is no other
   claim of the id begins here: it would lose its subscription or its key to that.
"""

from typing import TYPE_CHECKING

import trio

from ..relay import CloseReason, Grant, Refusal, Refused
from ._engine import Engine, EngineAway, no_matter
from ._leases import Lease, value_of
from ._wire import Held, Question, encode, key_of, subject_of_id, subject_of_relay

if TYPE_CHECKING:
    from ._cluster import Cluster

ASK_AGAIN = 0.5
"""Seconds after which a claim that waits is tried again, in case that what it waits for was missed."""


class Claims:
    """The claims of one relay, its own and those that ask for its ids."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._answered: dict[tuple[int, int], trio.Event] = {}

    async def claim(self, id: int, grant: Grant, patience: float) -> None:
        """Claim `id`, for `patience` seconds at most; see `Remote.claim`."""
        cluster, lease = self._cluster, Lease(id, grant)
        with trio.move_on_after(patience):
            await cluster.leases.cleared(id)
            engine = cluster.connected_engine
            if engine is not None and await self._won(engine, lease):
                cluster.leases.add(lease)
                return
            if cluster.config.fallback == "refuse":
                raise Refused(Refusal.UNAVAILABLE, "the engine is away, and so it cannot be decided who holds the id")
            lease.adopted = True
            cluster.leases.add(lease)
            return
        raise Refused(Refusal.TAKEN, "another relay of the realm holds it")

    async def _won(self, engine: Engine, lease: Lease) -> bool:
        """Create the key, or wait for it; return whether that worked, False where the engine went away."""
        try:
            await self._cluster.bounded(engine.subscribe(self._subject(lease.id)))
            while not await self._create(engine, lease):
                await self._wait_for(engine, lease)
        except EngineAway:
            return False
        except BaseException:
            self._cluster.leases.withdraw(engine, lease.id)
            raise
        if self._cluster.connected_engine is engine:
            return True
        lease.token = lease.revision = 0
        return False

    async def _create(self, engine: Engine, lease: Lease) -> bool:
        view = self._cluster.view
        if view.get(lease.id) is not None or view.may_come_back(lease.id):
            return False
        created = engine.create(key_of(lease.id), value_of(self._cluster, lease))
        lease.token = lease.revision = await self._cluster.bounded(created)
        return bool(lease.token)

    async def _wait_for(self, engine: Engine, lease: Lease) -> None:
        """Wait until `lease` can be tried for again.

        Raises:
            Refused: the holder's client is there and stays.
        """
        cluster = self._cluster
        changed = cluster.view.changed(lease.id)
        seen = cluster.view.get(lease.id)
        if seen is None:
            with trio.move_on_after(ASK_AGAIN / 10):
                await changed.wait()
            return
        replaces = cluster.relay.config.duplicate == "replace" and lease.grant.portable
        principal = lease.grant.principal if replaces else ""
        answered = self._answered.setdefault((lease.id, seen.token), trio.Event())
        question = Question(cluster.nonce, lease.id, seen.token, principal)
        engine.publish(subject_of_relay(cluster.config.realm, seen.relay), encode(question), no_matter)
        with trio.move_on_after(ASK_AGAIN):
            async with trio.open_nursery() as nursery:

                async def wait_for(event: trio.Event) -> None:
                    await event.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(wait_for, changed)
                nursery.start_soon(wait_for, answered)
        self._answered.pop((lease.id, seen.token), None)
        if answered.is_set():
            raise Refused(Refusal.TAKEN, f"a client of the relay {seen.name} holds it")

    def asked(self, question: Question) -> None:
        """Another relay claims an id that this one holds."""
        cluster = self._cluster
        lease, session = cluster.leases.get(question.id), cluster.relay.exchange.registry.holder(question.id)
        if lease is None or lease.token != question.token or session is None or session.connection.hung_up():
            return  # it is leaving: the claim waits for that
        replaced = lease.grant.portable and lease.grant.principal == question.principal != ""
        if replaced and cluster.relay.config.duplicate == "replace":
            session.close(CloseReason.REPLACED)
        elif cluster.connected_engine is not None:
            held = encode(Held(cluster.nonce, question.id, question.token))
            cluster.connected_engine.publish(subject_of_relay(cluster.config.realm, question.relay), held, no_matter)

    def answered(self, held: Held) -> None:
        """The holder of an id that this relay claims keeps it."""
        answered = self._answered.get((held.id, held.token))
        if answered is not None:
            answered.set()

    def _subject(self, id: int) -> str:
        return subject_of_id(self._cluster.config.realm, id)
