"""A client's connection, as sessions and the pump see it: never blocking, or waiting in a task of its own.

1. `recv_nowait` and `send_nowait` never wait. They raise BlockingIOError if the kernel would wait, and another
   OSError when the connection is broken. They are bound methods of the socket if they need to do no more.
2. One session owns a connection, and closes it. The pump's epoll watches `fileno`.
3. `hung_up` looks at the connection without reading: has the peer at least shut its sending side? `input_waits`
   likewise: would reading bring bytes, an end of file or an error at once?
4. `silent` says whether the peer has not answered for so long that it must be gone.
5. `unsent` is what the kernel still holds for the peer, in bytes of its own accounting. It shows progress.
"""

import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, Protocol

import trio

from .._liveness import is_silent, set_keepalive
from ..protocol import id_from_path

Transport = Literal["unix", "tcp", "tls", "memory"]

SIOCOUTQ = 0x5411
"""Linux: bytes not yet taken by the peer (Unix) or not yet acknowledged (TCP)."""

TCP_SEND_BUFFER = 65536
"""Bounds what the kernel may hold for a TCP client that went away unnoticed; larger gains no throughput on loopback."""
SMALL_PIECE = 4096
QUICK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end, as the kernel describes it.

    Attributes:
        transport: how it is connected.
        address: for people: the bound path, `HOST:PORT`, or empty.
        ip: its IP address; None unless over TCP.
        bound_id: the id of the path that it bound; 0 if it bound none.
        uid: its user; None unless over a Unix socket.
        pid: its process; shown, never trusted.
        process: that process's name, likewise.
        certificate_names: subject alternative names of its certificate, or `sha256:` and its fingerprint where that has
            none; empty if it showed none.
    """

    transport: Transport
    address: str
    ip: IPv4Address | IPv6Address | None = None
    bound_id: int = 0
    uid: int | None = None
    pid: int | None = None
    process: str = ""
    certificate_names: tuple[str, ...] = ()


class Sink(Protocol):
    """Where an outbox writes to: a connection, or another relay."""

    send_small: Callable[[bytes | bytearray | memoryview], int]
    """`send_nowait` for at most `SMALL_PIECE` bytes, without looking at how much it is."""

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take some of `data` and return how many bytes; raise BlockingIOError if it takes none now."""


class Connection(Sink, Protocol):
    """What a session needs of a connection."""

    recv_nowait: Callable[[int], bytes]

    @property
    def peer(self) -> Peer: ...
    @property
    def fileno(self) -> int: ...
    async def wait_readable(self) -> None: ...
    async def wait_writable(self) -> None: ...
    def hung_up(self) -> bool: ...
    def input_waits(self) -> bool: ...
    def unsent(self) -> int: ...
    def silent(self) -> bool: ...
    def shut_sending(self) -> None: ...
    def close(self) -> None: ...


class SocketConnection:
    """A plain Unix or TCP socket.

    On a Unix socket the kernel frees room when the peer has read the last byte of a piece, and its pieces have 32 KiB.
    A peer that reads 1 kB/s would show progress twice a minute, as if it read nothing. So it gets pieces of
    `SMALL_PIECE` until it has taken `QUICK_BYTES` within a second: more than the kernel holds, so the peer must have
    read some. Then everything goes in one piece, which is three times as fast.

    The slowest steady reader that is safe with the default stall timeout reads 1 kB/s over a Unix socket, and 12 kB/s
    over TCP, where a receiver with a full buffer reports room only when about 64 KiB are free, with pieces of any size.
    """

    def __init__(self, sock: socket.socket, peer: Peer) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.peer: Peer = peer
        self._quick = False
        self._always_quick = peer.transport != "unix"
        self._taken = 0
        self._second_ends = 0.0
        self.recv_nowait: Callable[[int], bytes] = sock.recv
        self.send_small: Callable[[bytes | bytearray | memoryview], int] = sock.send
        if peer.transport != "unix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TCP_SEND_BUFFER)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_keepalive(sock)

    @property
    def fileno(self) -> int:
        return self._socket.fileno()

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        if len(data) <= SMALL_PIECE or self._always_quick:
            return self._socket.send(data)
        now = trio.current_time()
        if now >= self._second_ends:
            self._quick = self._quick and self._taken >= QUICK_BYTES and now < self._second_ends + 1
            self._taken, self._second_ends = 0, now + 1
        taken = self._socket.send(data) if self._quick else self._send_in_pieces(memoryview(data))
        self._taken += taken
        self._quick = self._quick or self._taken >= QUICK_BYTES
        return taken

    def _send_in_pieces(self, data: memoryview) -> int:
        sent = 0
        try:
            while sent < len(data):
                sent += self._socket.send(data[sent : sent + SMALL_PIECE])
        except OSError:
            if not sent:
                raise
        return sent

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

    def hung_up(self) -> bool:
        return self._poll(select.POLLRDHUP)

    def input_waits(self) -> bool:
        return self._poll(select.POLLIN)

    def _poll(self, mask: int) -> bool:
        poll = select.poll()
        poll.register(self._socket, mask)
        return bool(poll.poll(0))

    def unsent(self) -> int:
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._socket, SIOCOUTQ, b"\0\0\0\0"))[0])
        except OSError:
            return 0

    def silent(self) -> bool:
        return self.peer.ip is not None and is_silent(self._socket)

    def shut_sending(self) -> None:
        with suppress(OSError):  # the peer is gone: reading will tell
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


async def receive_some(connection: Connection, size: int) -> bytes:
    """Return what comes next, `size` bytes at most; nothing at the end, and where the connection is broken."""
    while True:
        await connection.wait_readable()
        try:
            return connection.recv_nowait(size)
        except BlockingIOError:
            continue
        except OSError:
            return b""


def credentials(sock: socket.socket | trio.socket.SocketType) -> tuple[int, int]:
    """Return process and user at the other end of a Unix socket: of a listener, those that listened first."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def peer_of(sock: socket.socket, address: str | bytes | tuple[str, int], transport: Transport) -> Peer:
    """Return the peer of an accepted socket, which connected from `address`."""
    if isinstance(address, tuple):
        ip = ip_address(address[0].partition("%")[0])
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        shown = f"[{ip}]" if ip.version == 6 else str(ip)
        return Peer(transport, f"{shown}:{address[1]}", ip)
    # Names of the abstract namespace come as bytes that begin with a zero; they give no id.
    bound = os.fsencode(address) if isinstance(address, str) else b""
    shown = bound.decode("utf-8", "backslashreplace")
    pid, uid = credentials(sock)
    process = ""
    with suppress(OSError):
        process = Path(f"/proc/{pid}/comm").read_text("utf-8", "backslashreplace").rstrip("\n")
    return Peer(transport, shown, bound_id=id_from_path(bound), uid=uid, pid=pid, process=process)
