"""The task of one client, from its id to its end. It owns the connection.

1. It arms the pump, which then reads for it. It continues when the session is woken: by the client's end of file, a
   full destination, a broken connection, the drain.
2. The writer (`_writer`) is its child, while the client has not taken everything.
3. `Session.close` cancels this task's scope and nothing else.
4. However the session ends, `_tear_down` runs without a checkpoint. It drops the session's own frames that wait for
   room as `source_closed`, and frames for it with the reason of its end; then it frees the id and closes the
   connection.
"""

from functools import partial

import trio

from ..protocol import LARGE_CHUNK, CloseReason, DropReason
from ._connection import receive_some
from ._relay import Relay
from ._session import Session
from ._writer import write, written_by

HUNG_UP_CHUNKS = 16
"""Reads: more than a Unix socket holds for a client that has hung up. After so many its task continues."""


async def run_session(relay: Relay, session: Session) -> None:
    """Live until the client leaves or is closed. The id is taken before, and free afterwards."""
    write_all = partial(write, stall_timeout=relay.config.stall_timeout, wait_log=relay.wait_log)
    try:
        async with trio.open_nursery() as nursery:
            # One scope, not two: each takes 0.7 KB. The session may have been cancelled before this task began.
            if session.scope.cancel_called:
                nursery.cancel_scope.cancel()
            session.scope = nursery.cancel_scope
            start_writer = partial(nursery.start_soon, write_all, session, relay.exchange.round)
            with written_by(start_writer, session.outbox):
                await _read(relay, session)
                if relay.draining:
                    await _finish_drain(relay, session)
                elif session.ended is CloseReason.LEFT:
                    await _finish(relay, session)
            nursery.cancel_scope.cancel()
    except Exception:
        session.ended = CloseReason.ERROR
        raise
    finally:
        _tear_down(relay, session)


async def _read(relay: Relay, session: Session) -> None:
    while True:
        session.woken = trio.Event()
        if session.waits:
            await session.woken.wait()
        elif session.rest:
            # At most so many at a time, so that clients that wait for the pump never wait for all of them.
            async with relay.resuming:
                with relay.exchange.round.step():
                    relay.router.take(session)
                await trio.lowlevel.checkpoint()
        elif session.ended is not None or relay.draining:
            return
        elif not session.outbox.broken:
            with relay.pump.reading(session):
                await session.woken.wait()
        elif session.connection.input_waits():
            # The connection is broken, but what its client sent before still counts.
            with relay.exchange.round.step():
                relay.router.receive(session)
            await trio.lowlevel.checkpoint()
        else:
            session.ended = CloseReason.RESET


async def _finish(relay: Relay, session: Session) -> None:
    """The client shut its sending side: free its id, then write what is queued for it."""
    relay.router.finish(session, DropReason.SOURCE_CLOSED)
    relay.exchange.registry.free(session)
    if session.left_since is None:
        session.left_since = trio.current_time()
    with trio.move_on_at(session.left_since + (relay.config.stall_timeout or float("inf"))) as patience:
        await _queue_written(relay, session)
    if patience.cancelled_caught:
        session.ended = CloseReason.SLOW_CONSUMER
    session.connection.shut_sending()


async def _finish_drain(relay: Relay, session: Session) -> None:
    """The relay shuts down: write what is queued, then wait until the client has closed too."""
    await relay.all_placed()
    await _queue_written(relay, session)
    session.connection.shut_sending()
    if relay.remote is not None:
        # Nothing of the session is relayed any more, so its client may have the id at another relay.
        relay.exchange.registry.free(session)
    while session.ended is None:
        chunk = await receive_some(session.connection, LARGE_CHUNK)
        if not chunk:
            session.ended = CloseReason.DRAINING
        relay.router.discard(session, chunk, DropReason.DRAINING)


async def _queue_written(relay: Relay, session: Session) -> None:
    while True:
        session.woken = trio.Event()
        relay.exchange.round.end()
        session.outbox.flush()
        if session.outbox.broken or not (session.flushes or session.outbox.queued_bytes):
            return
        await session.woken.wait()


def _tear_down(relay: Relay, session: Session) -> None:
    exchange = relay.exchange
    reason = session.ended = session.ended or CloseReason.DRAINING
    unplaced = DropReason.DRAINING if reason is CloseReason.DRAINING else DropReason.SOURCE_CLOSED
    for outbox, frames in session.give_up_waiting():
        if frames:
            exchange.drop(session.id, outbox.id, unplaced, len(frames) >> 1)
    relay.router.finish(session, unplaced)
    # Where drops know the reason of the end, it is theirs.
    session.outbox.discard(DropReason.__members__.get(reason.name, DropReason.PEER_GONE))
    exchange.registry.free(session)
    relay.forget(session, reason)
    session.connection.close()


def finish_hung_up(relay: Relay, session: Session) -> None:
    """Route what the client of `session` sent before it hung up, and free its id once that is all."""
    with relay.exchange.round.step():
        session.hang_up()
        for _ in range(HUNG_UP_CHUNKS):
            if session.ended is not None or not relay.router.take(session):
                break
            if not (session.connection.input_waits() and relay.router.read(session)):
                break
        if session.ended in (CloseReason.LEFT, CloseReason.RESET) and not session.blocked:
            relay.router.finish(session, DropReason.SOURCE_CLOSED)
            if session.ended is CloseReason.RESET:
                session.outbox.discard(DropReason.PEER_GONE)
            relay.exchange.registry.free(session)
        session.wake()
