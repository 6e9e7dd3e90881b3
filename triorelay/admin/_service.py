"""The admin endpoint as a service beside a relay: listening, sessions, and how many there may be.

1. It runs in the relay's own nursery, from before the relay accepts clients until after its drain.
2. There are at most `SESSIONS` connections. One more takes the place of the one that has waited longest for a request,
   else of the oldest that is being answered: so silent ones keep nobody out. At most `STREAMS` of them are streams, and
   one more of those is refused; so there is always one to give way.
3. A failing session ends alone.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from logging import INFO, WARNING

import trio

from ..relay import ConfigError, Relay, TcpAddress, Throttle, UnixAddress, listen_tcp, listen_unix, log
from ._config import AdminConfig
from ._guard import Guard
from ._http import BugLog, Doing, HttpSession
from ._messages import HttpError, Reply, Request, Stream
from ._pace import Pace
from ._routes import Routes

SESSIONS = 64
STREAMS = 16
BACKLOG = 64
SOCKET_MODE = 0o600
"""Whoever may connect may close clients and see every frame: the relay's own user, and nobody else."""
RETRY = 0.1
"""Seconds until accepting is tried again after it failed: no descriptors are left, or no memory."""


class Admin:
    """The admin endpoint of a relay: give it to `serve` as one of its services.

    Attributes:
        addresses: where it listens, once it does.
    """

    def __init__(self, config: AdminConfig) -> None:
        """Read the token file.

        Raises:
            ConfigError: it cannot be read, or its token is too short or too long.
        """
        self.addresses: list[str] = []
        self._config = config
        self._token = config.read_token()
        self._pace = Pace()
        self._bugs = BugLog()
        self._sessions: dict[HttpSession, None] = {}

    async def run(self, relay: Relay, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; every connection is closed then.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        unix = isinstance(self._config.address, UnixAddress)
        routes = Routes(relay, Guard(self._token, self._config.hosts, unix=unix), self._pace)
        with _open_sockets(self._config.address) as sockets:
            self.addresses = [_address(sock) for sock in sockets]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(routes.feed.run)
                for sock in sockets:
                    nursery.start_soon(self._accept_forever, sock, routes, nursery)
                log(INFO, "admin listens", listening=self.addresses, **_dashboard(self.addresses[0]))
                task_status.started()

    async def _accept_forever(self, sock: socket.socket, routes: Routes, nursery: trio.Nursery) -> None:
        listener = trio.socket.from_stdlib_socket(sock)
        accept_log = Throttle(trio.current_time)
        while True:
            try:
                accepted, address = await listener.accept()
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                accept_log.log(WARNING, "cannot accept", listener=_address(sock), reason=reason)
                await trio.sleep(RETRY)
                continue
            async with self._pace.turn():
                if sock.family == socket.AF_UNIX and not _may_connect(accepted):
                    accepted.close()
                    continue
                peer = address[0] if sock.family != socket.AF_UNIX else None
                self._open_session(trio.SocketStream(accepted), peer, routes, nursery)

    def _open_session(self, stream: trio.SocketStream, peer: str | None, routes: Routes, nursery: trio.Nursery) -> None:
        if len(self._sessions) >= SESSIONS:
            first = min(self._sessions, key=lambda session: session.doing)
            del self._sessions[first]
            first.scope.cancel()

        def answer(request: Request) -> Reply | Stream:
            reply = routes.answer(request)
            if isinstance(reply, Stream) and self._streams() >= STREAMS:
                raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, f"{STREAMS} streams are open already")
            return reply

        session = HttpSession(stream, answer, self._pace, self._bugs, peer)
        self._sessions[session] = None
        nursery.start_soon(self._run_session, session)

    def _streams(self) -> int:
        return sum(session.doing is Doing.STREAMING for session in self._sessions)

    async def _run_session(self, session: HttpSession) -> None:
        try:
            await session.run()
        finally:
            self._sessions.pop(session, None)


@contextmanager
def _open_sockets(address: UnixAddress | TcpAddress) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        try:
            if isinstance(address, UnixAddress):
                sock = listen_unix(address.path, mode=SOCKET_MODE, group=None, backlog=BACKLOG)
                sockets = [stack.enter_context(sock)]
            else:
                sockets = [stack.enter_context(sock) for sock in listen_tcp(address.host, address.port)]
        except ConfigError as error:
            raise ConfigError(f"the admin endpoint: {error}") from None
        yield sockets


def _dashboard(address: str) -> dict[str, str]:
    transport, _, place = address.partition(":")
    host, _, port = place.rpartition(":")
    reachable = "localhost" if host in ("0.0.0.0", "[::]") else host
    return {"dashboard": f"http://{reachable}:{port}/"} if transport == "tcp" else {}


def _may_connect(accepted: trio.socket.SocketType) -> bool:
    """Return whether the mode of a socket file would let the peer in: an abstract name has none."""
    _, uid, _ = struct.unpack("iII", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, bytes):  # of the abstract namespace
        name = f"@{os.fsdecode(name[1:])}"
    return str(UnixAddress(name) if sock.family == socket.AF_UNIX else TcpAddress(name[0], name[1]))
