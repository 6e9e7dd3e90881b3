"""protocol.md, "Hello": every option, every refusal that one relay alone can give."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import ACK, EVENTS, JOINED, NONE, PATIENCE, SYNCED, event, frames

if TYPE_CHECKING:
    from tests.wire.client import Client
    from tests.wire.conftest import StartRelay
    from tests.wire.relay_process import RelayProcess

TOKENS = """
[principals.planner]
token_file = "planner.token"
ids = "P-R,0x80-0x81"
to = "*"

[principals.arm]
token_file = "arm.token"
ids = "a"
to = "P"
"""
PLANNER, ARM = b"the planner's own token", b"the arm's own token"


@pytest.fixture
def guarded(start_relay: StartRelay, tmp_path_factory: pytest.TempPathFactory) -> RelayProcess:
    """A relay for the planner and the arm alone, which prove themselves by a token."""
    return start_guarded(start_relay, tmp_path_factory)


def start_guarded(start_relay: StartRelay, tmp_path_factory: pytest.TempPathFactory, *options: str) -> RelayProcess:
    directory = tmp_path_factory.mktemp("tokens")
    (directory / "planner.token").write_bytes(PLANNER + b"\n")
    (directory / "arm.token").write_bytes(ARM)
    return start_relay(*options, config=TOKENS.replace('file = "', f'file = "{directory}/'))


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_a_hello_without_options_gets_no_answer_and_frames_may_follow_at_once(relay: RelayProcess, tcp: bool) -> None:
    b = relay.claim(b"B")
    a = relay.tcp() if tcp else relay.unix()
    a.send(b"A\x80B1")
    b.expect(b"A1")
    b.send(b"A2")
    a.expect(b"B2")


def test_ack_is_answered_with_one_frame(relay: RelayProcess) -> None:
    a = relay.hello(b"A", ACK)
    a.expect(b"A\0")
    other = relay.claim(b"B")
    other.close()
    a.settle(b"A")


def test_events_are_answered_as_ack_is_and_then_sent(relay: RelayProcess) -> None:
    relay.claim(b"C")
    a = relay.hello(b"A", EVENTS)
    a.expect(b"A\0", event(JOINED, b"A"), event(JOINED, b"C"), event(SYNCED))
    b = relay.hello(b"B", ACK | EVENTS)
    b.expect(b"B\0", *(event(JOINED, id) for id in b"ABC"), event(SYNCED))
    relay.claim(b"D")
    a.expect(event(JOINED, b"B"), event(JOINED, b"D"))
    b.expect(event(JOINED, b"D"))


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_a_token_goes_with_every_option_in_any_split(guarded: RelayProcess, tcp: bool) -> None:
    for options in (NONE, ACK, EVENTS, ACK | EVENTS):
        client = guarded.tcp() if tcp else guarded.unix()
        sent = bytes((ord("P"), 0x84 | options, len(PLANNER))) + PLANNER + b"P?"
        for at in range(len(sent)):
            client.send(sent[at : at + 1])
        if options:
            client.expect(b"P\0")
        if options & EVENTS:
            client.expect(event(JOINED, b"P"), event(SYNCED))
        client.expect(b"P?")
        client.leave()
        client.expect_end()


def test_any_free_id_is_the_highest_free_one_of_128_to_255(relay: RelayProcess) -> None:
    def any_id() -> bytes:
        client = relay.hello(b"\0", ACK)
        id, welcome = client.receive(2)
        assert welcome == 0
        client.settle(bytes((id,)))
        clients[id] = client
        return bytes((id,))

    watcher = relay.observe()
    clients: dict[int, Client] = {}
    relay.claim(b"\xfe")
    assert [any_id(), any_id(), any_id()] == [b"\xff", b"\xfd", b"\xfc"]
    watcher.expect(*(event(JOINED, id) for id in b"\xfe\xff\xfd\xfc"))
    clients[0xFD].close()
    watcher.expect(event(2, 0xFD))
    assert any_id() == b"\xfd"


def test_any_id_with_both_options_gets_events(relay: RelayProcess) -> None:
    client = relay.hello(b"\0", ACK | EVENTS)
    client.expect(b"\xff\0", event(JOINED, 0xFF), event(SYNCED))


def test_without_a_free_id_of_128_to_255_the_relay_is_full(relay: RelayProcess) -> None:
    for expected in range(255, 127, -1):
        relay.hello(b"\0", ACK).expect(bytes((expected, 0)))
    client = relay.hello(b"\0", ACK)
    client.expect(b"\0\x04")
    client.expect_end()
    relay.claim(b"\x7f")


def test_any_id_is_one_that_the_principal_may_hold(guarded: RelayProcess) -> None:
    guarded.hello(b"\0", ACK, token=PLANNER).expect(b"\x81\0")
    guarded.hello(b"\0", ACK, token=PLANNER).expect(b"\x80\0")
    guarded.hello(b"\0", ACK, token=PLANNER).expect(b"\0\x04")


def test_any_id_is_not_allowed_if_the_principal_may_hold_no_id_of_128_to_255(guarded: RelayProcess) -> None:
    guarded.hello(b"\0", ACK, token=ARM).expect(b"\0\x02")


def test_an_observer_holds_no_id_and_is_not_announced(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    observer = relay.hello(b"\0", EVENTS)
    observer.expect(b"\0\0", event(JOINED, b"A"), event(SYNCED))
    second = relay.hello(b"\0", EVENTS)
    second.expect(b"\0\0", event(JOINED, b"A"), event(SYNCED))
    observer.close()
    a.ping(1)
    second.ping(2)


def test_an_observer_may_send_to_the_relay_alone(relay: RelayProcess) -> None:
    a = relay.claim(b"A")
    observer = relay.observe()
    observer.send(frames(b"A", b"12"), b"\0\x63\0\0", event(6, 7))
    observer.expect(event(6, 7))
    a.settle(b"A")
    ledger = relay.stop()
    assert ledger["dropped.no_route"] == ledger["accepted"] - 1
    assert ledger["dropped.no_route"] >= 2


def test_a_bad_hello_that_asked_for_no_answer_gets_none(relay: RelayProcess) -> None:
    stray = (b"A1", b"\0\0", b"A\x7f", b"A\xa0", b"A\xff")
    other_protocols = (b"\x80\0", b"\x16\x03\x01\x02\0", b"GET / HTTP/1.1\r\n\r\n")
    for sent in (b"\0\x80", b"\0\x84", b"A\x84\0", *stray, *other_protocols):
        client = relay.tcp()
        client.send(sent)
        client.expect_end()
    assert relay.stop()["accepted"] == 0


def test_a_token_of_length_0_is_a_bad_hello(relay: RelayProcess) -> None:
    for id in (b"A", b"\0"):
        for options in (ACK, EVENTS, ACK | EVENTS):
            client = relay.tcp()
            client.send(id, bytes((0x84 | options, 0)))
            client.expect(id, b"\x03")
            client.expect_end()


def test_an_id_that_the_principal_may_not_hold_is_not_allowed(guarded: RelayProcess) -> None:
    client = guarded.hello(b"b", ACK, token=ARM)
    client.expect(b"b\x02")
    client.expect_end()
    guarded.claim(b"a", token=ARM)


def test_a_wrong_token_and_a_missing_one_are_refused_as_authentication(guarded: RelayProcess) -> None:
    for token in (b"a wrong one", PLANNER + b"\n", b""):
        for tcp in (True, False):
            client = guarded.hello(b"P", ACK, tcp=tcp, token=token)
            client.expect(b"P\x06")
            client.expect_end()


def test_a_bound_client_that_is_no_principal_is_refused(guarded: RelayProcess) -> None:
    guarded.bound(b"P").expect_end()


def test_a_token_in_the_clear_is_refused_beyond_loopback(
    start_relay: StartRelay, tmp_path_factory: pytest.TempPathFactory
) -> None:
    relay = start_guarded(start_relay, tmp_path_factory, "--tcp", "0.0.0.0:0", "--allow", "any")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the kernel picks the address that would be used
        except OSError:
            pytest.skip("this machine has no address but loopback")
        ours = probe.getsockname()[0]
    client = relay.tcp(ours, ours)
    client.send(b"P\x85", bytes((len(PLANNER),)), PLANNER)
    client.expect(b"P\x06")
    client.expect_end()


def test_principals_by_token_replace_only_their_own_sessions(
    start_relay: StartRelay, tmp_path_factory: pytest.TempPathFactory
) -> None:
    relay = start_guarded(start_relay, tmp_path_factory, "--duplicate", "replace")
    old = relay.claim(b"P", tcp=True, token=PLANNER)
    new = relay.claim(b"P", tcp=False, token=PLANNER)
    old.expect_end()
    relay.hello(b"P", ACK, token=ARM).expect(b"P\x02")
    new.settle(b"P")


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_an_answer_is_not_lost_because_of_unread_input(relay: RelayProcess, tcp: bool) -> None:
    relay.claim(b"A")
    for _ in range(10):
        client = relay.tcp() if tcp else relay.unix()
        client.send(b"A\x81", frames(b"B", bytes(30_000)))
        client.expect(b"A\x01")
        client.expect_end()
    assert relay.stop()["accepted"] == 0


def test_one_address_may_have_so_many_sessions_without_an_id_and_no_more(start_relay: StartRelay) -> None:
    relay = start_relay("--max-pending-per-address", "2", "--hello-timeout", "0")
    first = relay.tcp()
    relay.claim(b"U")  # whoever connected before has been accepted now
    second = relay.tcp()
    relay.claim(b"V")
    relay.tcp().expect_end()
    for id, client in ((b"A", first), (b"B", second)):
        client.send(id, b"\x81")
        client.expect(id, b"\0")
    relay.claim(b"C", tcp=True)


def test_with_too_many_sessions_without_an_id_the_oldest_makes_room(start_relay: StartRelay) -> None:
    relay = start_relay("--max-pending", "2", "--hello-timeout", "0")
    oldest = relay.tcp()
    relay.claim(b"U")  # whoever connected before has been accepted now
    second = relay.tcp()
    relay.claim(b"V", tcp=True)  # by the same listener: the second has been accepted now
    oldest.expect_end()
    second.send(b"B\x81")
    second.expect(b"B\0")


def test_an_address_that_is_not_allowed_gets_no_id(start_relay: StartRelay) -> None:
    relay = start_relay("--allow", "127.0.0.2/32")
    relay.tcp("127.0.0.1").expect_end()
    allowed = relay.tcp("127.0.0.2")
    allowed.send(b"A\x81")
    allowed.expect(b"A\0")
    relay.claim(b"U")


def test_a_refused_session_that_keeps_sending_is_closed(relay: RelayProcess) -> None:
    relay.claim(b"A")
    client = relay.hello(b"A", ACK)
    client.expect(b"A\x01")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.send(bytes(1 << 24))


def test_a_refused_session_that_does_nothing_is_closed(relay: RelayProcess) -> None:
    relay.claim(b"A")
    client = relay.hello(b"A", ACK)
    client.expect(b"A\x01")
    client.expect_end()
    hung_up = select.poll()
    hung_up.register(client.socket, 0)
    assert hung_up.poll(1000 * PATIENCE) == [(client.socket.fileno(), select.POLLHUP)]
