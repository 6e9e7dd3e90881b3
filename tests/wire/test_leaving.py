"""protocol.md, "Leaving"."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.wire.client import DROPPED, EVENTS, FLUSH, JOINED, LEFT, event, frames, noise

if TYPE_CHECKING:
    from tests.wire.conftest import StartRelay
    from tests.wire.relay_process import RelayProcess


def test_shutting_the_sending_side_is_leaving_and_every_whole_frame_before_it_is_routed(relay: RelayProcess) -> None:
    b = relay.claim(b"B", EVENTS)
    data = noise(10_000, 1)
    a = relay.unix()
    a.send(b"A\x80", frames(b"B", data), b"B")
    a.leave()
    a.expect_end()
    b.expect(event(JOINED, b"A"), frames(b"A", data), event(LEFT, b"A"))
    assert relay.stop()["partial"] == 1


def test_what_is_queued_for_a_client_that_left_is_still_written_and_its_id_is_free_meanwhile(
    start_relay: StartRelay,
) -> None:
    relay = start_relay("--queue-bytes", "4000000")
    old, b = relay.claim(b"A"), relay.claim(b"B", EVENTS)
    data = noise(1_000_000, 1)
    b.send(frames(b"A", data))
    b.ping(1)
    old.leave()
    b.expect(event(LEFT, b"A"))
    new = relay.claim(b"A")
    b.expect(event(JOINED, b"A"))
    b.send(b"A!")
    new.expect(b"B!")
    assert old.read_to_end() == frames(b"B", data)
    assert relay.stop()["written"] == 1_000_001


def test_a_client_that_left_and_takes_nothing_is_closed_after_the_stall_timeout(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000", "--stall-timeout", "0.5")
    a, b = relay.claim(b"A"), relay.claim(b"B", EVENTS)
    b.send(frames(b"A", bytes(1_000_000)))
    b.ping(1)
    a.leave()
    b.expect(event(LEFT, b"A"))
    relay.wait_for_line("client left id=A")
    ledger = relay.stop()
    assert 0 < ledger["written"] < 1_000_000


def test_after_a_reset_the_queue_is_dropped(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000")
    a, b = relay.claim(b"A", tcp=True), relay.claim(b"B", EVENTS)
    b.send(frames(b"A", bytes(1_000_000)))
    b.ping(1)
    a.reset()
    b.expect(event(DROPPED, b"A"), event(LEFT, b"A"))
    relay.claim(b"A").settle(b"A")
    ledger = relay.stop()
    assert ledger["dropped.peer_gone"] == 1_000_000 - ledger["written"] + 1


def test_a_client_that_closes_with_unread_input_leaves_and_no_other_notices(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000")
    a, b, c = relay.claim(b"A"), relay.claim(b"B", EVENTS), relay.claim(b"C")
    b.expect(event(JOINED, b"C"))
    b.send(frames(b"A", bytes(1_000_000)))
    b.ping(1)
    a.close()
    b.expect(event(DROPPED, b"A"), event(LEFT, b"A"))
    b.send(b"C1")
    c.expect(b"B1")
    assert relay.stop()["dropped.peer_gone"] > 0


def test_frames_sent_before_a_reset_arrive_whole_or_not_at_all(relay: RelayProcess) -> None:
    b = relay.claim(b"B", EVENTS)
    for _ in range(20):
        a = relay.claim(b"A", tcp=True)
        b.expect(event(JOINED, b"A"))
        a.send(frames(b"B", b"12345"), b"B")
        a.reset()
        received = b""
        while not received.endswith(event(LEFT, b"A")):
            received += b.receive(2)
        assert received in [frames(b"A", b"12345"[:count]) + event(LEFT, b"A") for count in range(6)]


def test_a_client_that_left_frees_its_id_for_any_other_transport(relay: RelayProcess) -> None:
    watcher = relay.observe()
    for kind in ("bound", "unix", "tcp", "bound"):
        client = relay.article(b"A") if kind == "bound" else relay.claim(b"A", tcp=kind == "tcp")
        watcher.expect(event(JOINED, b"A"))
        client.leave()
        watcher.expect(event(LEFT, b"A"))
        client.expect_end()


def test_a_claim_in_the_moment_of_leaving_changes_neither_order_nor_count(relay: RelayProcess) -> None:
    b = relay.claim(b"B")
    for number in range(8):
        first, second = noise(20_000, 2 * number), noise(20_000, 2 * number + 1)
        again, a = relay.unix(), relay.claim(b"A", EVENTS)
        relay.process.send_signal(signal.SIGSTOP)
        a.send(event(FLUSH, 1), frames(b"B", first), event(FLUSH, 2), frames(b"B", second))
        a.leave()
        again.send(b"A\x81")
        relay.process.send_signal(signal.SIGCONT)
        again.expect(b"A\0")
        b.expect(frames(b"A", first + second))
        again.leave()
        again.expect_end()
    ledger = relay.stop()
    assert ledger["written"] == 8 * 40_000
    assert ledger["accepted"] == 8 * 40_000
