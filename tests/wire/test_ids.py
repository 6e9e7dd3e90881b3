"""protocol.md, "How a client gets its id": bound paths, the address map, one session an id, replacing, hanging up."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import ACK, CLOSING, EVENTS, JOINED, LEFT, NONE, SYNCED, event, frames, noise

if TYPE_CHECKING:
    from pathlib import Path

    from tests.wire.client import Client
    from tests.wire.conftest import StartRelay
    from tests.wire.relay_process import RelayProcess


def test_the_id_is_the_first_byte_of_the_paths_last_component(relay: RelayProcess) -> None:
    receiver = relay.claim(b"R")
    for name in (b"A", b"Beta", b"C.sock", b"\xff\xfe", b"\n\x1b[31m", b"\x01", b"\x80\x80", b" ", b".hidden"):
        sender = relay.bound(name)
        sender.send(b"R1")
        receiver.expect(name[:1] + b"1")
        receiver.send(name[:1] + b"2")
        sender.expect(b"R2")


def test_a_relative_path_with_a_directory_or_without_names_its_last_component(
    relay: RelayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mods").mkdir()
    relay.unix("mods/A").settle(b"A")
    relay.unix("B").settle(b"B")
    relay.unix("./C").settle(b"C")


def test_the_first_bytes_of_a_bound_session_are_a_frame_even_where_they_look_like_a_hello(relay: RelayProcess) -> None:
    b = relay.article(b"B")
    a = relay.bound(b"A")
    a.send(b"B\x81")
    b.expect(b"A\x81")
    a.send(b"A\x80")
    a.expect(b"A\x80")


def test_an_address_in_the_map_needs_no_hello(start_relay: StartRelay) -> None:
    relay = start_relay(config='[address_map]\n"127.0.0.2" = "P"\n"127.0.0.3" = "0x80"\n')
    b = relay.claim(b"B")
    p = relay.tcp("127.0.0.2")
    p.send(b"B\x81")
    b.expect(b"P\x81")
    b.send(b"P2")
    p.expect(b"B2")
    relay.tcp("127.0.0.3").settle(b"\x80")


def test_an_address_outside_the_map_says_hello(start_relay: StartRelay) -> None:
    relay = start_relay(config='[address_map]\n"127.0.0.2" = "P"\n')
    stray = relay.tcp("127.0.0.1")
    stray.send(b"P1")
    stray.expect_end()
    relay.claim(b"P", tcp=True)


def test_a_mapped_id_that_is_taken_is_refused_without_an_answer(start_relay: StartRelay) -> None:
    relay = start_relay(config='[address_map]\n"127.0.0.2" = "P"\n')
    first = relay.claim(b"P")
    second = relay.tcp("127.0.0.2")
    second.expect_end()
    first.settle(b"P")


@pytest.mark.parametrize("kind", ["tcp", "unbound", "abstract"])
def test_every_other_session_says_hello(relay: RelayProcess, kind: str) -> None:
    def connect() -> Client:
        match kind:
            case "tcp":
                return relay.tcp()
            case "unbound":
                return relay.unix()
        return relay.unix(f"\0triorelay/{relay.unix_path[-80:]}/A")

    stray = connect()
    stray.send(b"A1")
    stray.expect_end()
    stray.close()
    client = connect()
    client.send(b"A\x81")
    client.expect(b"A\0")
    client.settle(b"A")
    assert relay.stop()["accepted"] == 1


def test_a_session_without_a_hello_is_closed(start_relay: StartRelay) -> None:
    relay = start_relay("--hello-timeout", "0.2")
    silent, half, bound = relay.tcp(), relay.unix(), relay.bound(b"B")
    half.send(b"A")
    silent.expect_end()
    half.expect_end()
    bound.settle(b"B")


def test_a_half_hello_may_be_completed_later(relay: RelayProcess) -> None:
    b = relay.claim(b"B")
    client = relay.tcp()
    for byte in (b"A", b"\x81", b"B"):
        client.send(byte)
        b.settle(b"B")
    client.send(b"1")
    client.expect(b"A\0")
    b.expect(b"A1")


def test_a_second_claim_is_refused_and_the_first_is_left_alone(relay: RelayProcess) -> None:
    first = relay.article(b"A")
    relay.bound(b"A").expect_end()
    relay.hello(b"A", NONE).expect_end()
    for tcp in (True, False):
        client = relay.hello(b"A", ACK, tcp=tcp)
        client.expect(b"A\x01")
        client.expect_end()
    first.settle(b"A")


def test_frames_of_a_refused_claim_do_not_count(relay: RelayProcess) -> None:
    first, b = relay.claim(b"A"), relay.claim(b"B")
    second = relay.tcp()
    second.send(b"A\x81", frames(b"B", b"never"))
    second.expect(b"A\x01")
    second.expect_end()
    first.send(b"B1")
    b.expect(b"A1")
    assert relay.stop()["accepted"] == 1


def test_replace_closes_the_old_session_of_the_same_uid_first(start_relay: StartRelay) -> None:
    relay = start_relay("--duplicate", "replace")
    old = relay.claim(b"A", EVENTS)
    watcher = relay.observe()
    new = relay.hello(b"A", ACK | EVENTS)
    new.expect(b"A\0", event(JOINED, b"A"), event(SYNCED))
    old.expect(event(CLOSING, 4))
    old.expect_end()
    watcher.expect(event(LEFT, b"A"), event(JOINED, b"A"))
    new.settle(b"A")


def test_a_bound_client_replaces_too(start_relay: StartRelay) -> None:
    relay = start_relay("--duplicate", "replace")
    old, watcher = relay.article(b"A"), relay.observe()
    new = relay.bound(b"A")
    watcher.expect(event(LEFT, b"A"), event(JOINED, b"A"))
    old.expect_end()
    new.settle(b"A")


@pytest.mark.parametrize("holder_by_tcp", [True, False])
def test_an_address_does_not_do_to_replace(start_relay: StartRelay, holder_by_tcp: bool) -> None:
    relay = start_relay("--duplicate", "replace")
    old = relay.claim(b"A", tcp=holder_by_tcp)
    new = relay.hello(b"A", tcp=True)
    new.expect(b"A\x01")
    new.expect_end()
    old.settle(b"A")


def test_a_new_session_never_receives_what_was_queued_for_the_one_it_replaced(start_relay: StartRelay) -> None:
    relay = start_relay("--duplicate", "replace", "--queue-bytes", "1000000")
    old, b = relay.claim(b"A"), relay.claim(b"B", EVENTS)
    b.send(frames(b"A", noise(400_000, 1)))
    b.ping(1)
    new = relay.hello(b"A", ACK)
    new.expect(b"A\0")
    b.expect(event(4, b"A"), event(LEFT, b"A"), event(JOINED, b"A"))
    new.settle(b"A")
    received = old.receive(1000)
    assert received == frames(b"B", noise(400_000, 1))[:1000]
    assert relay.stop()["dropped.peer_gone"] > 0


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_a_client_that_reconnects_in_the_same_instant_gets_its_id_back(relay: RelayProcess, tcp: bool) -> None:
    receiver = relay.claim(b"R", EVENTS)
    for number in range(100):
        client = relay.tcp() if tcp else relay.unix()
        client.send(b"A\x80", frames(b"R", bytes((number,)) * 3))
        client.close()
    # Nothing is promised on the order in which sessions of one id follow one another.
    sessions = {receiver.receive(4 + 6 + 4) for _ in range(100)}
    assert sessions == {
        event(JOINED, b"A") + frames(b"A", bytes((number,)) * 3) + event(LEFT, b"A") for number in range(100)
    }
    receiver.ping(1)


def test_a_bound_client_that_runs_again_at_once_gets_its_id_back(relay: RelayProcess) -> None:
    receiver = relay.claim(b"R")
    for number in range(50):
        client = relay.bound(b"A")
        client.send(b"R", bytes((number,)))
        client.close()
    assert {receiver.receive(2) for _ in range(50)} == {bytes((ord("A"), number)) for number in range(50)}


def test_a_client_that_was_reset_gets_its_id_back(relay: RelayProcess) -> None:
    for _ in range(20):
        client = relay.hello(b"A", ACK, tcp=True)
        client.expect(b"A\0")
        client.reset()


def test_one_of_50_claims_at_once_wins(relay: RelayProcess) -> None:
    clients = [relay.tcp() if number % 2 else relay.unix() for number in range(50)]
    for client in clients:
        client.send(b"A\x81")
    answers = [client.receive(2) for client in clients]
    assert sorted(answers) == [b"A\0"] + [b"A\x01"] * 49
    winner = clients[answers.index(b"A\0")]
    winner.settle(b"A")


def test_the_id_of_a_paused_sender_that_hung_up_is_free_once_its_destination_is_closed(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000", "--stall-timeout", "1")
    relay.claim(b"S")
    sender, watcher = relay.claim(b"A"), relay.observe()
    sender.send_until_blocked(frames(b"S", noise(4_000_000, 1)))
    sender.close()
    # The sender goes first where the kernel, tried again in small pieces, took the rest for the destination after all.
    assert {watcher.receive(4), watcher.receive(4)} == {event(LEFT, b"S"), event(LEFT, b"A")}
    relay.claim(b"A").settle(b"A")


def test_a_paused_sender_that_hung_up_keeps_its_id_until_what_it_sent_is_placed(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000")
    stopped = relay.claim(b"S")
    sender = relay.claim(b"A")
    data = noise(4_000_000, 1)
    sent = sender.send_until_blocked(frames(b"S", data))
    assert sent < 8_000_000
    sender.close()
    again = relay.hello(b"A", ACK)
    probe = relay.claim(b"P", EVENTS)
    probe.send(b"\0\x07\0\0")
    probe.expect(event(JOINED, b"A"), event(JOINED, b"P"), event(JOINED, b"S"), event(SYNCED))
    assert stopped.receive(sent // 2 * 2) == frames(b"A", data)[: sent // 2 * 2]
    again.expect(b"A\0")
    again.settle(b"A")


def test_claims_of_one_id_are_served_in_order_and_each_gets_an_answer(start_relay: StartRelay) -> None:
    relay = start_relay(config='[address_map]\n"127.0.0.2" = "A"\n')
    b = relay.claim(b"B")
    early = [relay.unix() for _ in range(4)]
    b.settle(b"B")
    for number in range(5):
        data = noise(40, number)
        relay.process.send_signal(signal.SIGSTOP)
        for at in range(40):
            match (at + number) % 4:
                case 0 | 1 if at == 0 and early:
                    # Accepted before all others, and says hello only now.
                    client = early.pop()
                    client.send(b"A\x80")
                case 0:
                    client = relay.bound(b"A")
                case 1:
                    client = relay.hello(b"A", NONE)
                case 2:
                    client = relay.tcp("127.0.0.2")
                case _:
                    client = relay.hello(b"A", NONE, tcp=True)
            client.send(b"B" + data[at : at + 1])
            client.leave()
        relay.process.send_signal(signal.SIGCONT)
        received = b.receive(80)
        assert received[0::2] == b"A" * 40
        # The listeners for Unix and TCP are looked at one after the other: each has an order of its own.
        kinds = [at for at in range(40) if (at + number) % 4 < 2], [at for at in range(40) if (at + number) % 4 > 1]
        for places in kinds:
            assert is_subsequence(bytes(data[at] for at in places), received[1::2])
    assert relay.stop()["accepted"] == 5 * 40 + 1


def is_subsequence(part: bytes, whole: bytes) -> bool:
    rest = iter(whole)
    return all(byte in rest for byte in part)
