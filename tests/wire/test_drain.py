"""Shutting down, as a client sees it: protocol.md's DRAINING and refusal 5, interface.md's exit codes and ledger."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import ACK, DRAINING, EVENTS, JOINED, NONE, event, frames, noise

if TYPE_CHECKING:
    from tests.wire.conftest import StartRelay
    from tests.wire.relay_process import RelayProcess


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sends_draining_ends_every_session_and_exits_with_0(
    relay: RelayProcess, number: signal.Signals
) -> None:
    a, b, watcher = relay.claim(b"A", EVENTS), relay.article(b"B"), relay.observe()
    a.expect(event(JOINED, b"B"))
    relay.signal(number)
    a.expect(event(DRAINING))
    watcher.expect(event(DRAINING))
    for client in (a, b, watcher):
        assert client.read_to_end() in (b"", event(9, 5))
        client.close()
    relay.expect_exit(0)


def test_what_is_queued_is_written_before_the_end(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000")
    b, a = relay.claim(b"B", tcp=True), relay.claim(b"A", EVENTS)
    data = noise(1_000_000, 1)
    a.send(frames(b"B", data))
    a.ping(1)
    relay.signal()
    a.expect(event(DRAINING))
    a.close()
    assert b.read_to_end() == frames(b"A", data)
    b.close()
    assert relay.expect_exit(0)["written"] == 1_000_000


def test_what_is_paused_is_placed_and_written_before_the_end(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000")
    b, a, watcher = relay.claim(b"B"), relay.claim(b"A"), relay.observe()
    data = noise(2_000_000, 1)
    a.send_until_blocked(frames(b"B", data))
    relay.signal()
    watcher.expect(event(DRAINING))
    watcher.close()
    received = b.read_to_end()
    assert received == frames(b"A", data)[: len(received)]
    assert received
    b.close()
    a.close()
    ledger = relay.expect_exit(0)
    assert ledger["written"] == len(received) // 2
    assert ledger["accepted"] == ledger["written"] + ledger["dropped.draining"]


def test_frames_sent_after_the_relay_began_to_drain_are_counted_as_draining(relay: RelayProcess) -> None:
    a, b = relay.claim(b"A", EVENTS), relay.claim(b"B")
    a.expect(event(JOINED, b"B"))
    relay.signal()
    a.expect(event(DRAINING))
    a.read_to_end()
    a.send(frames(b"B", b"123"))
    a.close()
    b.expect_end()
    b.close()
    assert relay.expect_exit(0)["dropped.draining"] == 3


def test_a_client_that_takes_nothing_and_does_not_leave_is_cut_off_at_the_deadline(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000", "--drain-timeout", "0.5")
    relay.claim(b"B")
    a = relay.claim(b"A", EVENTS)
    a.send(frames(b"B", bytes(1_000_000)))
    a.ping(1)
    relay.signal()
    ledger = relay.expect_exit(0)
    assert ledger["dropped.draining"] > 0
    assert ledger["accepted"] == 1_000_000


def test_no_client_can_connect_once_the_relay_drains(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    relay.signal()
    a.expect(event(DRAINING))
    a.read_to_end()
    for connect in (relay.unix, relay.tcp):
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            connect()


def test_a_claim_that_waits_is_refused_as_draining(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000")
    stopped, sender, watcher = relay.claim(b"S"), relay.claim(b"A"), relay.observe()
    sender.send_until_blocked(frames(b"S", bytes(2_000_000)))
    sender.close()
    waiting = relay.hello(b"A", ACK)
    silent = relay.hello(b"A", NONE)
    relay.claim(b"P")
    watcher.expect(event(JOINED, b"P"))
    relay.signal()
    watcher.expect(event(DRAINING))
    waiting.expect(b"A\x05")
    waiting.expect_end()
    silent.expect_end()
    for client in (waiting, silent, watcher, stopped):
        client.close()
    relay.stop()


def test_a_session_that_has_not_said_hello_is_closed_at_once(relay: RelayProcess) -> None:
    silent, half, a = relay.tcp(), relay.unix(), relay.claim(b"A", EVENTS)
    half.send(b"B")
    relay.signal()
    a.expect(event(DRAINING))
    silent.expect_end()
    half.expect_end()


def test_a_second_signal_stops_at_once_with_1(start_relay: StartRelay) -> None:
    relay = start_relay("--drain-timeout", "0")
    a = relay.claim(b"A", EVENTS)
    relay.signal()
    a.expect(event(DRAINING))
    relay.signal()
    relay.expect_exit(1)


def test_the_socket_file_is_gone_afterwards(relay: RelayProcess) -> None:
    relay.claim(b"A")
    relay.stop()
    with pytest.raises(FileNotFoundError):
        relay.unix()
