"""Connects to a relay: a half-closeable byte stream for each kind of address.

1. A failure to connect is an OSError of the class that the system gave, with one line that names the address. Errors of
   Trio and ssl are translated to it.
2. Over TCP the client notices a relay whose cable was pulled, as the relay notices such a client (`_liveness`).
3. TLS shuts its sending side by the end of the TCP stream, not by close_notify: after close_notify OpenSSL would refuse
   the data that the relay still has for this client. The relay treats both as leaving, so a forged end gains nothing.
4. A token never goes where others could read it: for plain TCP to another host it raises before a byte is written.
"""

import errno
import os
import select
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import trio

from .._liveness import is_silent, set_keepalive
from ..protocol import LARGE_CHUNK, Address, LocalProtocolError, TcpAddress, UnixAddress, id_from_path, id_name

Connect = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]
"""Opens one connection to a relay; may be given to a client in place of an address."""

SMALL_READ = 4096
"""Bytes that are read at a time while little comes: a buffer of 64 KiB costs a microsecond more."""

LARGEST_READ = 131072
"""Bytes that are read at a time while more than `LARGE_CHUNK` comes: a block of a stream. Twice as much gains nothing,
because the allocator returns such pieces to the kernel."""

BACKLOG_RETRY = 0.01
"""Seconds between attempts while a Unix listener's backlog is full: time for it to accept some hundred connections."""


class Wire:
    """One connection, used in the way that costs least for its kind.

    On a plain socket a read waits before it reads, and a write, which could not be done at once, before it writes.
    Trio's streams try first, mostly for nothing after a small chunk: a system call and an exception for each.

    Args:
        stream: the connection; closed by `aclose`.

    Attributes:
        on_close: called when it is closed.
        is_tcp: whether it is a TCP connection, with TLS over it or not.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.on_close: Callable[[], object] = lambda: None
        self._stream = stream
        self._bottom = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        sock = getattr(self._bottom, "socket", None)
        self._socket = sock if isinstance(sock, trio.socket.SocketType) else None
        self._plain = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._size = SMALL_READ
        self.is_tcp: bool = self._socket is not None and self._socket.family != socket.AF_UNIX

    async def read(self) -> bytes:
        """Wait for the next chunk, at most `LARGEST_READ` bytes; empty at the end of file."""
        if self._plain is None:
            return bytes(await self._stream.receive_some(LARGE_CHUNK))
        while True:
            await trio.lowlevel.wait_readable(self._plain)
            try:
                chunk = os.read(self._plain.fileno(), self._size)
            except BlockingIOError:
                continue
            if len(chunk) == self._size:
                self._size = LARGE_CHUNK if self._size < LARGE_CHUNK else LARGEST_READ
            elif len(chunk) < LARGE_CHUNK and self._size > LARGE_CHUNK:
                self._size = LARGE_CHUNK
            elif len(chunk) < SMALL_READ:
                self._size = SMALL_READ
            return chunk

    @property
    def offer(self) -> Callable[[bytes | bytearray, list[int]], object] | None:
        """A function that writes without waiting, and appends how many bytes the kernel took; None if there is none.

        It raises OSError if the kernel takes nothing.
        """
        sock = self._plain
        if sock is None:
            return None
        # One call of C writes and appends: a KeyboardInterrupt comes before it or after it.
        return lambda data, taken: taken.extend(map(os.write, (sock.fileno(),), (data,)))

    async def write(self, data: bytes | bytearray) -> None:
        """Write all of `data`, waiting as needed."""
        if self._plain is None:
            await self._stream.send_all(data)
            return
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                await trio.lowlevel.wait_writable(self._plain)
                with suppress(BlockingIOError):
                    written += os.write(self._plain.fileno(), view[written:])

    def is_hung_up(self) -> bool:
        """Whether the other end is known to have hung up, even if data still waits to be read."""
        if self._socket is None:
            return False
        poller = select.poll()
        poller.register(self._socket, select.POLLRDHUP)
        return bool(poller.poll(0))

    def is_silent(self) -> bool:
        """Whether the other end of a TCP connection has vanished."""
        return self._socket is not None and self.is_tcp and is_silent(self._socket)

    async def send_eof(self) -> None:
        """Shut the sending side."""
        await self._bottom.send_eof()

    async def aclose(self) -> None:
        """Close it at once."""
        self.on_close()
        await trio.aclose_forcefully(self._stream)


def _removal(path: bytes) -> Callable[[], None]:
    """Return a function that removes the socket file at `path`, unless another file has replaced it by then."""
    path = path if os.path.isabs(path) else os.path.join(os.getcwdb(), path)
    bound = os.lstat(path)

    def remove() -> None:
        with suppress(OSError):
            found = os.lstat(path)
            if stat.S_ISSOCK(found.st_mode) and os.path.samestat(found, bound):
                os.unlink(path)

    return remove


async def open_wire(
    address: Address | Connect, *, ssl_context: ssl.SSLContext | None, bind_path: bytes | None, with_token: bool
) -> Wire:
    """Connect to the relay at `address`; the caller closes what is returned.

    Raises:
        OSError: no server answers there, or not with TLS that can be trusted, or `bind_path` is taken.
        LocalProtocolError: a token would go over plain TCP to another host.
    """
    if isinstance(address, TcpAddress):
        return Wire(await _open_tcp(address, ssl_context, with_token))
    if isinstance(address, UnixAddress):
        return await _open_unix(address, bind_path)
    return Wire(await address())


async def _open_unix(address: UnixAddress, own_path: bytes | None) -> Wire:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    wire = Wire(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
    try:
        if own_path is not None:
            with _one_line_errors(f"bind {os.fsdecode(own_path)}"):
                sock.bind(own_path)
                wire.on_close = _removal(own_path)
        with _one_line_errors(f"connect to {address}"):
            # It connects at once, or fails; EAGAIN, which Trio takes for a connection under way, is a full backlog.
            while error := sock.connect_ex(address.name):
                if error != errno.EAGAIN:
                    raise OSError(error, os.strerror(error))
                await trio.sleep(BACKLOG_RETRY)
    except BaseException:
        await wire.aclose()
        raise
    return wire


async def _open_tcp(
    address: TcpAddress, ssl_context: ssl.SSLContext | None, with_token: bool
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    with _one_line_errors(f"connect to {address}"):
        tcp = await trio.open_tcp_stream(address.host, address.port)
        try:
            set_keepalive(tcp.socket)
            if address.tls:
                context = ssl.create_default_context() if ssl_context is None else ssl_context
                tls = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
                await tls.do_handshake()
                return tls
            if with_token and not _is_loopback(tcp):
                secure = TcpAddress(address.host, address.port, tls=True)
                raise LocalProtocolError(f"a token is not sent over plain TCP to another host: use {secure}")
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
    return tcp


def _is_loopback(stream: trio.SocketStream) -> bool:
    return ip_address(stream.socket.getpeername()[0].partition("%")[0]).is_loopback


@contextmanager
def _one_line_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "thread" not in str(error):  # Python's message when the system has no thread left
            raise
        raise OSError(errno.EAGAIN, f"cannot {doing}: the system has no thread left for a name look-up") from error
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"cannot {doing}: that is no host name ({error})") from error
    except (OSError, trio.BrokenResourceError) as error:
        cause = _innermost(error)
        line = f"cannot {doing}: {_words(cause)}"
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
            raise OSError(cause.errno, line) from error
        raise ConnectionError(line) from error


def _innermost(error: BaseException) -> BaseException:
    """Return the system's own error, out of those that trio and ssl wrapped around it."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return error


def _words(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):  # whose errno is OpenSSL's
        return f"it does not speak TLS as it should ({cause.reason or cause.strerror or cause})"
    if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
        return "it exists; remove it if no client with this id is running"
    if isinstance(cause, socket.gaierror):
        return str(cause.strerror)
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__


def check_bound_path(id: int, path: str | None) -> bytes:
    """Return the path that a client binds to be `id`: the id itself, in the current directory, unless one is given.

    Raises:
        LocalProtocolError: the last component of the path does not begin with the id, or can be no file's name.
    """
    if path is None:
        if id == ord("/"):
            raise LocalProtocolError("the id / cannot be bound, as no file can be called so; use identity='hello'")
        path = os.fsdecode(bytes((id,)))
    encoded = os.fsencode(path)
    if encoded.rpartition(b"/")[2] in (b".", b".."):
        raise LocalProtocolError(
            f"the path {path} cannot be bound, as it is always a directory: give bind_path a longer last part, such as "
            "'.name', or use identity='hello'"
        )
    if id_from_path(encoded) != id:
        raise LocalProtocolError(
            f"the last part of a path bound by {id_name(id)} must begin with that, not be {path!r}"
        )
    return encoded
