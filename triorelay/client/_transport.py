"""Connects to a relay: a half-closeable byte stream for each kind of address.

1. A failure to connect is an OSError of the class that the system gave, with one line that names the address. Errors of
   Trio and ssl are translated to it.
2. Over TCP the kernel probes an idle connection, so that the client notices a relay whose cable was pulled. The client
   does not use TCP_USER_TIMEOUT: that would also end the connection to a live peer whose window is closed, and a relay
   makes a sender wait in this way.
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
from functools import partial
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


class _WrappedStream(trio.abc.HalfCloseableStream):
    """A stream over a socket of its own."""

    def __init__(self, stream: trio.abc.Stream, underlying: trio.SocketStream) -> None:
        self._stream = stream
        self._underlying = underlying
        self.socket = underlying.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._underlying.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _TlsStream(_WrappedStream):
    """TLS over TCP whose sending side can be shut."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        super().__init__(stream, stream.transport_stream)


class _BoundStream(_WrappedStream):
    """A Unix connection whose own socket file is removed when it is closed."""

    def __init__(self, stream: trio.SocketStream, path: bytes) -> None:
        super().__init__(stream, stream)
        self._path = path if os.path.isabs(path) else os.path.join(os.getcwdb(), path)
        self._file = _identity(self._path)

    async def aclose(self) -> None:
        if self._file is not None and self._file == _identity(self._path):
            with suppress(OSError):
                os.unlink(self._path)
        self._file = None
        await super().aclose()


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


async def open_transport(
    address: Address, *, ssl_context: ssl.SSLContext | None, bind_path: bytes | None, with_token: bool
) -> trio.abc.HalfCloseableStream:
    """Connect to the relay at `address`; the caller closes what is returned.

    Raises:
        OSError: no server answers there, or not with TLS that can be trusted, or `bind_path` is taken.
        LocalProtocolError: a token would go over plain TCP to another host.
    """
    if isinstance(address, TcpAddress):
        tcp = await _open_tcp(address, with_token)
        return await _open_tls(tcp, address, ssl_context) if address.tls else tcp
    if bind_path is not None:
        return await _open_bound(address, bind_path)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await _connect_unix(sock, address)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _connect_unix(sock: trio.socket.SocketType, address: UnixAddress) -> None:
    # A non-blocking connect to a full backlog says EAGAIN, which trio takes for a connection under way.
    with _one_line_errors(f"connect to {address}"):
        while True:
            await sock.connect(address.name)
            try:
                sock.getpeername()
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
            else:
                return
            await trio.sleep(BACKLOG_RETRY)


async def _open_bound(address: UnixAddress, own_path: bytes) -> _BoundStream:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _one_line_errors(f"bind {os.fsdecode(own_path)}"):
            await sock.bind(own_path)
        stream = _BoundStream(trio.SocketStream(sock), own_path)
    except BaseException:
        sock.close()
        raise
    try:
        await _connect_unix(sock, address)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _open_tcp(address: TcpAddress, with_token: bool) -> trio.SocketStream:
    with _one_line_errors(f"connect to {address}"):
        tcp = await trio.open_tcp_stream(address.host, address.port)
    try:
        if with_token and not address.tls and not _is_loopback(tcp):
            secure = TcpAddress(address.host, address.port, tls=True)
            raise LocalProtocolError(f"a token is not sent over plain TCP to another host: use {secure}")
        set_keepalive(tcp.socket)
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise
    return tcp


async def _open_tls(tcp: trio.SocketStream, address: TcpAddress, ssl_context: ssl.SSLContext | None) -> _TlsStream:
    context = ssl.create_default_context() if ssl_context is None else ssl_context
    tls = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
    try:
        with _one_line_errors(f"connect to {address}"):
            await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise
    return _TlsStream(tls)


def _is_loopback(stream: trio.SocketStream) -> bool:
    return ip_address(stream.socket.getpeername()[0].partition("%")[0]).is_loopback


def instant_writer(stream: trio.abc.HalfCloseableStream) -> Callable[[bytes | bytearray, list[int]], object] | None:
    """Return a function that writes without waiting, and appends how many bytes the kernel took; None if there is none.

    It raises OSError if the kernel takes nothing.
    """
    if not isinstance(stream, trio.SocketStream | _BoundStream):
        return None
    sock = stream.socket
    # One call of C writes and appends: a KeyboardInterrupt comes before it or after it.
    return lambda data, taken: taken.extend(map(os.write, (sock.fileno(),), (data,)))


def chunk_writer(stream: trio.abc.HalfCloseableStream) -> Callable[[bytes | bytearray], Awaitable[None]]:
    """Return an async function that writes all of what it is given, after writing without waiting has failed.

    On a plain socket it waits before it writes: `send_all` writes first, without success, and yields after each write.
    """
    if not isinstance(stream, trio.SocketStream | _BoundStream):
        return stream.send_all
    sock = stream.socket

    async def send(data: bytes | bytearray) -> None:
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                await trio.lowlevel.wait_writable(sock)
                with suppress(BlockingIOError):
                    written += os.write(sock.fileno(), view[written:])

    return send


def chunk_reader(stream: trio.abc.HalfCloseableStream) -> Callable[[], Awaitable[bytes]]:
    """Return an async function that waits for the next chunk, at most `LARGEST_READ` bytes; empty at the end of file.

    On a plain socket it waits before it reads. `receive_some` reads first, mostly for nothing after a small chunk,
    which costs a system call and an exception for each.
    """
    if not isinstance(stream, trio.SocketStream | _BoundStream):
        return partial(_receive_chunk, stream)
    sock, size = stream.socket, SMALL_READ

    async def receive() -> bytes:
        nonlocal size
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                chunk = os.read(sock.fileno(), size)
            except BlockingIOError:
                continue
            if len(chunk) == size:
                size = LARGE_CHUNK if size < LARGE_CHUNK else LARGEST_READ
            elif len(chunk) < LARGE_CHUNK and size > LARGE_CHUNK:
                size = LARGE_CHUNK
            elif len(chunk) < SMALL_READ:
                size = SMALL_READ
            return chunk

    return receive


async def _receive_chunk(stream: trio.abc.HalfCloseableStream) -> bytes:
    return bytes(await stream.receive_some(LARGE_CHUNK))


def hang_up_probe(stream: trio.abc.HalfCloseableStream) -> Callable[[], bool] | None:
    """Return a function: has the other end hung up, even if data still waits to be read? None if that is unknown."""
    sock = getattr(stream, "socket", None)
    if not isinstance(sock, trio.socket.SocketType) or not hasattr(select, "POLLRDHUP"):
        return None
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return lambda: bool(poller.poll(0))


def silence_probe(stream: trio.abc.HalfCloseableStream) -> Callable[[], bool] | None:
    """Return a function: has the other end of a TCP connection vanished? None for any other connection."""
    sock = getattr(stream, "socket", None)
    if not isinstance(sock, trio.socket.SocketType) or sock.family == socket.AF_UNIX:
        return None
    return partial(is_silent, sock)


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
