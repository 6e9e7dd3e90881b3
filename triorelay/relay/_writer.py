"""Writing what a destination did not take at once, and judging whether it takes anything.

One task a client, a child of its session's. It has work only when the outbox could not hand everything over directly,
and it alone closes a destination for taking nothing.

Progress is a byte that the kernel took, or its unsent count falling. A blocked send is tried again each second,
whatever the system says, and in small pieces then: epoll reports a Unix socket writable only when three quarters of
its buffer are free, and stays silent for over 25 s about a reader of 4 kB/s.
"""

import logging
from typing import TYPE_CHECKING

import trio

from ..protocol import CloseReason, id_name
from ._connection import SMALL_PIECE

if TYPE_CHECKING:
    from ._relay import Relay
    from ._session import Session

RETRY = 1.0
WAIT_TOLD_AFTER = 1.0
"""Seconds after which the log says that a client waits for another."""


async def write(relay: "Relay", session: "Session") -> None:
    """Write the batches of the session's outbox until it is discarded, or cancelled."""
    async for _ in session.outbox.batches:
        await _write_batch(relay, session)
        session.outbox.writer_rests()
        session.wake()


async def _write_batch(relay: "Relay", session: "Session") -> None:
    outbox, connection = session.outbox, session.connection
    stall = relay.config.stall_timeout or float("inf")
    unsent = connection.unsent()
    deadline = trio.current_time() + stall
    while outbox.busy:
        with trio.move_on_after(RETRY) as retry:
            await connection.wait_writable()
        with relay.step():
            taken = outbox.write_more(SMALL_PIECE) if retry.cancelled_caught else outbox.write_more()
        now, before, unsent = trio.current_time(), unsent, connection.unsent()
        if taken or unsent < before:
            deadline = now + stall
        elif now >= deadline:
            session.close(CloseReason.SLOW_CONSUMER)
            await trio.lowlevel.checkpoint()
        _tell_who_waits(relay, session, now)


def _tell_who_waits(relay: "Relay", session: "Session", now: float) -> None:
    for sender, _ in session.outbox.paused:
        waited = now - sender.waiting_since
        if waited >= WAIT_TOLD_AFTER and not sender.wait_told:
            sender.wait_told = True
            relay.wait_log.log(
                logging.WARNING,
                "client waits",
                id=id_name(sender.id),
                waits_for=id_name(session.id),
                seconds=round(waited, 1),
            )
