"""Listening on TCP and Unix sockets, and accepting.

`accept` fails in four ways (Linux: accept(2), and the literature on Trio's own listeners):

1. The client left before the relay took its connection (ECONNABORTED, EPROTO, network errors that Linux passes on): the
   relay accepts the next one.
2. The system has no descriptors or memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM): traffic continues, and the relay
   tries again soon. The connection stays in the backlog, so waiting for input would not wait at all.
3. The socket cannot listen any more (EBADF, EINVAL…): this is a bug, and ends the relay.
4. No connection waits: the relay waits for one.

A socket that another process opened and passed on (systemd, a parent process) replaces the one that the configuration
would have opened at the same address. If the configuration does not name its address, the relay listens on it too,
without TLS.
"""

import errno
import logging
import os
import resource
import socket
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import trio

from ..protocol import ConfigError, TcpAddress, UnixAddress
from ._admission import Admission
from ._config import Config
from ._connection import Transport, peer_of
from ._listening import LISTENING, ListeningSocket, Place
from ._log import log
from ._socket_file import SocketFile

BACKLOG = 4096
"""The kernel takes the smaller of this and net.core.somaxconn."""
RETRY = 0.1
DESCRIPTORS_WANTED = 300
"""255 clients, and what the process has open besides."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_CANNOT_LISTEN = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT}


TcpName = tuple[str, int] | tuple[str, int, int, int]
"""A socket's address as Python has it: host, port, and with IPv6 flow and scope."""


class Listener(Protocol):
    """A place at which clients connect."""

    address: str
    """Where it listens, as a client would type it."""

    def accept_waiting(self, admission: Admission) -> bool:
        """Accept the waiting connections, in one step; return False if the system lacks descriptors or memory."""

    async def accept_forever(self, admission: Admission) -> None:
        """Accept clients until cancelled or closed."""

    def close(self) -> None:
        """Listen no more. Idempotent."""


@dataclass(slots=True)
class SocketListener:
    """A socket that listens.

    Attributes:
        sock: non-blocking.
        transport: what its connections speak.
        address: as a client would type it.
        file: the path of a Unix socket.
    """

    sock: socket.socket
    transport: Transport
    address: str
    file: SocketFile | None = None

    def replace(self, admission: Admission, sock: socket.socket) -> None:
        """Listen at `sock` from now on, and accept the connections that wait at the socket before."""
        if self.sock.fileno() < 0:
            sock.close()
            return
        self.accept_waiting(admission)
        self.close()
        self.sock = sock

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

    def accept_waiting(self, admission: Admission) -> bool:
        if self.sock.fileno() < 0:
            return True
        for _ in range(admission.accepts):
            try:
                accepted, address = self.sock.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _CANNOT_LISTEN:
                    raise
                if error.errno in _OUT_OF_RESOURCES:
                    admission.cannot_accept(self.address, error)
                    return False
                continue
            try:
                peer = peer_of(accepted, address, self.transport)
            except OSError:  # the client has left
                accepted.close()
            else:
                admission.accept(accepted, peer)
        return True

    async def accept_forever(self, admission: Admission) -> None:
        while self.sock.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(self.sock)
            except trio.ClosedResourceError:  # or it was replaced
                continue
            if not self.accept_waiting(admission):
                await trio.sleep(RETRY)
            await admission.room()


@contextmanager
def open_listeners(config: Config, handed_over: Sequence[socket.socket] = ()) -> Iterator[Sequence[Listener]]:
    """Listen on everything that `config` names, and on `handed_over`; close it all at the end.

    Raises:
        ConfigError: an address cannot be listened on; one line that says which and why.
    """
    with ExitStack() as stack:
        stack.callback(LISTENING.close_rest)
        for sock in handed_over:
            _check(stack.enter_context(sock))
            LISTENING.inherited.append(ListeningSocket(sock, _place(sock), given=True))
        listeners = [_unix_listener(config, path, stack) for path in config.unix]
        for transport, places in (("tcp", config.tcp), ("tls", config.tls)):
            for host, port in places:
                for sock in listen_tcp(host, port):
                    listeners.append(_tcp_listener(stack.enter_context(sock), tls=transport == "tls"))
        for given in [one for one in LISTENING.inherited if one.given]:
            if given.socket.family == socket.AF_UNIX:
                listeners.append(_unix_listener(config, _path(given.socket), stack))
            else:
                listeners += [_tcp_listener(sock, tls=False) for sock in _given_at({given.place})]
        yield listeners


def _unix_listener(config: Config, path: str, stack: ExitStack) -> SocketListener:
    file = SocketFile(path, mode=config.socket_mode, group=config.socket_group, backlog=BACKLOG)
    stack.callback(file.close)
    listener = SocketListener(file.listen(), "unix", str(UnixAddress(path)), file)
    stack.callback(lambda: listener.sock.close())
    return listener


def _tcp_listener(sock: socket.socket, *, tls: bool) -> SocketListener:
    host, port, *ipv6 = sock.getsockname()
    zone = f"%{socket.if_indextoname(ipv6[1])}" if ipv6 and ipv6[1] and "%" not in host else ""
    address = TcpAddress(f"{host}{zone}", port, tls)
    return SocketListener(sock, "tls" if tls else "tcp", str(address))


def _path(sock: socket.socket) -> str:
    name = sock.getsockname()
    return f"@{os.fsdecode(name[1:])}" if isinstance(name, bytes) else name


def _check(sock: socket.socket) -> None:
    """Refuse a socket that was handed over and is no listener; let its `accept` not wait."""
    descriptor = sock.fileno()
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        raise ConfigError(f"descriptor {descriptor} was handed over and is no stream socket: use ListenStream=")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError(f"descriptor {descriptor} was handed over and does not listen: use Accept=no")
    sock.setblocking(False)


def _given_at(places: Container[object]) -> list[socket.socket]:
    """Take the sockets that were handed over and listen at one of `places`."""
    sockets = []
    while given := LISTENING.take(lambda one: one.given and one.place in places):
        LISTENING.note(given)
        sockets.append(given.socket)
    return sockets


def _place(sock: socket.socket) -> Place:
    name = sock.getsockname()
    if isinstance(name, str):
        with suppress(FileNotFoundError):  # a relative path whose directory was removed is at no place
            name = os.path.realpath(name)
        return os.fsencode(name)
    return name if isinstance(name, bytes) else _tcp_place(name)


def _tcp_place(name: TcpName) -> tuple[str, int, int]:
    return name[0], name[1], name[3] if len(name) == 4 else 0


def _is_at(wanted: tuple[str, int, int], one: ListeningSocket) -> bool:
    """Return whether it listens where it is wanted; a wanted port 0 is any port."""
    place = one.place
    return isinstance(place, tuple) and not one.given and place == (wanted[0], wanted[1] or place[1], wanted[2])


def listen_tcp(host: str | None, port: int) -> list[socket.socket]:
    """Return non-blocking sockets, one for each address of `host` (None: every interface); the caller closes them.

    If this machine lacks an address, such as ::1 without IPv6, the relay logs that, as long as it can listen on another
    one. An address that another program has is an error, because clients would reach that program.

    Raises:
        ConfigError: it cannot be listened on; one line that says which and why.
    """
    opened: list[socket.socket] = []
    left_out: list[tuple[object, OSError]] = []
    try:
        addresses = _tcp_addresses(host, port)
        every_interface = {("0.0.0.0", port, 0)} if host is None else set()
        if given := _given_at(every_interface.union(_tcp_place(address) for _, address in addresses)):
            return given
        for family, address in addresses:
            dualstack = host is None and family == socket.AF_INET6
            if inherited := LISTENING.take(partial(_is_at, _tcp_place(address))):
                opened.append(inherited.socket)
                continue
            try:
                sock = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=dualstack)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                left_out.append((address[0], error))
            else:
                opened.append(sock)
        if left_out and not opened:
            raise left_out[0][1]
    except (OSError, OverflowError, UnicodeError) as error:
        for sock in opened:
            sock.close()
        raise ConfigError(f"cannot listen on tcp {host or '*'}:{port}: {_why(error)}") from None
    for sock in opened:
        sock.setblocking(False)
        LISTENING.note(ListeningSocket(sock, _tcp_place(sock.getsockname())))
    for place, reason in left_out:
        log(logging.WARNING, "not listening at one address", host=host, address=place, reason=_why(reason))
    return opened


def _tcp_addresses(host: str | None, port: int) -> list[tuple[int, TcpName]]:
    if host is None and socket.has_dualstack_ipv6():
        return [(socket.AF_INET6, ("::", port))]
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A link-local address is one only with its scope, which stands behind the port.
    return list(dict.fromkeys((int(family), cast("TcpName", address)) for family, _, _, _, address in found))


_HINTS = {
    errno.EADDRINUSE: "; choose another port, or end the program that has this one",
    errno.EACCES: "; ports below 1024 need a privilege, choose a higher one",
    errno.EADDRNOTAVAIL: "; no interface of this machine has this address",
}


def _why(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    number = error.errno or 0
    # create_server puts the address into the text; getaddrinfo's errors are below zero and not errno values.
    reason = os.strerror(number) if number > 0 else str(error.strerror)
    return f"{reason}{_HINTS.get(number, '')}"


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard one; warn where even that is too low for 255 clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # some systems name a hard limit that they do not give
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_WANTED:
        log(logging.WARNING, "few descriptors", limit=hard, wanted=DESCRIPTORS_WANTED, hint="raise `ulimit -n`")
