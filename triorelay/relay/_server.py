"""The task tree of a relay, and its end.

    serve
    └ root nursery             services, the pump, the hold's clock: until everything else has ended
      └ sessions nursery       one task a client; the drain gives it a deadline
        └ listeners nursery    one task a listener; the drain ends it first

The drain has one deadline for all of its steps. The relay closes its listeners, refuses sessions without an id, places
the frames that it has read, and writes its queues. Then it shuts its sending side towards each client, and reads until
the client does the same, because closing a connection with unread input would discard what the kernel still holds for
the client. Only then it closes. Frames left at the deadline are counted as dropped.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import trio

from .._liveness import INTERVAL
from ..protocol import CloseReason, DropReason
from ._admission import Admission
from ._config import Config
from ._listeners import Listener, SocketListener, open_listeners, raise_descriptor_limit
from ._log import log
from ._pump import EpollPoller, Poller, Pump
from ._reachable import keep_reachable
from ._relay import Relay, Remote, Service

GIVING_UP_IDS = 0.5
"""Seconds that giving up ids among other relays may take, however long the rest of the drain took."""


async def serve(
    config: Config,
    *,
    services: Sequence[Service] = (),
    remote: Remote | None = None,
    sockets: Sequence[socket.socket] = (),
    begin: Callable[[Relay], None] | None = None,
    task_status: trio.TaskStatus[Relay] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a relay until its `drain` is called and done, or until cancelled.

    Args:
        config: the settings.
        services: tasks beside the relay, started before it listens and ended after its drain.
        remote: the other relays that it acts as one with; run like a service.
        sockets: stream sockets that already listen. One at an address that `config` names takes the place of what would
            be opened there; the others are listened on without TLS. They are closed, their paths never unlinked.
        begin: called with the relay when all listeners are open and services run, in the step before it serves.
        task_status: gets the `Relay` once clients can connect.

    Raises:
        ConfigError: an address cannot be listened on, a file cannot be read.

    Cancelled closes every connection at once; what was queued counts as dropped. Sockets, socket files and
    connections are closed by this function, however it ends.
    """
    raise_descriptor_limit()
    with ExitStack() as given:
        for sock in sockets:
            given.enter_context(sock)
        relay = Relay(config, remote)
        with open_listeners(config, sockets) as listeners:
            await run_relay(relay, listeners, services, EpollPoller, begin=begin, task_status=task_status)
    log(logging.INFO, "stopped")


async def run_relay(
    relay: Relay,
    listeners: Sequence[Listener],
    services: Sequence[Service],
    make_poller: Callable[[], Poller],
    *,
    begin: Callable[[Relay], None] | None = None,
    task_status: trio.TaskStatus[Relay] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run `relay` with these `listeners`, as `serve` does."""
    relay.addresses = [listener.address for listener in listeners]
    relay.close_listeners = [listener.close for listener in listeners]
    poller, hellos = make_poller(), make_poller()
    try:
        async with trio.open_nursery() as root:
            relay.pump = Pump(relay.router, relay.exchange.round, poller)
            root.start_soon(relay.pump.run)
            if any(address.startswith(("tcp:", "tls:")) for address in relay.addresses):
                root.start_soon(_close_silent, relay)
            if relay.exchange.hold.frames:
                root.start_soon(relay.exchange.hold.expire_forever)
            for service in services:
                await root.start(service.run, relay)
            if begin is not None:
                begin(relay)
            relay.in_charge.set()
            if relay.remote is not None:
                # An old relay has ended before this, so that two never act under one name in a realm.
                await root.start(relay.remote.run, relay)
            async with trio.open_nursery() as sessions:
                admission = Admission(relay, sessions, hellos)
                relay.router.accept_waiting = [partial(listener.accept_waiting, admission) for listener in listeners]
                # At the start there are sessions only if another relay handed them over.
                for session in relay.exchange.sessions:
                    admission.resume(session)
                handed_over, relay.arrivals = relay.arrivals, {}
                for arrival in handed_over:
                    admission.enter(arrival.connection, arrival.said)
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(admission.read_hellos)
                    for listener in listeners:
                        accepting.start_soon(listener.accept_forever, admission)
                        if isinstance(listener, SocketListener) and listener.file and listener.file.can_be_lost:
                            replace = partial(listener.replace, admission)
                            accepting.start_soon(keep_reachable, listener.file, replace, relay.unreachable)
                    task_status.started(relay)
                    await relay.drain_asked.wait()
                    accepting.cancel_scope.cancel()
                deadline = trio.current_time() + (relay.config.drain_timeout or float("inf"))
                sessions.cancel_scope.deadline = deadline
            if relay.remote is not None:
                with trio.CancelScope(deadline=max(deadline, trio.current_time() + GIVING_UP_IDS)):
                    await relay.remote.leave()
            root.cancel_scope.cancel()
    finally:
        relay.exchange.hold.end(DropReason.DRAINING)
        hellos.close()
        poller.close()


async def _close_silent(relay: Relay) -> None:
    while True:
        await trio.sleep(INTERVAL)
        for session in list(relay.exchange.sessions):
            if session.connection.silent():
                session.close(CloseReason.RESET)
