"""TLS listeners: the connection alone, driven by a client that controls every byte, and behind a whole relay."""

from __future__ import annotations

import fcntl
import os
import random
import re
import select
import socket
import ssl
import struct
import termios
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.relay.in_process import (
    PATIENCE,
    Client,
    claim,
    client_context,
    connect,
    connect_silently,
    connect_unix,
    hello,
    port,
    running,
    write_tls_files,
)
from triorelay.protocol import ConfigError
from triorelay.protocol._hello import BadHello
from triorelay.relay import Config, TlsFiles
from triorelay.relay._connection import Peer
from triorelay.relay._tls import ENGINE_BYTES, RECORD, TlsConnection, _shown, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOCALHOST = (("127.0.0.1", 0),)

CA = trustme.CA()
OTHER_CA = trustme.CA()
ARM = CA.issue_cert("arm.robot.example", "fe80::1")


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return write_tls_files(tmp_path, CA)


@pytest.fixture
def mutual(tmp_path: Path) -> TlsFiles:
    return write_tls_files(tmp_path, CA, client_ca=CA)


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


# -- the connection alone


@dataclass
class Pair:
    """A connection of the relay and its client: a TLS engine whose bytes go over the socket when the test says so."""

    relay: TlsConnection
    socket: socket.socket
    engine: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    early: bytes = b""
    """What came with the end of the handshake."""

    def send(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def receive(self) -> bytes:
        """Return the data of what has arrived; empty at the end of file too."""
        with suppress(BlockingIOError):
            self.incoming.write(self.socket.recv(1 << 20))
        received = b""
        while self.incoming.pending:
            try:
                received += self.engine.read(1 << 16)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                break
        return received

    def wait_input(self) -> None:
        """Wait as the pump does: for the kernel to say that there is input."""
        poll = select.poll()
        poll.register(self.relay.fileno, select.POLLIN)
        assert poll.poll(1000 * PATIENCE), "bytes are missing, and nothing says that there is input"

    def receive_by_relay(self, size: int) -> bytes:
        """Return `size` bytes that the relay's end reads, only ever when the kernel says that there is input."""
        received = b""
        while len(received) < size:
            self.wait_input()
            try:
                chunk = self.relay.recv_nowait(random.Random(len(received)).choice([512, 4096, 65536]))
            except BlockingIOError:
                continue
            assert chunk, f"end of file after {len(received)} of {size} bytes"
            received += chunk
        return received


async def shake_hands(relay: TlsConnection, client: socket.socket, *, with_last: bytes = b"") -> Pair:
    """Return the pair after the handshake; the data `with_last` goes out in one segment with the client's last part."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = client_context(CA).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    pair = Pair(relay, client, engine, incoming, outgoing)
    client.setblocking(False)

    async def shake() -> None:
        while True:
            try:
                engine.do_handshake()
            except ssl.SSLWantReadError:
                pair.send()
                await trio.lowlevel.wait_readable(client)
                incoming.write(client.recv(65_536))
            else:
                engine.write(with_last)
                return pair.send()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake)
            pair.early = await relay.handshake(trio.Lock())
    client.setblocking(True)
    return pair


@pytest.fixture
async def ends(files: TlsFiles) -> AsyncIterator[tuple[TlsConnection, socket.socket]]:
    """The two ends of a connection before the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        relay = TlsConnection(accepted, Peer("tls", "test"), server_context(files))
        yield relay, client
        relay.close()


@pytest.fixture
async def pair(ends: tuple[TlsConnection, socket.socket]) -> Pair:
    return await shake_hands(*ends)


async def test_being_readable_tells_of_every_record_whatever_its_size(pair: Pair) -> None:
    sizes = random.Random(1)
    data = noise(2_000_000, 2)
    sent = 0
    while sent < len(data):
        # A write of over 16 KiB is several records; several small writes leave in one segment.
        batch = b""
        for _ in range(sizes.randrange(1, 8)):
            piece = data[sent : sent + sizes.choice([1, 2, 3, 100, 16_383, 16_384, 16_385, 60_000])]
            pair.engine.write(piece)
            sent += len(piece)
            batch += piece
        records = pair.outgoing.read()
        cut = sizes.randrange(len(records))
        pair.socket.sendall(records[:cut])
        pair.socket.sendall(records[cut:])
        assert pair.receive_by_relay(len(batch)) == batch


async def test_what_came_with_the_end_of_the_handshake_is_there_at_once(
    ends: tuple[TlsConnection, socket.socket],
) -> None:
    pair = await shake_hands(*ends, with_last=b"A\x81A1")
    assert pair.early == b"A\x81A1"
    with pytest.raises(BlockingIOError):
        pair.relay.recv_nowait(512)


@pytest.mark.parametrize("retry", [1, 2, 4096, 16_384, 1 << 20])
async def test_a_send_that_the_kernel_refused_may_go_on_with_less_or_more(pair: Pair, retry: int) -> None:
    data = noise(3_000_000, 3)
    sent = 0
    received = b""
    size = 65_536
    pair.socket.setblocking(False)
    while len(received) < len(data):
        try:
            if sent < len(data):
                offered = memoryview(data)[sent : sent + size]
                taken = pair.relay.send_nowait(offered)
                assert 0 < taken <= len(offered)
                sent += taken
                size = 65_536
        except BlockingIOError:
            size = retry
            received += pair.receive()
        else:
            if sent == len(data):
                received += pair.receive()
    assert received == data


async def test_nothing_counts_as_taken_before_the_kernel_has_it(pair: Pair) -> None:
    taken = 0
    with suppress(BlockingIOError):
        while True:
            taken += pair.relay.send_nowait(bytes(65_536))
    pair.relay.close()
    pair.socket.setblocking(False)
    received = 0
    while chunk := len(pair.receive()):
        received += chunk
    assert received >= taken > 0


async def test_a_small_read_gets_no_more_than_a_record(pair: Pair) -> None:
    pair.engine.write(bytes(4 * RECORD))
    sent = pair.outgoing.pending
    pair.send()
    while _unread(pair.relay.fileno) < sent:
        pair.wait_input()
    received = b""
    while not received:
        with suppress(BlockingIOError):
            received = pair.relay.recv_nowait(512)
    assert len(received) == RECORD
    assert sent - _unread(pair.relay.fileno) <= RECORD + 512


def _unread(descriptor: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])


async def test_after_a_handshake_that_failed_input_can_be_discarded(
    ends: tuple[TlsConnection, socket.socket],
) -> None:
    relay, client = ends
    client.sendall(b"no handshake at all")
    with pytest.raises(BadHello, match=r"^TLS: (record layer failure|wrong version number)$"):
        await relay.handshake(trio.Lock())
    relay.shut_sending()
    client.sendall(b"more")
    client.shutdown(socket.SHUT_WR)
    with trio.fail_after(PATIENCE):
        await relay.wait_readable()
    assert relay.recv_nowait(4096) == b"more"
    assert relay.recv_nowait(4096) == b""
    # The client reads an end, not a reset.
    assert client.recv(100) == b""


async def test_data_and_the_end_of_file_in_one_segment_both_arrive(pair: Pair) -> None:
    pair.engine.write(b"A1")
    with pytest.raises(ssl.SSLWantReadError):
        pair.engine.unwrap()
    pair.send()
    # The client's socket stays open: only the record says that it is the end.
    assert pair.receive_by_relay(2) == b"A1"
    pair.wait_input()
    assert pair.relay.recv_nowait(65_536) == b""
    assert pair.relay.hung_up()


async def test_a_connection_cut_without_close_notify_is_at_its_end(pair: Pair) -> None:
    pair.engine.write(b"A1")
    pair.send()
    pair.socket.shutdown(socket.SHUT_WR)
    assert pair.receive_by_relay(2) == b"A1"
    pair.wait_input()
    assert pair.relay.recv_nowait(65_536) == b""


async def test_data_before_garbage_arrives_and_then_the_connection_is_broken(pair: Pair) -> None:
    pair.engine.write(b"A1")
    pair.socket.sendall(pair.outgoing.read() + bytes(100))
    assert pair.receive_by_relay(2) == b"A1"
    pair.wait_input()
    with pytest.raises(OSError, match="SSL"):
        pair.relay.recv_nowait(65_536)


async def test_shutting_the_sending_side_says_so_and_leaves_the_other_open(pair: Pair) -> None:
    pair.relay.send_nowait(b"B2")
    pair.relay.shut_sending()
    assert pair.receive() == b"B2"
    # Without a close_notify the engine would want more.
    assert pair.engine.read(1) == b""
    pair.engine.write(b"A1A2")
    pair.send()
    assert pair.receive_by_relay(4) == b"A1A2"


async def test_a_peer_that_keeps_asking_for_new_keys_and_takes_nothing_is_disconnected(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush_nothing() -> None:
        pair.relay._records += pair.relay._outgoing.read()
        raise BlockingIOError

    monkeypatch.setattr(pair.relay, "_flush", flush_nothing)
    # Python's engine can't ask for new keys; the answers to a peer that does look like this.
    for _ in range(ENGINE_BYTES // 1000 + 1):
        pair.relay._outgoing.write(bytes(1000))
        pair.engine.write(b"A1")
        pair.send()
        assert pair.receive_by_relay(2) == b"A1"
    pair.wait_input()
    with pytest.raises(ConnectionResetError):
        pair.relay.recv_nowait(65_536)


# -- behind a relay


# The records of one message of 61,440 bytes, as far as the relay might read them.
ENDLESS = b"\x16\x03\x01\x40\x00\x01\x00\xf0\x00" + bytes(16_380) + (b"\x16\x03\x01\x40\x00" + bytes(16_384)) * 2


async def test_clients_of_all_transports_reach_each_other(files: TlsFiles, tmp_path: Path) -> None:
    config = Config(unix=(str(tmp_path / "socket"),), tcp=LOCALHOST, tls=LOCALHOST, tls_files=files)
    async with running(config) as relay:
        a = await claim(relay, b"A", tls=client_context(CA))
        b = await claim(relay, b"B")
        c = await connect_unix(relay)
        await c.send(hello(b"C"))
        await c.expect(b"C\0")
        clients = {b"A": a, b"B": b, b"C": c}
        for source, sender in clients.items():
            for destination, receiver in clients.items():
                await sender.send(destination, b"1")
                await receiver.expect(source, b"1")


async def test_a_flood_that_is_read_late_arrives_whole(files: TlsFiles) -> None:
    context = client_context(CA)
    data = noise(1_500_000, 4)
    frames = bytearray(2 * len(data))
    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        a, b = await claim(relay, b"A", tls=context), await claim(relay, b"B", tls=context)
        frames[0::2], frames[1::2] = b"B" * len(data), data
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send, bytes(frames))
            while not relay.exchange.registry.holder(ord("A")).waits:  # type: ignore[union-attr]
                await trio.lowlevel.checkpoint()
            received = await b.receive(len(frames))
        assert received[0::2] == b"A" * len(data)
        assert received[1::2] == data


async def test_silent_peers_hold_up_no_client_and_are_closed_in_time(files: TlsFiles) -> None:
    async with running(Config(tls=LOCALHOST, tls_files=files, hello_timeout=1)) as relay:
        silent = [await connect_silently(relay, "tls") for _ in range(50)]
        a = await claim(relay, b"A", tls=client_context(CA))
        for client in silent:
            assert await client.read_to_end() == b""
        assert relay.sessions_ended["tls", "hello_timeout"] == 50
        await a.settle(b"A")


class Passes(trio.abc.Instrument):
    """Counts the passes of the scheduler."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_a_crowd_of_handshakes_takes_turns(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes()
    steps = []
    shake = ssl.SSLObject.do_handshake

    def shake_and_note(engine: ssl.SSLObject) -> None:
        steps.append(passes.count)
        shake(engine)

    # What a client sends first, several times over: the relay finds all of it there at once.
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client_context(CA).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
    first = outgoing.read()
    monkeypatch.setattr(ssl.SSLObject, "do_handshake", shake_and_note)
    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        trio.lowlevel.add_instrument(passes)
        clients = [await connect_silently(relay, "tls") for _ in range(20)]
        for client in clients:
            client.stream.socket._sock.send(first)  # type: ignore[attr-defined]
        for client in clients:
            await client.receive(1)
        trio.lowlevel.remove_instrument(passes)
    # The first look of each, which finds nothing yet, and the second.
    assert len(steps) >= 40
    assert len(set(steps)) == len(steps)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "http request"),
        (b"A\x81A1A2A3", "wrong version number"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(7), "no handshake in 18 bytes"),
        (noise(64, 5), "wrong version number"),
        (ENDLESS, "no handshake in 3"),
    ],
    ids=["http", "plain hello", "truncated", "noise", "endless"],
)
async def test_a_peer_that_does_not_speak_tls_gets_no_id(
    files: TlsFiles, first: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        caplog.clear()
        client = await connect_silently(relay, "tls")
        await client.send(first)
        await client.stream.send_eof()  # type: ignore[attr-defined]
        assert b"A\0" not in await client.read_to_end()
        assert len(relay.exchange.registry) == 0
    refusals = [record for record in caplog.records if record.getMessage() == "client refused"]
    assert len(refusals) == 1
    assert why in refusals[0].fields["reason"]  # type: ignore[attr-defined]


async def test_older_versions_of_tls_are_refused(files: TlsFiles) -> None:
    context = client_context(CA)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        client = await connect(relay, tls=context)
        with pytest.raises(trio.BrokenResourceError) as broken:
            await client.send(hello(b"A"))
        assert "PROTOCOL_VERSION" in str(broken.value.__cause__)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_certificates_identify_clients(mutual: TlsFiles, version: ssl.TLSVersion) -> None:
    context = client_context(CA, ARM)
    context.minimum_version = context.maximum_version = version
    async with running(Config(tls=LOCALHOST, tls_files=mutual)) as relay:
        a = await claim(relay, b"A", tls=context)
        session = relay.exchange.registry.holder(ord("A"))
        assert session is not None
        assert session.connection.peer.certificate_names == ("arm.robot.example", "fe80::1")
        assert session.principal == "certificate:arm.robot.example"
        await a.settle(b"A")


async def test_a_certificate_with_other_names_than_hosts_identifies_a_client_too(mutual: TlsFiles) -> None:
    by_mail, nameless = CA.issue_cert("alice@example.org"), CA.issue_cert(common_name="alice")
    config = Config(tls=LOCALHOST, tls_files=mutual, allow=())
    async with running(config) as relay:
        for id, certificate, name in ((b"A", by_mail, "alice@example.org"), (b"B", nameless, "sha256:[0-9a-f]{64}")):
            client = await claim(relay, id, tls=client_context(CA, certificate))
            session = relay.exchange.registry.holder(id[0])
            assert session is not None
            assert re.fullmatch(f"certificate:{name}", session.principal)
            await client.settle(id)


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("DNS", "arm.example", "arm.example"),
        ("email", "a@example.org", "a@example.org"),
        ("URI", "spiffe://example/arm", "spiffe://example/arm"),
        ("IP Address", " FE80:0:0:0:0:0:0:1", "fe80::1"),
        ("URI", "sha256:" + 64 * "a", ""),
        ("DNS", "sha256:" + 64 * "a", ""),
        ("DNS", "a@example.org", ""),
        ("DNS", "10.0.0.1", ""),
        ("URI", "arm.example", ""),
        ("email", "urn:x@y", ""),
        ("IP Address", "<invalid length=5>", ""),
        ("DirName", "arm.example", ""),
    ],
)
def test_a_name_counts_only_where_it_has_the_form_of_its_own_kind(kind: str, name: str, shown: str) -> None:
    assert _shown(kind, name) == shown


@pytest.mark.parametrize(
    ("names", "outcome"),
    [(b"\x87\x05\x0a\x00\x00\x01\x02", "certificate:sha256:"), (b"\x82\x03\xff\xfea", None)],
    ids=["an address of five bytes", "a name that is no UTF-8"],
)
async def test_a_certificate_with_unreadable_names_costs_one_line(
    mutual: TlsFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture, names: bytes, outcome: str | None
) -> None:
    context = client_context(CA)
    context.load_cert_chain(certificate_with_names(tmp_path, bytes((0x30, len(names))) + names))
    async with running(Config(tls=LOCALHOST, tls_files=mutual)) as relay:
        if outcome is None:
            client = await connect(relay, tls=context)
            with suppress(trio.BrokenResourceError):
                await client.send(hello(b"A"))
                assert await client.read_to_end() == b""
        else:
            await (await claim(relay, b"A", tls=context)).settle(b"A")
            session = relay.exchange.registry.holder(ord("A"))
            assert session is not None
            assert session.principal.startswith(outcome)
    assert not [record for record in caplog.records if record.exc_info]


def certificate_with_names(directory: Path, names: bytes) -> Path:
    """Write a certificate of the CA, with its key, whose extension for names has just these bytes."""
    authority = x509.load_pem_x509_certificate(CA.cert_pem.bytes())
    authority_key = serialization.load_pem_private_key(CA.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(authority.subject, name, key.public_key(), 1, now, now + timedelta(days=1))
    builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), names), False)
    certificate = builder.sign(authority_key, hashes.SHA256())  # type: ignore[arg-type]
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = directory / "odd.pem"
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption()))
    return path


@pytest.mark.parametrize("certificate", [None, OTHER_CA.issue_cert("arm.robot.example")], ids=["none", "other CA"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_without_a_certificate_of_the_client_ca_a_client_is_refused(
    mutual: TlsFiles,
    certificate: trustme.LeafCert | None,
    version: ssl.TLSVersion,
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = client_context(CA, certificate)
    context.minimum_version = context.maximum_version = version
    async with running(Config(tls=LOCALHOST, tls_files=mutual)) as relay:
        client = await connect(relay, tls=context)
        # By TLS 1.3 the client's side of the handshake succeeds; what it gets then is an alert, and no reset.
        with pytest.raises(trio.BrokenResourceError) as broken:
            await _greet(client)
        assert isinstance(broken.value.__cause__, ssl.SSLError)
        assert "ALERT" in str(broken.value.__cause__)
        assert len(relay.exchange.registry) == 0
    assert [record.getMessage() for record in caplog.records].count("client refused") == 1


async def _greet(client: Client) -> None:
    await client.send(hello(b"A"))
    await client.receive(2)


async def test_a_client_that_only_writes_and_closes_loses_nothing(files: TlsFiles) -> None:
    data = noise(300_000, 6)
    frames = bytearray(2 * len(data))
    frames[0::2], frames[1::2] = b"B" * len(data), data

    def write_and_close(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            sock = client_context(CA).wrap_socket(plain, server_hostname="127.0.0.1")
            sock.sendall(hello(b"A", 0) + frames)
            sock.close()

    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        b = await claim(relay, b"B", tls=client_context(CA))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write_and_close, port(relay, "tls"))
            received = await b.receive(len(frames))
        assert received[1::2] == data
        await b.settle(b"B")
        assert relay.sessions_ended["tls", "left"] == 1


async def test_a_reset_differs_from_an_end_of_file(files: TlsFiles) -> None:
    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        a = await claim(relay, b"A", tls=client_context(CA))
        sock = a.stream.transport_stream.socket  # type: ignore[attr-defined]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        with trio.fail_after(PATIENCE):
            while relay.exchange.registry.holder(ord("A")):
                await trio.lowlevel.checkpoint()
        assert relay.sessions_ended["tls", "reset"] == 1


async def test_the_drain_ends_with_close_notify(files: TlsFiles) -> None:
    async with running(Config(tls=LOCALHOST, tls_files=files)) as relay:
        a = await claim(relay, b"A", tls=client_context(CA))
        await a.send(b"A1A2")
        relay.drain()
        # A connection that ends without it is broken, for Trio's stream.
        assert (await a.read_to_end())[:2] in (b"", b"A1")
        await a.close()


# -- the files


def test_each_fault_of_the_files_is_reported_in_one_line(tmp_path: Path, files: TlsFiles) -> None:
    other = tmp_path / "other"
    other.mkdir()
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nPRIVATE KEY-----\nno\n")
    empty = tmp_path / "empty.pem"
    empty.touch()
    others = write_tls_files(other, CA)
    faults = {
        TlsFiles(certificate=tmp_path / "none", key=files.key): r"^tls_cert: cannot read .*none: No such file",
        TlsFiles(certificate=files.certificate, key=tmp_path / "none"): r"^tls_key: cannot read .*none: No such file",
        TlsFiles(certificate=empty, key=files.key): r"^tls_cert: .*empty.pem holds no PEM",
        TlsFiles(certificate=files.key, key=files.key): r"^tls_cert: .*relay.key holds no PEM",
        TlsFiles(certificate=files.certificate, key=others.key): r"^tls_key: .* is not the key of the certificate",
        TlsFiles(certificate=garbage, key=files.key): r"^tls_cert, tls_key: ",
        TlsFiles(certificate=files.certificate, key=files.key, client_ca=empty): r"^tls_client_ca: .* holds no PEM",
        TlsFiles(certificate=files.certificate, key=files.key, client_ca=garbage): r"^tls_client_ca: .*garbage.pem",
        TlsFiles(certificate=files.certificate, key=other): r"^tls_key: cannot read .*other: Is a directory",
    }
    for faulty, message in faults.items():
        with pytest.raises(ConfigError, match=message) as error:
            server_context(faulty)
        assert "\n" not in str(error.value)


def test_a_key_with_a_passphrase_is_refused_without_a_prompt(tmp_path: Path, files: TlsFiles) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="without a passphrase"):
        server_context(TlsFiles(certificate=files.certificate, key=encrypted))


def test_certificate_key_and_authorities_are_read_once_so_that_they_may_be_pipes(
    tmp_path: Path, files: TlsFiles
) -> None:
    pipes = TlsFiles(certificate=tmp_path / "cert", key=tmp_path / "key", client_ca=tmp_path / "ca")
    authority = tmp_path / "authority.pem"
    CA.cert_pem.write_to_path(authority)
    contents = {pipes.certificate: files.certificate, pipes.key: files.key, tmp_path / "ca": authority}
    for fifo in contents:
        os.mkfifo(fifo)

    def write() -> None:
        for fifo, source in contents.items():
            fifo.write_bytes(source.read_bytes())

    writing = threading.Thread(target=write)
    writing.start()
    context = server_context(pipes)
    writing.join()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
