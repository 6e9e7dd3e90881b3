"""protocol.md, "Talking with the relay": every event and request, and their order among frames."""

from __future__ import annotations

import select
import selectors
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import (
    ACK,
    CLOSING,
    DROPPED,
    EVENTS,
    FLUSH,
    FLUSHED,
    JOINED,
    LEFT,
    LIST,
    NO_ROUTE,
    NONE,
    PATIENCE,
    PING,
    PONG,
    SYNCED,
    event,
    exchange,
    frames,
    noise,
)

if TYPE_CHECKING:
    from tests.wire.conftest import StartRelay
    from tests.wire.relay_process import RelayProcess


def test_joined_comes_once_for_each_present_and_then_as_they_come(relay: RelayProcess) -> None:
    relay.article(b"B")
    relay.claim(b"C", tcp=True)
    a = relay.hello(b"A", EVENTS)
    a.expect(b"A\0", event(JOINED, b"A"), event(JOINED, b"B"), event(JOINED, b"C"), event(SYNCED))
    d = relay.article(b"D")
    a.expect(event(JOINED, b"D"))
    d.close()
    a.expect(event(LEFT, b"D"))
    a.ping(0)


def test_no_client_without_events_gets_any(relay: RelayProcess) -> None:
    bound, plain, acked = relay.article(b"A"), relay.claim(b"B", NONE), relay.claim(b"C", ACK)
    watcher = relay.observe()
    relay.claim(b"D").close()
    watcher.expect(event(JOINED, b"D"), event(LEFT, b"D"))
    for id, client in ((b"A", bound), (b"B", plain), (b"C", acked)):
        client.send(b"X1")
        client.settle(id)


def test_joined_comes_before_the_first_frame_and_left_after_the_last(relay: RelayProcess) -> None:
    b = relay.claim(b"B", EVENTS)
    for number in range(20):
        a = relay.unix() if number % 2 else relay.tcp()
        a.send(b"A\x80", frames(b"B", bytes((number,)) * 5))
        a.close()
        b.expect(event(JOINED, b"A"), frames(b"A", bytes((number,)) * 5), event(LEFT, b"A"))


def test_left_comes_after_frames_that_had_to_wait_for_room(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000")
    b = relay.claim(b"B", EVENTS)
    a = relay.claim(b"A", NONE)
    b.expect(event(JOINED, b"A"))
    data = noise(2_000_000, 3)
    sent = a.send_until_blocked(frames(b"B", data)) // 2 * 2
    assert sent < 4_000_000
    a.close()
    b.expect(frames(b"A", data)[:sent], event(LEFT, b"A"))


def test_the_two_frames_of_an_event_stay_adjacent_in_a_flood(relay: RelayProcess) -> None:
    b = relay.claim(b"B", EVENTS)
    senders = [relay.claim(bytes((id,)), NONE) for id in b"xyz"]
    b.expect(*(event(JOINED, id) for id in b"xyz"))
    data = noise(500, 1)
    for _ in range(40):
        for sender in senders:
            sender.send(frames(b"B", data))
        b.send(event(PING, 9))
        relay.claim(b"J", NONE).close()
    frames_and_events = b.receive(2 * 500 * 120 + 4 * 40 * 3)
    events, at = [], 0
    received = {id: bytearray() for id in b"xyz"}
    while at < len(frames_and_events):
        id, byte = frames_and_events[at : at + 2]
        if id:
            received[id].append(byte)
        else:
            assert frames_and_events[at + 2] == 0, "something came between the two frames of an event"
            events.append(frames_and_events[at : at + 4])
            at += 2
        at += 2
    assert all(bytes(found) == data * 40 for found in received.values())
    assert sorted(events) == sorted([event(PONG, 9), event(JOINED, b"J"), event(LEFT, b"J")] * 40)


def test_a_request_may_arrive_byte_by_byte(relay: RelayProcess) -> None:
    a, b = relay.claim(b"A", EVENTS), relay.claim(b"B")
    a.expect(event(JOINED, b"B"))
    for byte in event(PING, 5) + b"B1" + event(PING, 6):
        a.send(bytes((byte,)))
        b.settle(b"B") if byte != ord("1") else b.expect(b"A1")
    a.expect(event(PONG, 5), event(PONG, 6))


def test_every_number_of_a_ping_comes_back(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    a.send(b"".join(event(PING, number) for number in range(256)))
    a.expect(*(event(PONG, number) for number in range(256)))
    ledger = relay.stop()
    assert ledger["control"] == 512
    assert ledger["accepted"] == 0


def test_unknown_codes_are_ignored(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    for code in (0, 1, 2, 5, 9, 10, 99, 255):
        a.send(event(code, 65))
    a.ping(1)


def test_list_answers_with_everybody_present_and_synced(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    b = relay.claim(b"B")
    a.expect(event(JOINED, b"B"))
    a.send(event(LIST))
    a.expect(event(JOINED, b"A"), event(JOINED, b"B"), event(SYNCED))
    b.close()
    a.expect(event(LEFT, b"B"))
    a.send(event(LIST), event(LIST))
    a.expect(event(JOINED, b"A"), event(SYNCED), event(JOINED, b"A"), event(SYNCED))


def test_no_route_comes_once_and_again_only_after_the_id_was_there(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    a.send(frames(b"X", b"12"), b"Y1", frames(b"X", b"3"), event(PING, 1))
    received = a.receive(12)
    assert sorted((received[0:4], received[4:8])) == [event(NO_ROUTE, b"X"), event(NO_ROUTE, b"Y")]
    assert received[8:] == event(PONG, 1)
    a.send(b"X4")
    a.ping(2)
    relay.claim(b"X").close()
    a.expect(event(JOINED, b"X"), event(LEFT, b"X"))
    a.send(b"X5X6Y2")
    a.expect(event(NO_ROUTE, b"X"))
    a.ping(3)
    assert relay.stop()["dropped.no_route"] == 8


def test_events_about_earlier_frames_come_before_the_pong(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    a.send(b"".join(bytes((id, 1)) + event(PING, id) for id in range(0x42, 0x62)))
    a.expect(*(event(NO_ROUTE, id) + event(PONG, id) for id in range(0x42, 0x62)))


def test_a_pong_says_that_earlier_frames_were_queued_and_keeps_its_place(relay: RelayProcess) -> None:
    a = relay.claim(b"A", EVENTS)
    data = noise(20_000, 2)
    a.send(frames(b"A", data[:10_000]), event(PING, 1), frames(b"A", data[10_000:]), event(PING, 2))
    a.expect(frames(b"A", data[:10_000]), event(PONG, 1), frames(b"A", data[10_000:]), event(PONG, 2))


@pytest.mark.parametrize("overflow", ["wait", "drop"])
def test_dropped_comes_before_left_where_a_receiver_vanishes(start_relay: StartRelay, overflow: str) -> None:
    relay = start_relay("--queue-bytes", "4000000", "--overflow", overflow)
    b = relay.claim(b"B", tcp=True)
    a = relay.claim(b"A", EVENTS)
    a.send(frames(b"B", bytes(1_000_000)))
    a.ping(1)
    b.reset()
    a.expect(event(DROPPED, b"B"), event(LEFT, b"B"))
    a.ping(2)
    assert relay.stop()["dropped.peer_gone"] > 0


def test_dropped_comes_once_and_again_only_after_a_frame_was_written(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000", "--overflow", "drop")
    b, a = relay.claim(b"B"), relay.claim(b"A", EVENTS)
    for number in (1, 2):
        a.send(frames(b"B", bytes(1_000_000)))
        a.expect(event(DROPPED, b"B"))
        a.send(frames(b"B", bytes(1_000)))
        a.ping(number)
        a.send(event(FLUSH, number))
        with selectors.DefaultSelector() as either:
            either.register(a.socket, selectors.EVENT_READ, a)
            either.register(b.socket, selectors.EVENT_READ, b)
            while {key.data for key, _ in either.select(PATIENCE)} == {b}:
                b.socket.recv(1 << 20)
        a.expect(event(FLUSHED, number))


def test_dropped_comes_again_after_a_flush(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000", "--overflow", "drop")
    _, a = relay.claim(b"B"), relay.claim(b"A", EVENTS)
    a.send(frames(b"B", bytes(1_000_000)))
    a.expect(event(DROPPED, b"B"))
    for number in (1, 2):
        a.send(frames(b"B", bytes(1_000)))
        a.ping(number)
        a.send(event(FLUSH, number), frames(b"B", bytes(1_000)))
        a.expect(event(DROPPED, b"B"))


def test_flushed_comes_at_once_where_nothing_waits(relay: RelayProcess) -> None:
    a, b = relay.claim(b"A", EVENTS), relay.claim(b"B")
    a.expect(event(JOINED, b"B"))
    a.send(event(FLUSH, 1), b"B1X1", event(FLUSH, 2), event(FLUSH, 255))
    a.expect(event(FLUSHED, 1), event(NO_ROUTE, b"X"), event(FLUSHED, 2), event(FLUSHED, 255))
    b.expect(b"A1")


def test_flushed_comes_once_every_earlier_frame_was_written(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000")
    b, a = relay.claim(b"B"), relay.claim(b"A", EVENTS)
    data = noise(1_000_000, 1)
    a.send(frames(b"B", data), event(FLUSH, 7))
    a.ping(8)
    b.expect(frames(b"A", data))
    a.expect(event(FLUSHED, 7))


def test_later_frames_do_not_hold_up_flushed(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "8000000")
    b, a = relay.claim(b"B"), relay.claim(b"A", EVENTS)
    first, second = noise(500_000, 1), noise(2_000_000, 2)
    a.send(frames(b"B", first), event(FLUSH, 1), frames(b"B", second), event(FLUSH, 2))
    a.ping(3)
    b.expect(frames(b"A", first))
    b.expect(frames(b"A", second[:500_000]))
    a.expect(event(FLUSHED, 1))
    a.ping(4)
    b.expect(frames(b"A", second[500_000:]))
    a.expect(event(FLUSHED, 2))


def test_flushed_comes_after_dropped_and_left_where_the_receiver_vanishes(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "4000000")
    b, a = relay.claim(b"B", tcp=True), relay.claim(b"A", EVENTS)
    a.send(frames(b"B", bytes(1_000_000)), event(FLUSH, 7))
    a.ping(8)
    b.reset()
    received = a.receive(12)
    assert received[0:4] == event(DROPPED, b"B")
    assert sorted((received[4:8], received[8:])) == sorted((event(LEFT, b"B"), event(FLUSHED, 7)))


def test_flushed_waits_for_paused_frames_too(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000")
    b, a = relay.claim(b"B"), relay.claim(b"A", EVENTS)
    data = noise(300_000, 1)
    sent = frames(b"B", data) + event(FLUSH, 7)
    rest = sent[a.send_until_blocked(sent) :]
    assert select.select([a.socket], [], [], 0)[0] == [], "answered before anything was read"
    assert exchange({a: rest}, {b: 2 * len(data), a: 4}) == {b: frames(b"A", data), a: event(FLUSHED, 7)}


def test_a_session_that_takes_no_events_is_closed(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000000")
    b = relay.claim(b"B", EVENTS)
    a, watcher = relay.claim(b"A"), relay.observe()
    a.send(frames(b"B", bytes(400_000)))
    a.settle(b"A")
    seen = set()
    for _ in range(1100):
        relay.claim(b"J").close()
        while (latest := watcher.receive(4)) != event(LEFT, b"J"):
            seen.add(latest)
    assert seen == {event(JOINED, b"J"), event(LEFT, b"B")}
    assert b.receive(1000) == event(JOINED, b"A") + frames(b"A", bytes(498))
    assert relay.stop()["dropped.slow_consumer"] > 0


def test_answers_pause_the_asker_and_do_not_close_it(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "1000")
    a, b = relay.claim(b"A", EVENTS), relay.claim(b"B")
    a.expect(event(JOINED, b"B"))
    pings = b"".join(event(PING, number % 256) for number in range(400_000))
    sent = a.send_until_blocked(pings)
    assert sent < len(pings), "the asker was never paused"
    b.settle(b"B")
    sent = sent // 4 * 4
    assert a.receive(sent) == pings[:sent]


def test_an_operator_or_the_relay_says_why_it_closes_a_session(start_relay: StartRelay) -> None:
    relay = start_relay("--duplicate", "replace")
    a = relay.claim(b"A", EVENTS)
    relay.claim(b"A", NONE)
    a.expect(event(CLOSING, 4))
    a.expect_end()


def test_each_of_a_hundred_subscribers_gets_joined_before_the_client_s_first_frame(relay: RelayProcess) -> None:
    ids = [bytes((id,)) for id in range(128, 228)]
    subscribers = []
    for id in ids:
        # Each joins before the next one connects: else which is first depends on when the relay reads its hello.
        client = relay.hello(id, EVENTS)
        client.expect(id + b"\0", *(event(JOINED, other) for other in ids[: ids.index(id) + 1]), event(SYNCED))
        subscribers.append(client)
    for client, id in zip(subscribers, ids, strict=True):
        client.expect(*(event(JOINED, other) for other in ids[ids.index(id) + 1 :]))
    newcomer = relay.hello(b"N", NONE)
    newcomer.send(*(id + b"!" for id in ids))
    newcomer.close()
    for client in subscribers:
        client.expect(event(JOINED, b"N"), b"N!", event(LEFT, b"N"))


def test_clients_that_leave_with_events_queued_get_them_and_their_end(start_relay: StartRelay) -> None:
    relay = start_relay("--stall-timeout=0")
    ids = [bytes((id,)) for id in range(128, 228)]
    subscribers = [relay.hello(id, EVENTS) for id in ids]
    for client, id in zip(subscribers, ids, strict=True):
        client.expect(id + b"\0")
    relay.claim(b"N", NONE)
    # Each that leaves is news for the others, many of which are leaving too.
    for client in subscribers:
        client.leave()
    for client in subscribers:
        assert event(JOINED, b"N") in client.read_to_end()
