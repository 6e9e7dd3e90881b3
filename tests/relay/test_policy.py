"""Who may connect, hold and reach what: the policy alone, and what a relay makes of it."""

from __future__ import annotations

import hmac
import logging
import os
import socket
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.relay.in_process import (
    DROPPED,
    EVENTS,
    JOINED,
    LEFT,
    SYNCED,
    claim,
    client_context,
    connect,
    connect_silently,
    connect_unix,
    hello,
    networks,
    refusal,
    running,
    write_tls_files,
)
from triorelay import testing
from triorelay.protocol import ALL_IDS, ConfigError, Refusal, parse_id_set
from triorelay.relay import ANY_NETWORK, Config, Principal, TlsFiles
from triorelay.relay._admission import Admission
from triorelay.relay._connection import Peer
from triorelay.relay._policy import AddressRefused, Policy, Refused, UnknownToken, token_digest
from triorelay.relay._pump import EpollPoller

if TYPE_CHECKING:
    from pathlib import Path

LOCALHOST = (("127.0.0.1", 0),)
CA = trustme.CA()

TOKEN = b"a token of over 16 bytes"
ABROAD = "203.0.113.7"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    return path


def by_address(name: str, network: str, ids: str = "*", to: str = "*") -> Principal:
    return Principal(name=name, address=ip_network(network), ids=parse_id_set(ids), to=parse_id_set(to))


def tcp(ip: str) -> Peer:
    return Peer("tcp", f"{ip}:1", ip_address(ip))


def tls(ip: str, *names: str) -> Peer:
    return Peer("tls", f"{ip}:1", ip_address(ip), certificate_names=names)


# -- the policy alone


def test_the_first_proof_that_is_a_principals_decides(token_file: Path) -> None:
    principals = (
        by_address("weakest", "10.0.0.0/8"),
        Principal(name="user", uid=1000),
        Principal(name="machine", certificate="arm.robot.example"),
        Principal(name="holder", token_file=token_file),
    )
    policy = Policy(Config(principals=principals))
    # No real peer has a uid and an address; the order holds all the same.
    everything = Peer("tls", "", ip_address("10.1.2.3"), uid=1000, certificate_names=("x", "arm.robot.example"))
    assert policy.grant(everything, token_digest(TOKEN)).principal == "holder"
    assert policy.grant(everything).principal == "machine"
    assert policy.grant(replace(everything, certificate_names=("x",))).principal == "user"
    assert policy.grant(replace(everything, certificate_names=("x",), uid=1)).principal == "weakest"
    with pytest.raises(Refused) as refused:
        policy.grant(replace(everything, certificate_names=("x",), uid=1, ip=ip_address("10.0.0.0") - 1))
    assert refused.value.refusal is Refusal.AUTHENTICATION


def test_the_first_of_two_principals_with_the_same_proof_counts() -> None:
    policy = Policy(Config(principals=(by_address("one", "10.0.0.0/8"), by_address("two", "10.0.0.1/32"))))
    assert policy.grant(tcp("10.0.0.1")).principal == "one"


def test_only_an_address_proves_too_little_to_replace_a_session(token_file: Path) -> None:
    policy = Policy(
        Config(
            principals=(
                Principal(name="u", uid=1000),
                Principal(name="c", certificate="x"),
                Principal(name="t", token_file=token_file),
                by_address("a", "10.0.0.0/8"),
            )
        )
    )
    assert policy.grant(Peer("unix", "", uid=1000)).proven
    assert policy.grant(tls("10.0.0.1", "x")).proven
    assert policy.grant(tcp("127.0.0.1"), token_digest(TOKEN)).proven
    assert not policy.grant(tcp("10.0.0.1")).proven


def test_the_overflow_uid_matches_no_principal() -> None:
    policy = Policy(Config(principals=(Principal(name="nobody", uid=65534),)))
    with pytest.raises(Refused, match="no principal"):
        policy.grant(Peer("unix", "", uid=65534))
    assert not Policy(Config()).grant(Peer("unix", "", uid=65534)).proven


def test_an_unknown_token_is_refused_even_if_another_proof_matches(token_file: Path) -> None:
    policy = Policy(Config(principals=(Principal(name="u", uid=0), Principal(name="t", token_file=token_file))))
    with pytest.raises(UnknownToken):
        policy.grant(Peer("unix", "", uid=0), token_digest(TOKEN[:-1]))
    with pytest.raises(UnknownToken):
        Policy(Config()).grant(Peer("unix", "", uid=0), token_digest(TOKEN))


def test_every_token_is_compared_in_constant_time_as_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    principals = []
    for number in range(5):
        file = tmp_path / str(number)
        file.write_bytes(b"a token of %d bytes" % number + b"x" * 10 * number)
        principals.append(Principal(name=str(number), token_file=file))
    policy = Policy(Config(principals=tuple(principals)))
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def compare_and_note(known: bytes, given: bytes) -> bool:
        lengths.append((len(known), len(given)))
        return compare(known, given)

    monkeypatch.setattr("triorelay.relay._policy.hmac.compare_digest", compare_and_note)
    assert policy.grant(tcp("127.0.0.1"), token_digest(b"a token of 0 bytes")).principal == "0"
    assert lengths == [(32, 32)] * 5


@pytest.mark.parametrize(
    ("peer", "accepted"),
    [
        (Peer("unix", "", uid=7), True),
        (tcp("127.0.0.1"), True),
        (tcp("127.9.9.9"), True),
        (tcp("::1"), True),
        (tls("203.0.113.7"), True),
        (tcp("10.0.0.1"), False),
        (tcp("fe80::1"), False),
    ],
    ids=str,
)
def test_a_token_is_not_accepted_in_the_clear(peer: Peer, accepted: bool, token_file: Path) -> None:
    policy = Policy(Config(principals=(Principal(name="t", token_file=token_file), by_address("a", "0.0.0.0/0"))))
    if accepted:
        assert policy.grant(peer, token_digest(TOKEN)).principal == "t"
    else:
        with pytest.raises(Refused, match="in the clear"):
            policy.grant(peer, token_digest(TOKEN))


def test_a_token_file_that_cannot_be_one_is_reported_in_one_line(tmp_path: Path) -> None:
    contents = {"short": b"  123456789012345\n", "long": b"x" * 256, "empty": b"", "huge": b"x" * 100_000}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=r"^principals\.arm\.token_file: a token has 16 to 255 bytes, not \d+$"):
            Policy(Config(principals=(Principal(name="arm", token_file=tmp_path / name),)))
    with pytest.raises(ConfigError, match=r"^principals\.arm\.token_file: cannot read .*/none: No such file"):
        Policy(Config(principals=(Principal(name="arm", token_file=tmp_path / "none"),)))
    for size in (16, 255):
        (tmp_path / "right").write_bytes(b"x" * size)
        Policy(Config(principals=(Principal(name="arm", token_file=tmp_path / "right"),)))


def test_two_principals_cannot_share_a_token(token_file: Path) -> None:
    with pytest.raises(ConfigError, match="the token is one's too"):
        Policy(Config(principals=tuple(Principal(name=name, token_file=token_file) for name in ("one", "two"))))


def test_no_object_keeps_the_token(token_file: Path) -> None:
    policy = Policy(Config(principals=(Principal(name="t", token_file=token_file),)))
    grant = policy.grant(tcp("127.0.0.1"), token_digest(TOKEN))
    assert TOKEN not in repr((policy._config, policy._tokens, grant)).encode()


FILES = TlsFiles(certificate=None, key=None)  # type: ignore[arg-type]
MUTUAL = replace(FILES, client_ca="ca.pem")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        *((tcp(ip), True) for ip in ("127.0.0.1", "10.0.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1")),
        *((tcp(ip), True) for ip in ("::1", "fe80::1", "fd00::1")),
        *((tcp(ip), False) for ip in ("203.0.113.7", "172.32.0.1", "100.64.0.1", "2001:db8::1")),
        (tls("203.0.113.7"), False),
        (Peer("unix", "", uid=7), True),
    ],
    ids=str,
)
def test_what_proves_nothing_must_come_from_an_allowed_network(peer: Peer, allowed: bool) -> None:
    policy = Policy(Config(tls=LOCALHOST, tls_files=FILES))
    assert policy.admits(peer) is allowed
    if allowed:
        assert policy.grant(peer).ids == ALL_IDS
    else:
        with pytest.raises(AddressRefused):
            policy.grant(peer)
        assert Policy(Config(allow=ANY_NETWORK)).grant(peer).ids == ALL_IDS


def test_a_connection_that_may_still_give_a_proof_is_admitted(token_file: Path) -> None:
    token = (Principal(name="t", token_file=token_file),)
    nowhere = networks("192.0.2.0/24")
    assert not Policy(Config(allow=nowhere)).admits(tcp("127.0.0.1"))
    assert Policy(Config(allow=nowhere, principals=token)).admits(tcp("127.0.0.1"))
    assert not Policy(Config(allow=nowhere, principals=token)).admits(tcp("10.0.0.1"))
    assert Policy(Config(allow=nowhere, principals=token)).admits(tls("203.0.113.7"))
    assert not Policy(Config(allow=nowhere, tls=LOCALHOST, tls_files=FILES)).admits(tls("203.0.113.7"))
    assert Policy(Config(allow=nowhere, tls=LOCALHOST, tls_files=MUTUAL)).admits(tls("203.0.113.7"))


def test_a_proof_opens_what_the_address_does_not(token_file: Path) -> None:
    principals = (
        Principal(name="machine", certificate="arm"),
        Principal(name="holder", token_file=token_file),
        by_address("net", "203.0.113.0/24"),
    )
    policy = Policy(Config(principals=principals))
    assert policy.grant(tls("203.0.113.7", "arm")).principal == "machine"
    assert policy.grant(tls("203.0.113.7"), token_digest(TOKEN)).principal == "holder"
    # That an address is a principal's does not allow it.
    with pytest.raises(AddressRefused):
        policy.grant(tcp("203.0.113.7"))
    # A certificate of the authority admits it; but its address gives no principal, because that address is not allowed.
    with pytest.raises(Refused, match="no principal"):
        policy.grant(tls("203.0.113.7", "leg"))
    assert Policy(Config(principals=principals, allow=ANY_NETWORK)).grant(tls("203.0.113.7", "leg")).principal == "net"


def test_only_plain_tcp_is_looked_up_in_the_address_map() -> None:
    policy = Policy(Config(address_map={ip_address("10.0.0.5"): 80}))
    assert policy.id_without_hello(tcp("10.0.0.5")) == 80
    assert policy.id_without_hello(tls("10.0.0.5")) == 0
    assert policy.id_without_hello(tcp("10.0.0.6")) == 0
    assert policy.id_without_hello(Peer("unix", "A", bound_id=65, uid=0)) == 65


# -- behind a relay


TWO = (by_address("planner", "127.0.0.1/32", "P-R", "a"), by_address("arm", "127.0.0.2/32", "a,0xf0", "P-R"))


async def test_refusals_distinguish_authentication_from_permission() -> None:
    async with running(Config(tcp=LOCALHOST, principals=TWO)) as relay:
        await claim(relay, b"P")
        assert await refusal(relay, b"a") == Refusal.NOT_ALLOWED
        assert await refusal(relay, b"P", source="127.0.0.2") == Refusal.NOT_ALLOWED
        assert await refusal(relay, b"P", source="127.0.0.3") == Refusal.AUTHENTICATION
        await claim(relay, b"a", source="127.0.0.2")
        assert relay.exchange.registry.ids() == [ord("P"), ord("a")]


async def test_bound_and_mapped_clients_answer_to_the_policy_too(tmp_path: Path) -> None:
    mine = Principal(name="me", uid=os.getuid(), ids=parse_id_set("A"))
    config = Config(
        unix=(str(tmp_path / "socket"),),
        tcp=LOCALHOST,
        principals=(mine, by_address("net", "127.0.0.2/31", "C,D")),
        address_map={ip_address(f"127.0.0.{number}"): id for number, id in ((1, 67), (2, 67), (3, 69))},
    )
    async with running(config) as relay:

        async def bound(name: str) -> trio.SocketStream:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(str(tmp_path / name))
            await sock.connect(str(tmp_path / "socket"))
            return trio.SocketStream(sock)

        async with await bound("A") as a, await bound("B") as b:
            await a.send_all(b"A1")
            assert await a.receive_some(2) == b"A1"
            assert await b.receive_some() == b""
        for source in ("127.0.0.1", "127.0.0.3"):
            assert await (await connect(relay, source=source)).read_to_end() == b""
        c = await connect(relay, source="127.0.0.2")
        await c.settle(b"C")


async def test_frames_to_an_id_that_is_not_allowed_are_dropped_and_reported() -> None:
    async with running(Config(tcp=LOCALHOST, principals=TWO)) as relay:
        arm = await claim(relay, b"a", source="127.0.0.2")
        p, q = await connect(relay), await claim(relay, b"Q")
        await p.send(hello(b"P", EVENTS))
        await p.expect(b"P\0", bytes((0, JOINED, 0, ord("a"), 0, SYNCED, 0, 0)))
        await p.send(b"Q1a2Q3a4\0\0\0\0")
        await arm.expect(b"P2P4")
        await p.expect(bytes((0, DROPPED, 0, ord("Q"))))
        await q.send(b"\0a")
        await q.send(b"a5")
        await arm.expect(b"Q5")
        await p.send(b"a6")
        await arm.expect(b"P6")
        accepted = relay.ledger.accepted[ord("P")]
        await p.send(b"Q7")  # a frame alone takes a way of its own
        while relay.ledger.accepted[ord("P")] == accepted:
            await trio.lowlevel.checkpoint()
        dropped = {(s, d, reason.value): count for (s, d, reason), count in relay.ledger.dropped.items()}
        assert dropped == {
            (ord("P"), ord("Q"), "denied"): 3,
            (ord("P"), 0, "no_route"): 2,
            (ord("Q"), 0, "no_route"): 1,
        }


async def test_presence_covers_only_clients_that_one_may_send_to_or_hear_from() -> None:
    principals = (
        by_address("sees B, and is heard by C", "127.0.0.1/32", "A", "B"),
        by_address("everybody", "127.0.0.2/32", "B", "*"),
        by_address("speaks to A", "127.0.0.3/32", "C", "A"),
        by_address("no part of it", "127.0.0.4/32", "D", "B"),
    )
    async with running(Config(tcp=LOCALHOST, principals=principals)) as relay:
        a = await connect(relay, source="127.0.0.1")
        await a.send(hello(b"A", EVENTS))
        await a.expect(b"A\0", bytes((0, SYNCED, 0, 0)))
        observer = await connect(relay, source="127.0.0.4")
        await observer.send(hello(b"\0", EVENTS))
        await observer.expect(b"\0\0", bytes((0, SYNCED, 0, 0)))
        others = [await claim(relay, id, source=f"127.0.0.{n}") for n, id in ((4, b"D"), (3, b"C"), (2, b"B"))]
        await a.expect(bytes((0, JOINED, 0, ord("C"), 0, JOINED, 0, ord("B"))))
        # An observer may know what a client of its principal might.
        await observer.expect(bytes((0, JOINED, 0, ord("B"))))
        for client in others:
            await client.close()
            await a.send(b"\0\x08\0\x01")
        await others[2].close()
        seen = await a.receive(5 * 4)
        events = [seen[at + 1 : at + 4 : 2] for at in range(0, len(seen), 4) if seen[at + 1] == LEFT]
        assert sorted(events) == [bytes((LEFT, ord("B"))), bytes((LEFT, ord("C")))]
        await observer.expect(bytes((0, LEFT, 0, ord("B"))))


async def test_any_free_id_is_one_that_the_principal_may_hold() -> None:
    async with running(Config(tcp=LOCALHOST, principals=TWO)) as relay:
        arm = await connect(relay, source="127.0.0.2")
        await arm.send(hello(b"\0"))
        await arm.expect(b"\xf0\0")
        assert await refusal(relay, b"\0", source="127.0.0.2") == Refusal.FULL
        assert await refusal(relay, b"\0") == Refusal.NOT_ALLOWED


async def test_replacing_takes_the_same_principal_and_a_proof(token_file: Path, tmp_path: Path) -> None:
    other_file = tmp_path / "other"
    other_file.write_bytes(b"another token of 16 bytes")
    principals = (
        Principal(name="one", token_file=token_file),
        Principal(name="two", token_file=other_file),
        by_address("net", "127.0.0.0/8"),
    )
    async with running(Config(tcp=LOCALHOST, principals=principals, duplicate="replace")) as relay:
        first = await claim(relay, b"A", token=TOKEN)
        assert await refusal(relay, b"A", token=b"another token of 16 bytes") == Refusal.TAKEN
        assert await refusal(relay, b"A") == Refusal.TAKEN
        second = await claim(relay, b"A", token=TOKEN)
        assert await first.read_to_end() == b""
        await second.settle(b"A")
        await claim(relay, b"B")
        assert await refusal(relay, b"B") == Refusal.TAKEN


async def test_certificates_name_principals(tmp_path: Path) -> None:
    files = write_tls_files(tmp_path, CA, client_ca=CA)
    principals = (Principal(name="arm", certificate="arm.robot.example", ids=parse_id_set("a")),)
    arm = client_context(CA, CA.issue_cert("arm.robot.example"))
    leg = client_context(CA, CA.issue_cert("leg.robot.example"))
    # No address is allowed: a certificate does without.
    config = Config(tls=LOCALHOST, tls_files=files, principals=principals, allow=networks("192.0.2.0/24"))
    async with running(config) as relay:
        await claim(relay, b"a", tls=arm)
        assert await refusal(relay, b"b", tls=arm) == Refusal.NOT_ALLOWED
        assert await refusal(relay, b"a", tls=leg) == Refusal.AUTHENTICATION
        holder = relay.exchange.registry.holder(ord("a"))
        assert holder is not None
        assert holder.principal == "arm"


async def test_tokens_are_accepted_by_tls_unix_and_loopback_and_shown_nowhere(
    token_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = Config(
        unix=(str(tmp_path / "socket"),),
        tcp=LOCALHOST,
        tls=LOCALHOST,
        tls_files=write_tls_files(tmp_path, CA),
        principals=(Principal(name="t", token_file=token_file),),
    )
    async with running(config) as relay:
        await claim(relay, b"A", token=TOKEN)
        await claim(relay, b"B", token=TOKEN, tls=client_context(CA))
        c = await connect_unix(relay)
        await c.send(hello(b"C", token=TOKEN))
        await c.expect(b"C\0")
        assert await refusal(relay, b"D", token=TOKEN + b"!") == Refusal.AUTHENTICATION
        assert await refusal(relay, b"D") == Refusal.AUTHENTICATION
        shown = repr((relay.snapshot(), [vars(record) for record in caplog.records]))
        assert "'t'" in shown
        assert TOKEN.decode() not in shown


async def test_a_refused_address_is_logged_once_with_the_flag_that_lets_it_in(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Config(tcp=LOCALHOST, allow=networks("192.0.2.0/24"))) as relay:
        for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
            client = await connect_silently(relay, "tcp", source)
            assert await client.read_to_end() == b""
        assert relay.sessions_ended["tcp", "address"] == 3
    lines = [record.fields for record in caplog.records if record.getMessage() == "address refused"]  # type: ignore[attr-defined]
    assert [line["hint"] for line in lines] == [
        "to let it in, add --allow 127.0.0.1",
        "to let it in, add --allow 127.0.0.2",
    ]


async def test_the_flag_that_lets_an_address_in_keeps_the_default_that_it_would_replace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(Config(tcp=LOCALHOST)) as relay, trio.open_nursery() as nursery:
        poller = EpollPoller()
        client, accepted = socket.socketpair()
        with client:
            Admission(relay, nursery, poller).accept(accepted, tcp(ABROAD))
            assert client.recv(1) == b""
        poller.close()
    (line,) = [record.fields for record in caplog.records if record.getMessage() == "address refused"]  # type: ignore[attr-defined]
    assert line["hint"] == f"to let it in, add --allow private --allow {ABROAD}"


async def test_a_tls_client_that_proves_nothing_is_an_address_like_any_other(
    token_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(
        tls=LOCALHOST,
        tls_files=write_tls_files(tmp_path, CA),
        allow=networks("192.0.2.0/24"),
        principals=(Principal(name="t", token_file=token_file),),
    )
    async with running(config) as relay:
        assert await refusal(relay, b"A", tls=client_context(CA)) == Refusal.AUTHENTICATION
        await claim(relay, b"A", tls=client_context(CA), token=TOKEN)
    lines = [record.fields for record in caplog.records if record.getMessage() == "address refused"]  # type: ignore[attr-defined]
    assert [line["hint"] for line in lines] == ["to let it in, add --allow 127.0.0.1"]


async def test_after_many_wrong_tokens_they_are_answered_slowly_and_a_right_one_at_once(
    token_file: Path, autojump_clock: trio.testing.MockClock
) -> None:
    config = Config(principals=(Principal(name="t", token_file=token_file),))
    async with testing.open_relay(config) as memory:

        async def answer(token: bytes, uid: int) -> tuple[int, float]:
            stream = memory._listener.connect(Peer("memory", "", uid=uid))
            begun = trio.current_time()
            await stream.send_all(hello(b"A", token=token))
            code = (await stream.receive_some(2))[1]
            taken = trio.current_time() - begun
            await stream.aclose()
            return code, round(taken, 6)

        wrong = Refusal.AUTHENTICATION
        for _ in range(10):
            assert await answer(b"a wrong token of 16 bytes", 1) == (wrong, 0)
        # From now on one each half second.
        for _ in range(3):
            assert await answer(b"a wrong token of 16 bytes", 1) == (wrong, 0.5)
        # A right one from the same address never waits, and no other address does.
        assert await answer(TOKEN, 1) == (Refusal.WELCOME, 0)
        assert await answer(b"a wrong token of 16 bytes", 2) == (wrong, 0)


async def test_a_wrong_token_that_waits_for_its_answer_holds_up_no_claim_of_the_same_id(
    token_file: Path, autojump_clock: trio.testing.MockClock
) -> None:
    config = Config(principals=(Principal(name="t", token_file=token_file),))
    async with testing.open_relay(config) as memory:
        wrong = [memory._listener.connect(Peer("memory", "", uid=1)) for _ in range(12)]
        for stream in wrong:
            await stream.send_all(hello(b"A", token=b"a wrong token of 16 bytes"))
        assert await wrong[0].receive_some(2) == bytes((ord("A"), Refusal.AUTHENTICATION))
        begun = trio.current_time()
        right = memory._listener.connect(Peer("memory", "", uid=2))
        await right.send_all(hello(b"A", token=TOKEN))
        assert await right.receive_some(2) == b"A\0"
        assert trio.current_time() == begun
        assert await wrong[-1].receive_some(2) == bytes((ord("A"), Refusal.AUTHENTICATION))
        assert trio.current_time() > begun
        for stream in (right, *wrong):
            stream.close()
