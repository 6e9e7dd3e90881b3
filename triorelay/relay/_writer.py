"""Writes what a destination did not take at once, and decides whether the destination makes progress.

One task for each client that did not take everything directly, a child of its session's task, until it has. It alone
closes a destination for taking nothing.

Progress is a falling unsent count: the peer has read. Bytes that the kernel still had room for do not count, because a
client that reads nothing would make progress until that room is used up. The writer tries a blocked send again each
second, in small pieces, even if epoll reports no room: epoll reports a Unix socket writable only when three quarters of
its buffer are free, and for a reader of 4 kB/s that takes more than 25 s.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ..protocol import CloseReason, id_name
from ._connection import SMALL_PIECE
from ._log import Throttle
from ._outbox import Outbox, do_nothing
from ._round import Round
from ._session import Session

RETRY = 1.0
WAIT_LOGGED_AFTER = 1.0
"""Seconds after which the log says that a client waits for another."""


@contextmanager
def written_by(start_writer: Callable[[], None], outbox: Outbox) -> Iterator[None]:
    """Call `start_writer` when `outbox` has something for a writer, if that is within the block."""
    outbox.on_blocked = start_writer
    if outbox.busy:
        start_writer()
    try:
        yield
    finally:
        outbox.on_blocked = do_nothing  # the writers' nursery may be closed


async def write(session: Session, round: Round, *, stall_timeout: float, wait_log: Throttle) -> None:
    """Write what is in the session's outbox, each write a step of `round`, until nothing is, or cancelled.

    It closes a session that takes nothing for `stall_timeout` seconds, 0 for never, and logs which clients wait for it.
    """
    outbox, connection = session.outbox, session.connection
    unsent = connection.unsent()
    if session.progress_at is None:
        session.progress_at = trio.current_time()
    while outbox.busy:
        with trio.move_on_after(RETRY) as retry:
            await connection.wait_writable()
        now, before = trio.current_time(), unsent
        has_read = connection.unsent() < before
        with round.step():
            taken = outbox.write_more(SMALL_PIECE) if retry.cancelled_caught else outbox.write_more()
        unsent = connection.unsent()
        # If the kernel reports room by itself, the client has read.
        if has_read or (taken and not retry.cancelled_caught):
            session.progress_at = now
        elif now >= session.progress_at + (stall_timeout or float("inf")) and outbox.busy:
            session.close(CloseReason.SLOW_CONSUMER)
            await trio.lowlevel.checkpoint()
        report_waiting(outbox, now, wait_log)
    session.progress_at = None
    outbox.has_writer = False
    session.wake()


def report_waiting(outbox: Outbox, now: float, wait_log: Throttle, **facts: object) -> None:
    """Log, once each, which senders have waited for `outbox` for a while; `facts` are added."""
    for sender, _ in outbox.paused:
        waited = now - sender.waiting_since
        if waited >= WAIT_LOGGED_AFTER and not sender.wait_logged:
            sender.wait_logged = True
            wait_log.log(
                logging.WARNING,
                "client waits",
                id=id_name(sender.id),
                waits_for=id_name(outbox.id),
                **facts,
                seconds=round(waited, 1),
            )
