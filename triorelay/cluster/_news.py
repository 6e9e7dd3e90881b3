"""What the engine delivers, read and passed on. What is none of ours is counted, told to the log, and forgotten."""

import logging
from typing import TYPE_CHECKING

import trio

from ..relay import Throttle
from ._view import seen_of
from ._wire import Batch, Credit, Garbage, Held, Question, decode, decode_lease, id_of, subject_of_id, subject_of_relay

if TYPE_CHECKING:
    from ._cluster import Cluster


class News:
    """The reader of one relay.

    Attributes:
        garbage: how many messages and keys were none of ours.
    """

    def __init__(self, cluster: "Cluster") -> None:
        self.garbage = 0
        self._cluster = cluster
        self._own_subject = subject_of_relay(cluster.config.realm, cluster.nonce)
        self._log: Throttle | None = None

    def key_changed(self, key: str, value: bytes | None, revision: int) -> None:
        """A lease came, was renewed, or was given up."""
        cluster = self._cluster
        try:
            id = id_of(key)
            lease = None if value is None else decode_lease(value)
            seen = None if lease is None or lease.relay == cluster.nonce else seen_of(id, revision, lease)
        except Garbage as garbage:
            self._note_garbage(f"key {key[:20]}", garbage)
            return
        with cluster.relay.exchange.round.step():
            cluster.view.revision = revision
            if seen is None:
                cluster.view.forget(id)
            else:
                cluster.view.hear(seen)
                ours = cluster.leases.get(id)
                if cluster.up and ours is not None and revision > ours.revision and not ours.changing.locked():
                    cluster.leases.lose(ours, seen.name)
            cluster.imports.go_on()

    def message(self, subject: str, payload: bytes) -> None:
        """Frames, credit, or a question about an id."""
        cluster = self._cluster
        try:
            message = decode(payload)
            if isinstance(message, Batch):
                if subject != subject_of_id(cluster.config.realm, message.destination):
                    raise Garbage("a batch under another id's subject")
                cluster.imports.receive(message)
                return
            if subject != self._own_subject:
                raise Garbage("a message for a relay under an id's subject")
        except Garbage as garbage:
            self._note_garbage(subject, garbage)
            return
        match message:
            case Credit():
                cluster.elsewhere.credit(message)
            case Question():
                cluster.claims.asked(message)
            case Held():
                cluster.claims.answered(message)

    def _note_garbage(self, where: str, garbage: Garbage) -> None:
        self.garbage += 1
        if self._log is None:
            self._log = Throttle(trio.current_time, interval=10)
        self._log.log(logging.WARNING, "cluster garbage", where=where, reason=str(garbage))
