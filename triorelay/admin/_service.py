"""The admin endpoint as a service beside a relay: listening, sessions, and how many there may be.

1. It runs in the relay's own nursery, from before the relay accepts clients until after its drain.
2. There are at most `SESSIONS` connections. One more evicts one whose request is not complete, else one that is being
   answered; among these the oldest from the address with most: so silent connections keep no other out. At most
   `STREAMS` of them are streams, and one more stream is refused; so there is always a connection to evict.
   Accepting takes no turn: a flood of connections must not fill the backlog, where a probe would wait behind it.
3. A failing session ends alone.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from logging import INFO, WARNING

import trio

from ..recording import Ring
from ..relay import (
    ConfigError,
    Relay,
    SocketFile,
    TcpAddress,
    Throttle,
    UnixAddress,
    credentials,
    keep_reachable,
    listen_tcp,
    log,
    token_digest,
)
from ._config import AdminConfig
from ._guard import Guard
from ._http import Doing, HttpSession
from ._messages import HttpError, Later, Reply, Request, Stream
from ._pace import Pace
from ._routes import Routes

SESSIONS = 64
STREAMS = 16
BACKLOG = 1024
"""Room for connections that come while the relay is busy for a moment."""
SOCKET_MODE = 0o600
"""A program that may connect may close clients and see every frame, so only the relay's own user may."""
BUGS_AT_ONCE = 5
BUG_SECONDS = 10
"""Seconds between two tracebacks after the first few: a client can repeat a request that finds a bug."""
Socket = socket.socket
"""For the annotations of a class that has a field of the module's name."""
RETRY = 0.1
"""Seconds until accepting is tried again after it failed: no descriptors are left, or no memory."""


class Admin:
    """The admin endpoint of a relay: give it to `serve` as one of its services.

    Attributes:
        addresses: where it listens, once it does.
        dashboard: the URL of its page for a browser on this machine, once it listens; empty if only on Unix sockets.
    """

    def __init__(self, *configs: AdminConfig, ring: Ring | None = None) -> None:
        """Read the token files, of which only digests are kept.

        Args:
            configs: an address each, with what a request there must prove.
            ring: the relay's flight recorder, which it gives out.

        Raises:
            ConfigError: one cannot be read, or its token is too short or too long.
        """
        self.addresses: list[str] = []
        self.dashboard: str = ""
        self._configs = [(config, token_digest(config.read_token() or b"")) for config in configs]
        self._ring = ring
        self._pace = Pace()
        self._bugs = Throttle(interval=BUG_SECONDS, burst=BUGS_AT_ONCE)
        self._sessions: dict[HttpSession, None] = {}

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; every connection is closed then."""
        routes = Routes(relay, self._pace, self._ring)
        with ExitStack() as stack:
            doors = [door for config, digest in self._configs for door in _open_doors(config, digest, stack)]
            self.addresses = [_address(door.socket) for door in doors]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(routes.feed.run)
                for door in doors:
                    nursery.start_soon(self._accept_forever, door, routes, relay.in_charge, nursery)
                    if door.path is not None:
                        nursery.start_soon(keep_reachable, door.path, door.replace, {})
                self.dashboard = _dashboard(self.addresses)
                facts = {"dashboard": self.dashboard} if self.dashboard else {}
                log(INFO, "admin listens", listening=self.addresses, **facts)
                task_status.started()

    async def _accept_forever(
        self, door: "_Door", routes: Routes, in_charge: trio.Event, nursery: trio.Nursery
    ) -> None:
        """Accept connections from `in_charge` on until cancelled, and answer as the guard of the door says."""

        def answer(request: Request) -> Reply | Stream | Later:
            reply = routes.answer(request, door.guard)
            streams = sum(session.doing is Doing.STREAMING for session in self._sessions)
            if isinstance(reply, Stream) and streams >= STREAMS:
                raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"{STREAMS} streams are open already")
            return reply

        await in_charge.wait()
        accept_log = Throttle()
        while True:
            sock = door.socket
            try:
                accepted, address = await trio.socket.from_stdlib_socket(sock).accept()
            except trio.ClosedResourceError:  # it was replaced
                continue
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                accept_log.log(WARNING, "cannot accept", listener=_address(sock), reason=reason)
                await trio.sleep(RETRY)
                continue
            if isinstance(sock.getsockname(), bytes) and not _may_connect(accepted):
                accepted.close()
                continue
            peer = None if sock.family == socket.AF_UNIX else address[0]
            if len(self._sessions) >= SESSIONS:
                self._make_room()
            session = HttpSession(trio.SocketStream(accepted), answer, self._pace, self._bugs, peer, routes.probe)
            self._sessions[session] = None
            nursery.start_soon(self._run_session, session)

    def _make_room(self) -> None:
        least = min(session.doing for session in self._sessions)
        crowd = Counter(session.peer for session in self._sessions if session.doing is least)
        most = max(crowd.values())
        first = next(one for one in self._sessions if one.doing is least and crowd[one.peer] == most)
        del self._sessions[first]
        first.scope.cancel()

    async def _run_session(self, session: HttpSession) -> None:
        try:
            await session.run()
        finally:
            self._sessions.pop(session, None)


@dataclass(slots=True)
class _Door:
    """A socket that listens, what a request by it must prove, and the path that leads to it, if that may be lost."""

    socket: socket.socket
    guard: Guard
    path: SocketFile | None = None

    def replace(self, sock: Socket) -> None:
        before, self.socket = self.socket, sock
        trio.lowlevel.notify_closing(before)
        before.close()

    def close(self) -> None:
        self.socket.close()


def _open_doors(config: AdminConfig, digest: bytes, stack: ExitStack) -> list[_Door]:
    """Return the doors of one address; `stack` closes them."""
    address = config.address
    guard = Guard(digest, config.hosts, unix=isinstance(address, UnixAddress))
    try:
        if isinstance(address, UnixAddress):
            file = SocketFile(address.path, mode=SOCKET_MODE, group=None, backlog=BACKLOG)
            stack.callback(file.close)
            doors = [_Door(file.listen(), guard, None if address.is_abstract else file)]
        else:
            doors = [_Door(sock, guard) for sock in listen_tcp(address.host, address.port)]
    except ConfigError as error:
        raise ConfigError(f"the admin endpoint: {error}") from None
    for door in doors:
        stack.callback(door.close)
    return doors


def _dashboard(addresses: Sequence[str]) -> str:
    """Return the URL at the first TCP address; a browser cannot connect to "every interface"."""
    tcp = next((address for address in addresses if address.startswith("tcp:")), "")
    place = re.sub(r"^tcp:(\[::\]|0\.0\.0\.0):", "tcp:localhost:", tcp).removeprefix("tcp:")
    return f"http://{place}/" if place else ""


def _may_connect(accepted: trio.socket.SocketType) -> bool:
    """Return whether the mode of a socket file would let the peer in: an abstract name has none."""
    _, uid = credentials(accepted)
    return uid in (0, os.geteuid())


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, bytes):  # of the abstract namespace
        name = f"@{os.fsdecode(name[1:])}"
    return str(UnixAddress(name) if sock.family == socket.AF_UNIX else TcpAddress(name[0], name[1]))
