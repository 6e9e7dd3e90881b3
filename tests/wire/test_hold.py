"""protocol.md, "Hold"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.wire.client import DROPPED, EVENTS, FLUSH, FLUSHED, JOINED, LEFT, NO_ROUTE, SYNCED, event, frames, noise

if TYPE_CHECKING:
    from tests.wire.conftest import StartRelay


def test_frames_to_an_absent_id_wait_for_it_and_are_written_first(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "100")
    a, c = relay.claim(b"A", EVENTS), relay.claim(b"C")
    a.expect(event(JOINED, b"C"))
    a.send(frames(b"B", b"12"))
    a.ping(1)
    c.send(b"B3")
    c.settle(b"C")
    a.send(b"B4")
    a.ping(2)
    b = relay.hello(b"B", EVENTS)
    a.expect(event(JOINED, b"B"))
    a.send(b"B5")
    b.expect(b"B\0", *(event(JOINED, id) for id in b"ABC"), event(SYNCED), b"A1A2C3A4", b"A5")


def test_held_frames_go_to_a_bound_client_too(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "100")
    a = relay.claim(b"A")
    a.send(frames(b"B", b"12"))
    a.settle(b"A")
    relay.bound(b"B").expect(b"A1A2")


def test_at_most_so_many_frames_are_held_and_the_oldest_are_dropped_first(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10")
    a = relay.claim(b"A", EVENTS)
    data = noise(5_000, 1)
    a.send(frames(b"B", data[:4]))
    a.ping(1)
    a.send(frames(b"B", data[4:]))
    a.expect(event(NO_ROUTE, b"B"))
    a.ping(2)
    relay.hello(b"B").expect(b"B\0", frames(b"A", data[-10:]))
    assert relay.stop()["dropped.hold_expired"] == 4_990


def test_each_id_has_a_hold_of_its_own(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "3")
    a = relay.claim(b"A")
    a.send(b"B1C1B2C2B3C3")
    a.settle(b"A")
    relay.bound(b"B").expect(frames(b"A", b"123"))
    relay.bound(b"C").expect(frames(b"A", b"123"))


def test_a_held_frame_expires_and_its_sender_gets_an_event(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10", "--hold-time", "0.2")
    a = relay.claim(b"A", EVENTS)
    a.send(frames(b"B", b"123"), event(FLUSH, 1))
    a.ping(2)
    a.expect(event(NO_ROUTE, b"B"), event(FLUSHED, 1))
    b = relay.hello(b"B")
    b.expect(b"B\0")
    a.expect(event(JOINED, b"B"))
    a.send(b"B4")
    b.expect(b"A4")
    assert relay.stop()["dropped.hold_expired"] == 3


def test_flushed_comes_once_the_held_frames_were_written(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10")
    a = relay.claim(b"A", EVENTS)
    a.send(b"B1", event(FLUSH, 1))
    a.ping(2)
    relay.hello(b"B").expect(b"B\0A1")
    received = a.receive(8)
    assert sorted((received[:4], received[4:])) == sorted((event(JOINED, b"B"), event(FLUSHED, 1)))


def test_what_was_queued_for_a_session_that_left_never_returns_to_the_hold(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "1000000", "--queue-bytes", "4000000")
    b, a = relay.claim(b"B", tcp=True), relay.claim(b"A", EVENTS)
    a.send(frames(b"B", bytes(1_000_000)))
    a.ping(1)
    b.reset()
    a.expect(event(DROPPED, b"B"), event(LEFT, b"B"))
    a.send(b"B!")
    a.ping(2)
    new = relay.hello(b"B")
    new.expect(b"B\0", b"A!")
    new.settle(b"B")
    assert relay.stop()["dropped.peer_gone"] > 0


def test_held_frames_outlive_their_sender(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10")
    watcher = relay.observe()
    a = relay.claim(b"A")
    a.send(b"B1")
    a.close()
    watcher.expect(event(JOINED, b"A"), event(LEFT, b"A"))
    relay.bound(b"B").expect(b"A1")


def test_frames_to_the_relay_are_not_held(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10")
    a = relay.claim(b"A")
    a.send(b"\0\x01")
    a.settle(b"A")
    assert relay.stop()["dropped.no_route"] == 1


def test_what_is_still_held_at_the_end_is_counted_as_draining(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10")
    a = relay.claim(b"A")
    a.send(frames(b"B", b"123"))
    a.settle(b"A")
    assert relay.stop()["dropped.draining"] == 3
