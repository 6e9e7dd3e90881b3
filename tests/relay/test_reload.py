"""Another configuration for a running relay: what takes effect, which sessions end, and what a failure leaves alone."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
import trio.testing
import trustme

from tests.relay.in_process import (
    CLOSING,
    EVENTS,
    JOINED,
    LEFT,
    PATIENCE,
    SYNCED,
    Client,
    claim,
    client_context,
    connect,
    hello,
    leaving_slowly,
    networks,
    refusal,
    running,
    write_tls_files,
)
from tests.wire.relay_process import RelayProcess
from triorelay.protocol import ConfigError, Refusal, parse_id_set
from triorelay.relay import Config, Peer, Principal, Relay, prepare

if TYPE_CHECKING:
    from pathlib import Path

LOCALHOST = (("127.0.0.1", 0),)
CA = trustme.CA()
DENIED = 7
TOKEN = b"a token of over 16 bytes"


def net(number: int, ids: str, to: str = "*") -> Principal:
    return Principal(
        name=f"net{number}", address=ip_network(f"127.0.0.{number}"), ids=parse_id_set(ids), to=parse_id_set(to)
    )


def policy(*principals: Principal) -> Config:
    return Config(tcp=LOCALHOST, principals=principals)


async def claim_with_events(relay: Relay, id: bytes, source: str = "127.0.0.1") -> Client:
    """Claim with events, and read the list of those present."""
    client = await connect(relay, source=source)
    await client.send(hello(id, EVENTS))
    await client.expect(id, b"\0")
    while await client.receive(4) != bytes((0, SYNCED, 0, 0)):
        pass
    return client


async def test_only_sessions_that_may_not_hold_their_id_any_more_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(policy(net(1, "A-C"), net(2, "D"))) as relay:
        a, b = await claim_with_events(relay, b"A"), await claim(relay, b"B")
        d = await claim(relay, b"D", source="127.0.0.2")
        await a.expect(bytes((0, JOINED, 0, ord("B"), 0, JOINED, 0, ord("D"))))
        relay.reload(policy(net(1, "B-C")))
        # A gets the reason; D's principal is gone.
        assert (await a.read_to_end()).endswith(bytes((0, CLOSING, 0, DENIED)))
        assert await d.read_to_end() == b""
        await b.settle(b"B")
        assert relay.sessions_ended["tcp", "denied"] == 2
        assert await refusal(relay, b"A") == Refusal.NOT_ALLOWED
        assert await refusal(relay, b"D", source="127.0.0.2") == Refusal.AUTHENTICATION
        await claim(relay, b"C")
    assert "reloaded" in [record.getMessage() for record in caplog.records]


async def test_the_allowed_destinations_change_for_sessions_that_stay() -> None:
    async with running(policy(net(1, "A", "B-C"), net(2, "B-C"))) as relay:
        a = await claim(relay, b"A")
        b, c = [await claim(relay, id, source="127.0.0.2") for id in (b"B", b"C")]
        await a.send(b"B1C1")
        await b.expect(b"A1")
        await c.expect(b"A1")
        relay.reload(policy(net(1, "A", "C"), net(2, "B-C")))
        await a.send(b"B2C2")
        await c.expect(b"A2")
        relay.reload(policy(net(1, "A", "*"), net(2, "B-C", "B")))
        await a.send(b"B3C3")
        await b.expect(b"A3")
        await c.expect(b"A3")
        # The way back, for a single frame too, which has a shorter way when everything is allowed.
        await b.send(b"A4")
        await b.settle(b"B")
        denied = {(s, d): count for (s, d, reason), count in relay.ledger.dropped.items() if reason.value == "denied"}
        assert denied == {(ord("A"), ord("B")): 1, (ord("B"), ord("A")): 1}


async def test_clients_that_become_visible_join_and_those_that_become_invisible_leave() -> None:
    async with running(policy(net(1, "A", "B"), net(2, "B-C", "B-C"))) as relay:
        a = await claim_with_events(relay, b"A")
        for id in (b"B", b"C"):
            await claim(relay, id, source="127.0.0.2")
        await a.expect(bytes((0, JOINED, 0, ord("B"))))
        relay.reload(policy(net(1, "A", "C"), net(2, "B-C", "B-C")))
        await a.expect(bytes((0, JOINED, 0, ord("C"), 0, LEFT, 0, ord("B"))))


async def test_a_paused_frame_that_may_not_come_any_more_is_denied_before_its_source_has_left() -> None:
    config = policy(net(1, "A", "B"), net(2, "B", "B"))
    async with running(replace(config, queue_bytes=2, stall_timeout=0)) as relay:
        b = await connect(relay, source="127.0.0.2")
        await b.send(hello(b"B", EVENTS))
        await b.expect(b"B\0", bytes((0, JOINED, 0, ord("B"), 0, SYNCED, 0, 0)))
        a = await claim(relay, b"A")
        sender = relay.exchange.registry.holder(ord("A"))
        assert sender is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send, b"B1" * 4_000_000)
            while not sender.waits:
                await trio.testing.wait_all_tasks_blocked()
            relay.reload(policy(net(1, "A", "A"), net(2, "B", "B")))
            assert not sender.waits
            assert await b.receive(4) == bytes((0, JOINED, 0, ord("A")))
            while (frame := await b.receive(2)) != bytes((0, LEFT)):
                assert frame == b"A1"
            await b.expect(bytes((0, ord("A"))))
            await b.send(b"B2")
            await b.expect(b"B2")
            nursery.cancel_scope.cancel()


async def test_a_session_is_judged_by_the_token_that_it_gave(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(TOKEN)
    config = policy(Principal(name="t", token_file=file), net(1, "A"))
    async with running(config) as relay:
        a = await claim(relay, b"A", token=TOKEN)
        relay.reload(config)
        await a.settle(b"A")
        file.write_bytes(b"another token of 16 bytes")
        relay.reload(config)
        # That its address would do is no help: it gave a token.
        assert await a.read_to_end() == b""
        await claim(relay, b"A", token=b"another token of 16 bytes")


async def test_the_address_map_and_the_address_filter_are_reloaded() -> None:
    mapped = Config(tcp=LOCALHOST, address_map={ip_address("127.0.0.2"): ord("M"), ip_address("127.0.0.3"): ord("N")})
    async with running(mapped) as relay:
        m, n = await connect(relay, source="127.0.0.2"), await connect(relay, source="127.0.0.3")
        await m.settle(b"M")
        await n.settle(b"N")
        h = await claim(relay, b"H")
        # H came by a hello; that its address is mapped now concerns its next connection.
        addresses = {"127.0.0.1": "X", "127.0.0.2": "M", "127.0.0.3": "O"}
        relay.reload(replace(mapped, address_map={ip_address(ip): ord(id) for ip, id in addresses.items()}))
        assert await n.read_to_end() == b""
        await m.settle(b"M")
        await h.settle(b"H")
        relay.reload(replace(mapped, allow=networks("127.0.0.2/32")))
        assert await h.read_to_end() == b""
        await m.settle(b"M")
        assert relay.sessions_ended["tcp", "denied"] == 2


async def test_new_connections_get_the_new_certificate_and_old_ones_stay(tmp_path: Path) -> None:
    context = client_context(CA)
    config = Config(tls=LOCALHOST, tls_files=write_tls_files(tmp_path, CA, names=("127.0.0.1", "old.example")))
    async with running(config) as relay:
        a = await claim(relay, b"A", tls=context)
        write_tls_files(tmp_path, CA, names=("127.0.0.1", "new.example"))
        relay.reload(config)
        b = await claim(relay, b"B", tls=context)
        for client, name in ((a, "old.example"), (b, "new.example")):
            certificate = client.stream.getpeercert()  # type: ignore[attr-defined]
            assert ("DNS", name) in certificate["subjectAltName"]
        await a.send(b"B1")
        await b.expect(b"A1")


@pytest.mark.parametrize("fault", ["certificate", "token", "no certificate"])
async def test_a_reload_that_fails_changes_nothing_at_all(fault: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(TOKEN)
    files = write_tls_files(tmp_path, CA)
    old = Config(
        tcp=LOCALHOST, tls=LOCALHOST, tls_files=files, principals=(Principal(name="t", token_file=token), net(1, "A-B"))
    )
    new = replace(old, principals=(Principal(name="t", token_file=token), net(1, "B")))
    async with running(old) as relay:
        a = await claim(relay, b"A")
        if fault == "certificate":
            files.certificate.write_text("no certificate")
        elif fault == "token":
            token.write_bytes(b"short")
        else:
            new = replace(new, tls=(), tls_files=None)
        before = (relay.config, relay.policy, relay.tls)
        with pytest.raises(ConfigError):
            relay.reload(new)
        assert (relay.config, relay.policy, relay.tls) == before
        await a.settle(b"A")
        await claim(relay, b"B", tls=client_context(CA), token=TOKEN)


async def test_a_claim_that_waits_is_judged_by_the_policy_of_its_moment() -> None:
    async with leaving_slowly(Config()) as (memory, _):
        again = memory._listener.connect(Peer("memory", "", uid=1))
        await again.send_all(hello(b"A"))
        await trio.testing.wait_all_tasks_blocked()
        memory.relay.reload(Config(principals=(Principal(name="me", uid=1, ids=parse_id_set("C")),)))
        assert await again.receive_some() == bytes((ord("A"), Refusal.NOT_ALLOWED))
        again.close()


async def test_a_mapped_client_that_waits_for_its_id_while_the_map_changes_does_not_get_it() -> None:
    address = ip_address("10.0.0.1")
    config = Config(address_map={address: ord("A")})
    async with leaving_slowly(config) as (memory, b):
        again = memory._listener.connect(Peer("tcp", "10.0.0.1:1", address))
        await trio.testing.wait_all_tasks_blocked()
        memory.relay.reload(Config())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Client(b).read_to_end)
            with trio.fail_after(PATIENCE):
                assert await again.receive_some() == b""
            nursery.cancel_scope.cancel()
        assert memory.relay.sessions_ended["tcp", "not_allowed"] == 1
        again.close()


async def test_settings_that_take_a_restart_are_named(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Config(tcp=LOCALHOST)) as relay:
        relay.reload(Config(tcp=(), unix=("other",), queue_bytes=9999, allow=networks("127.0.0.0/8")))
        assert relay.config.queue_bytes == Config().queue_bytes
        assert relay.config.allow == networks("127.0.0.0/8")
    fields = [record.fields for record in caplog.records if "restart" in record.getMessage()]  # type: ignore[attr-defined]
    assert fields == [{"settings": ["unix", "tcp", "queue_bytes"]}]


POLICY = f"""
[principals.me]
uid = {os.getuid()}
ids = "{{ids}}"
"""


def test_sighup_reads_the_configuration_again(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, config=POLICY.format(ids="A-B")) as relay:
        a, b = relay.claim(b"A"), relay.claim(b"B")
        file = tmp_path / "relay.toml"
        file.write_text("nonsense = true")
        relay.process.send_signal(signal.SIGHUP)
        assert "nonsense" in relay.wait_for_line("reload failed")
        a.settle(b"A")
        file.write_text(POLICY.format(ids="B"))
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_for_line("reloaded")
        a.expect_end()
        b.settle(b"B")


async def test_a_reload_that_would_let_more_clients_in_is_refused_and_the_old_policy_stays(tmp_path: Path) -> None:
    files = write_tls_files(tmp_path, CA)
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    mutual = replace(files, client_ca=tmp_path / "ca.pem")
    old = Config(tcp=LOCALHOST, tls=LOCALHOST, tls_files=mutual, principals=(net(1, "A"),))
    weaker = {
        "principals: there are none any more": replace(old, principals=()),
        "tls_client_ca: it is missing": replace(old, tls_files=files),
        "tls_cert: it is missing": replace(old, tls=(), tls_files=None),
    }
    async with running(old) as relay:
        before = (relay.config, relay.policy, relay.tls)
        for complaint, config in weaker.items():
            with pytest.raises(ConfigError, match=f"^{complaint}.*restart the relay if you mean it$"):
                relay.reload(config)
            assert (relay.config, relay.policy, relay.tls) == before
        relay.reload(old)


async def test_what_was_prepared_needs_no_file_any_more(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(TOKEN)
    config = policy(Principal(name="t", token_file=token))
    async with running(policy(net(1, "A"))) as relay:
        prepared = prepare(config)
        token.unlink()
        relay.take_over(prepared)
        await claim(relay, b"A", token=TOKEN)
