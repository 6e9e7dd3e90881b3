"""The old relay's part: it listens for a successor, and hands everything over to one that may have it.

1. It listens at a Unix socket of its own user, and serves one successor at a time. A second successor waits in the
   backlog. It moves with the socket to the first one, so the second takes over from the first.
2. A successor must be of the same user, or root. Before the offer only one thing changes: sessions with TLS end. They
   cannot move, and reconnect by themselves.
3. From the offer on the loop blocks (`_drive`), so that nothing changes during the transfer. After a failure it
   continues.
4. After `go` this process does nothing more, not even clean up: any message would reach clients of the successor.
   `gone` ends it.
5. A relay of a realm goes down with its capture, and after a failure it comes up again by itself, as after any loss of
   its connection to the engine. Leases and tokens are the same, whichever of the two continues.
"""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NoReturn

import trio

from .. import _version
from ..relay import (
    LISTENING,
    LOGGER,
    CloseReason,
    ConfigError,
    EventCode,
    Relay,
    Session,
    SocketFile,
    UnixAddress,
    capture,
    credentials,
    keep_reachable,
    log,
)
from ._conversation import Failure, Greeting, HandoverFailed, Words, encode
from ._drive import CHUNK, hand_over
from ._state import VERSION, HandoverState, ListenerState, PeerState
from ._state import encode as encode_state

GREETING_SECONDS = 5.0
TLS_SECONDS = 1.0
"""Seconds for sessions with TLS to take what waits for them; the successor waits six seconds for the offer."""
POLL = 0.01
BACKLOG = 8
SOCKET_MODE = 0o600


class Handover:
    """The service that hands a relay over: give it to `serve` as one of its services.

    Attributes:
        listens: whether a successor can connect.
    """

    def __init__(
        self,
        path: str,
        *,
        gone: Callable[[int, int], NoReturn],
        before_go: Callable[[int], None] = lambda _: None,
        required: bool = True,
    ) -> None:
        """Listen at `path` once it runs.

        Args:
            path: of a Unix socket.
            gone: called with the numbers of sessions and queued frames when the successor serves; ends the process.
            before_go: called with the successor's process id, 0 if it cannot be seen, just before it serves, and
                with the own one after a handover that failed.
            required: whether the relay ends if it cannot listen at the path; else it only logs that.
        """
        self.listens: bool = False
        self._required = required
        self._path = path
        self._listener: socket.socket
        self._gone = gone
        self._before_go = before_go
        self._life, self._life_end = os.pipe()

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve successors until cancelled.

        Raises:
            ConfigError: the path cannot be listened on, and is required.
        """
        with ExitStack() as stack:
            try:
                file = SocketFile(self._path, mode=SOCKET_MODE, group=None, backlog=BACKLOG)
                stack.callback(file.close)
                self._listener = file.listen()
                stack.callback(lambda: self._listener.close())
            except ConfigError as error:
                if self._required:
                    raise
                log(logging.WARNING, "no successor can take over", reason=error, hint="give --handover PATH")
                task_status.started()
                return
            self.listens = True
            task_status.started()
            await relay.in_charge.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept_forever, relay)
                if not UnixAddress(self._path).is_abstract:
                    nursery.start_soon(keep_reachable, file, self._replace, {})

    async def _accept_forever(self, relay: Relay) -> None:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._listener)
                accepted, _ = self._listener.accept()
            except trio.ClosedResourceError:  # it was replaced
                continue
            except OSError:
                await trio.sleep(POLL)
                continue
            with accepted:
                accepted.setblocking(False)
                await self._serve(relay, accepted)

    def _replace(self, listener: socket.socket) -> None:
        before, self._listener = self._listener, listener
        trio.lowlevel.notify_closing(before)
        before.close()

    async def _serve(self, relay: Relay, sock: socket.socket) -> None:
        try:
            words = Words("the successor")
            await self._read_greeting(relay, sock, words)
            if relay.remote is not None:
                await relay.remote.before_handover()
            await _end_tls(relay)
            self._hand_over(relay, sock, words)
        except (HandoverFailed, ImportError) as failure:  # msgspec may be gone from the disk since the start
            log(logging.WARNING, "handover failed, this relay continues", reason=failure)
            _tell(sock, str(failure))
        except Exception:
            LOGGER.exception("a bug in the handover; this relay continues")
            _tell(sock, "a bug in the old relay, which logged it")

    async def _read_greeting(self, relay: Relay, sock: socket.socket, words: Words) -> None:
        _, uid = credentials(sock)
        if uid not in (0, os.geteuid()):
            raise HandoverFailed(f"uid {uid} asked, and the relay is of uid {os.geteuid()}")
        greeting = None
        with trio.move_on_after(GREETING_SECONDS):
            while greeting is None:
                await trio.lowlevel.wait_readable(sock)
                try:
                    greeting = words.take(sock.recv(CHUNK), Greeting)
                except OSError as error:
                    raise HandoverFailed(f"the successor left: {error.strerror}") from None
        await trio.lowlevel.checkpoint()  # clients have waited while the first word imported msgspec
        if greeting is None:
            raise HandoverFailed(f"the successor said nothing within {GREETING_SECONDS:g} s")
        if VERSION not in greeting.versions:
            raise HandoverFailed(
                f"release {greeting.release} reads states of version {greeting.versions}, and this is {VERSION}"
            )
        if relay.draining:
            raise HandoverFailed("the relay is shutting down")

    def _hand_over(self, relay: Relay, sock: socket.socket, words: Words) -> None:
        with relay.exchange.round.step():
            for session in relay.exchange.sessions:
                session.outbox.write_more()
        state, connections = capture(relay)
        descriptors = [connection.fileno for connection in connections]
        listeners = []
        for noted in LISTENING:
            position, keeper = len(descriptors), None
            descriptors.append(noted.socket.fileno())
            if noted.path_descriptors is not None:
                descriptors += noted.path_descriptors
                keeper = position + 1, position + 2
            listeners.append(ListenerState(position, noted.place, keeper, noted.given))
        peers = [PeerState.of(connection.peer) for connection in connections]
        data = encode_state(HandoverState(VERSION, _version.__version__, peers, listeners, state))
        pid, _ = credentials(sock)
        try:
            hand_over(sock, words, VERSION, data, [self._life, *descriptors], lambda: self._before_go(pid))
        except HandoverFailed:
            self._before_go(os.getpid())
            raise
        self._gone(len(state.sessions), relay.exchange.queued_frames())


async def _end_tls(relay: Relay) -> None:
    """End the sessions with TLS as a drain would, until there is none in this step."""

    def sessions() -> list[Session]:
        return [session for session in relay.exchange.sessions if session.connection.peer.transport == "tls"]

    for session in sessions():
        if session.events:
            session.notify(EventCode.DRAINING, 0)
    if any(session.outbox.queued_bytes for session in sessions()):
        await trio.sleep(TLS_SECONDS)
    while left := sessions():
        for session in left:
            if session.freed.is_set():
                session.end(CloseReason.SLOW_CONSUMER)
            else:
                session.close(CloseReason.DRAINING)
        await trio.lowlevel.checkpoint()


def _tell(sock: socket.socket, reason: str) -> None:
    # The successor has left or does not read, or msgspec is gone; it sees the end of the connection.
    with suppress(OSError, ImportError):
        sock.setblocking(False)
        sock.send(encode(Failure(reason)))
