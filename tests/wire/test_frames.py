"""protocol.md, "Frames"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.wire.client import EVENTS, exchange, frames, noise

if TYPE_CHECKING:
    from tests.wire.relay_process import RelayProcess


def test_the_relay_replaces_the_destination_by_the_senders_id(relay: RelayProcess) -> None:
    a, b = relay.article(b"A"), relay.article(b"B")
    a.send(b"B1")
    b.expect(b"A1")
    b.send(b"A2")
    a.expect(b"B2")
    assert relay.stop()["written"] == 4  # and the two with which A and B made sure of their ids


def test_every_data_byte_is_forwarded_untouched(relay: RelayProcess) -> None:
    a, b = relay.article(b"A"), relay.article(b"B")
    data = bytes(range(256))
    a.send(frames(b"B", data))
    b.expect(frames(b"A", data))


def test_all_255_ids_can_be_held_at_once_and_reach_one_another(relay: RelayProcess) -> None:
    clients = {id: relay.claim(bytes((id,))) for id in range(1, 256)}
    for id, client in clients.items():
        client.send(bytes((id % 255 + 1, id)))
    for id, client in clients.items():
        before = id - 1 or 255
        client.expect(bytes((before, before)))
    for id, client in clients.items():
        client.send(b"".join(bytes((destination, id)) for destination in clients))
    for client in clients.values():
        received = client.receive(2 * 255)
        assert received[0::2] == received[1::2]
        assert sorted(received[0::2]) == list(range(1, 256))


def test_frames_may_arrive_in_any_split(relay: RelayProcess) -> None:
    a, b, c = relay.article(b"A"), relay.article(b"B"), relay.article(b"C")
    sent = b"".join(frames(b"B", noise(3, seed)) + frames(b"C", noise(2, seed)) for seed in range(40))
    for size in (1, 2, 3, 7):
        for at in range(0, len(sent), size):
            a.send(sent[at : at + size])
        b.expect(*(frames(b"A", noise(3, seed)) for seed in range(40)))
        c.expect(*(frames(b"A", noise(2, seed)) for seed in range(40)))


def test_order_holds_per_pair_in_large_chunks_to_many(relay: RelayProcess) -> None:
    a = relay.article(b"A")
    names = [bytes((id,)) for id in range(0x60, 0x70)]
    receivers = {name: relay.article(name) for name in names}
    data = {name: noise(20_000, name[0]) for name in names}
    mixed = bytes(
        byte for at in range(20_000) for name in names[at % 3 :] + names[: at % 3] for byte in (name[0], data[name][at])
    )
    received = exchange({a: mixed}, dict.fromkeys(receivers.values(), 40000))
    for name, receiver in receivers.items():
        assert received[receiver] == frames(b"A", data[name])


def test_order_holds_per_pair_between_many_senders_and_one_receiver(relay: RelayProcess) -> None:
    receiver = relay.article(b"R")
    senders = {bytes((id,)): relay.article(bytes((id,))) for id in range(0x60, 0x68)}
    data = {name: noise(30_000, name[0]) for name in senders}
    received = exchange(
        {sender: frames(b"R", data[name]) for name, sender in senders.items()}, {receiver: 2 * 8 * 30_000}
    )[receiver]
    arrived: dict[int, bytearray] = {name[0]: bytearray() for name in senders}
    for source, byte in zip(received[0::2], received[1::2], strict=True):
        arrived[source].append(byte)
    assert arrived == {name[0]: data[name] for name in senders}


def test_a_flood_in_both_directions_arrives_whole(relay: RelayProcess) -> None:
    a, b = relay.claim(b"A"), relay.claim(b"B", tcp=True)
    to_b, to_a = noise(500_000, 1), noise(500_000, 2)
    received = exchange({a: frames(b"B", to_b), b: frames(b"A", to_a)}, {a: 1_000_000, b: 1_000_000})
    assert received[b] == frames(b"A", to_b)
    assert received[a] == frames(b"B", to_a)
    assert relay.stop()["written"] == 1_000_000


def test_a_half_frame_waits_for_its_other_half_and_holds_up_no_other_client(relay: RelayProcess) -> None:
    a, b, c = relay.article(b"A"), relay.article(b"B"), relay.article(b"C")
    a.send(b"B1B")
    b.expect(b"A1")
    c.send(b"B3")
    b.expect(b"C3")
    c.send(b"A4")
    a.expect(b"C4")
    a.send(b"2")
    b.expect(b"A2")


def test_a_half_frame_at_end_of_file_is_discarded_and_counted(relay: RelayProcess) -> None:
    a, b = relay.article(b"A"), relay.article(b"B")
    a.send(b"B1B")
    a.leave()
    a.expect_end()
    b.expect(b"A1")
    b.settle(b"B")
    ledger = relay.stop()
    assert ledger["partial"] == 1
    assert ledger["accepted"] == 4


def test_a_frame_to_an_absent_id_is_dropped_and_counted(relay: RelayProcess) -> None:
    a = relay.article(b"A")
    a.send(b"X1Y2X3", b"A!")
    a.expect(b"A!")
    assert relay.stop()["dropped.no_route"] == 3


def test_a_frame_to_an_absent_id_is_not_delivered_later(relay: RelayProcess) -> None:
    a = relay.article(b"A")
    a.send(b"B1", b"A!")
    a.expect(b"A!")
    b = relay.article(b"B")
    a.send(b"B2")
    b.expect(b"A2")


def test_a_frame_to_oneself_is_delivered(relay: RelayProcess) -> None:
    a = relay.bound(b"A")
    data = noise(5_000, 1)
    assert exchange({a: frames(b"A", data)}, {a: 10_000}) == {a: frames(b"A", data)}


def test_delivery_is_at_most_once(relay: RelayProcess) -> None:
    a, b = relay.article(b"A"), relay.claim(b"B", EVENTS)
    a.send(frames(b"B", b"12345"))
    b.expect(frames(b"A", b"12345"))
    b.ping(1)
    b.leave()
    b.expect_end()
    assert relay.stop()["written"] == 6


def test_frames_to_the_relay_from_a_session_without_events_are_dropped(relay: RelayProcess) -> None:
    a, b = relay.article(b"A"), relay.claim(b"B")
    a.send(b"\0\x06\0\x01", b"\0\x07\0\0", b"A!")
    a.expect(b"A!")
    b.send(b"\0\x08\0\x01", b"B!")
    b.expect(b"B!")
    ledger = relay.stop()
    assert ledger["dropped.no_route"] == 6
    assert ledger["control"] == 0
