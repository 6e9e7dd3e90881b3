"""TLS as a connection like any other: never blocking, read by the pump, written by direct hand-over.

Theory of operation:

1. The TLS engine works on memory, not on the socket (`ssl.SSLObject`), so it never waits, and a write that the socket
   refused may be tried again with more or fewer bytes than the first time.
2. All bytes read from the socket are decrypted at once and returned whole. So nothing readable ever waits where epoll
   cannot see it, and readable means the same as for a plain socket: the kernel has input.
3. The peer's end of file is a record like any other, and may come together with data. Then, and after an error, the
   connection shuts the socket's receiving side: the kernel shows an end of file from then on, and the next read reports
   the end or the error.
4. Bytes count as taken when their records are in the kernel. While some records of a piece are not, the call does not
   report the piece; the next call begins with the same data, sends the remaining records and reports it (`_ahead`).
5. What the engine itself has to send (an answer to new keys) leaves with the next read or write. The relay disconnects
   a peer that keeps asking for it and takes nothing.
6. A missing close_notify is an end of file: frames are whole or not, and it does not matter which side cut the
   connection.
7. A handshake takes up to a millisecond of computing. Many handshakes take turns, one step in each pass of the
   scheduler, so that other clients are served in between.
"""

import re
import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import trio

from .._fields import check_fields
from .._files import file_in_memory, read_setting
from ..protocol import ConfigError
from ..protocol._hello import BadHello
from ._config import TlsFiles
from ._connection import Peer, SocketConnection

RECORD = 16384
"""Bytes of data in the largest record; if the relay read less, the engine could keep a part of it back."""
PIECE = 2 * RECORD
"""Bytes encrypted or read at a time, for one call of the system. The engine never gives memory back that it once used
for them, and four times as much gained less than what two runs differ by (about 200 M frames a second)."""
CLIENT_BYTES = 131072
"""Memory of an engine and its records at most."""
PENDING_BYTES = 65536
"""The same before the client has an id: what the engine needs at first, a handshake, a record."""
ENGINE_BYTES = 65536
"""Bytes that the engine may have to send by itself before the peer takes any."""
HANDSHAKE_BYTES = 32768
"""Bytes that a handshake may take from a peer. A chain of ten certificates has about 15,000."""

_FINGERPRINT = re.compile("sha256:[0-9a-fA-F]*")
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of the TLS listeners: TLS 1.2 or later, with a client CA mutual.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    check_fields(files, ConfigError, "tls_files.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that only writes would never read a ticket, and closing with it unread would reset the connection.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    certificate = read_setting(files.certificate, "tls_cert")
    # One file may hold both, and a pipe cannot be read twice.
    key = certificate if files.key == files.certificate else read_setting(files.key, "tls_key")
    _require("tls_cert", files.certificate, certificate, b"CERTIFICATE-----")
    _require("tls_key", files.key, key, b"PRIVATE KEY-----")
    try:
        with file_in_memory(certificate) as certificate_path, file_in_memory(key) as key_path:
            context.load_cert_chain(certificate_path, key_path, password=lambda: _no_password(files))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"tls_key: {files.key} is not the key of the certificate in {files.certificate}"
            ) from None
        raise ConfigError(f"tls_cert, tls_key: {files.certificate}, {files.key}: {_reason(error)}") from None
    if files.client_ca is not None:
        authorities = read_setting(files.client_ca, "tls_client_ca")
        _require("tls_client_ca", files.client_ca, authorities, b"CERTIFICATE-----")
        try:
            with file_in_memory(authorities) as path:
                context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise ConfigError(f"tls_client_ca: {files.client_ca}: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsConnection(SocketConnection):
    """A TCP socket with TLS. Use it only after `handshake` has returned."""

    def __init__(self, sock: socket.socket, peer: Peer, context: ssl.SSLContext) -> None:
        super().__init__(sock, peer)
        self.recv_nowait = self._recv
        self.send_small = self.send_nowait
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._end: bytes | OSError | None = None
        self._records = b""
        self._ahead = 0

    async def handshake(self, turn: trio.Lock) -> bytes:
        """Agree with the peer on keys, and return what came after; `peer` then has the names in its certificate.

        Args:
            turn: held while computing; one for all connections of a relay.

        Raises:
            EOFError: the peer left during the handshake.
            BadHello: they did not agree, or the connection broke. The caller can only discard what the peer sends then.
        """
        read = 0
        try:
            while not await self._shake(turn):
                await self.wait_readable()
                with suppress(BlockingIOError):
                    read += self._read_socket(4096)
                if self._end is not None and not read:
                    raise EOFError
                if self._end is not None or read > HANDSHAKE_BYTES:
                    raise ConnectionResetError(f"no handshake in {read} bytes")
            self.peer = replace(self.peer, certificate_names=_names(self._engine))
            return self._decrypt()
        except OSError as error:
            self.recv_nowait = self._socket.recv
            raise BadHello(f"TLS: {_reason(error)}") from None

    async def _shake(self, turn: trio.Lock) -> bool:
        async with turn:
            try:
                self._engine.do_handshake()
            except ssl.SSLWantReadError:
                return False
            finally:
                self._flush_some()
            return True

    def _recv(self, size: int) -> bytes:
        if self._end is None:
            self._read_socket(min(size, PIECE))
            data = self._decrypt()
            if data:
                return data
        if self._end is None:
            raise BlockingIOError
        if isinstance(self._end, bytes):
            return self._end
        raise self._end

    def _read_socket(self, size: int) -> int:
        records = self._socket.recv(size)
        if records:
            self._incoming.write(records)
        else:
            self._end = b""
        return len(records)

    def _decrypt(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while self._incoming.pending:
                piece = self._engine.read(RECORD)
                if not piece:
                    raise ssl.SSLZeroReturnError
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end_with(b"")
        except OSError as error:
            self._end_with(error)
        if self._outgoing.pending:
            self._flush_some()
            if len(self._records) > ENGINE_BYTES:
                self._end_with(ConnectionResetError("it asks for more than it takes"))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end_with(self, end: bytes | OSError) -> None:
        self._end = end
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def send_nowait(self, data: bytes | bytearray | memoryview, /) -> int:
        self._flush()
        sent = min(self._ahead, len(data))
        self._ahead -= sent
        view = memoryview(data)
        try:
            while sent < len(data):
                self._ahead = self._engine.write(view[sent : sent + PIECE])
                self._flush()
                sent += self._ahead
                self._ahead = 0
        except BlockingIOError:
            if not sent:
                raise
        return sent

    def _flush(self) -> None:
        """Send the records that are there; raise BlockingIOError if the socket does not take them all."""
        self._records += self._outgoing.read()
        while self._records:
            self._records = self._records[self._socket.send(self._records) :]

    def _flush_some(self) -> None:
        # If the connection is broken, the next read reports it.
        with suppress(OSError):
            self._flush()

    def unsent(self) -> int:
        return super().unsent() + len(self._records)

    def shut_sending(self) -> None:
        with suppress(OSError):  # the peer's own end of file is not waited for, nor is a handshake that failed
            self._engine.unwrap()
        self._flush_some()
        super().shut_sending()


def _names(engine: ssl.SSLObject) -> tuple[str, ...]:
    """Return the names of the peer's certificate: its fingerprint where it has none, nothing if it showed none."""
    try:
        certificate = engine.getpeercert()
    except (ValueError, ssl.SSLError) as error:
        # For example, a name that is not UTF-8, or an address of five bytes.
        raise OSError(f"its certificate cannot be read: {error}") from None
    if not certificate:
        return ()
    alternatives = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    names = tuple(shown for kind, name in alternatives if (shown := _shown(kind, name)))
    return names or (f"sha256:{sha256(engine.getpeercert(binary_form=True) or b'').hexdigest()}",)


def _shown(kind: str, name: str) -> str:
    """Return a name as the policy has it; empty if it could be taken for a name of another kind, or is none."""
    with suppress(ValueError):
        # OpenSSL has its own form of IPv6 addresses.
        address = str(ip_address(name.strip()))
        return address if kind == "IP Address" else ""
    if _FINGERPRINT.fullmatch(name):
        return ""
    if _SCHEME.match(name):
        return name if kind == "URI" else ""
    return name if kind == ("email" if "@" in name else "DNS") else ""


def _require(setting: str, path: Path, content: bytes, mark: bytes) -> None:
    if mark not in content:
        raise ConfigError(f"{setting}: {path} holds no PEM block that ends in {mark.decode()}")


def _no_password(files: TlsFiles) -> str:
    raise ConfigError(f"tls_key: {files.key} is encrypted; the relay needs a key without a passphrase")


def _reason(error: OSError) -> str:
    """Return why TLS failed, in a few words."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error)
