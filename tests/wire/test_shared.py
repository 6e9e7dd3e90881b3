"""Ids that several sessions hold: each gets a copy, and no holder holds up another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wire.client import (
    ACK,
    DROPPED,
    EVENTS,
    FLUSH,
    FLUSHED,
    JOINED,
    LEFT,
    LOSSY,
    NO_ROUTE,
    NONE,
    SHARE,
    SYNCED,
    event,
    exchange,
    frames,
    noise,
)
from tests.wire.relay_process import SOURCE_TREE, RelayProcess

if TYPE_CHECKING:
    from tests.wire.client import Client
    from tests.wire.conftest import StartRelay

# More than the kernel takes for two connections, and a queue.
MUCH = noise(4_000_000, 1)


def share(relay: RelayProcess, id: bytes, options: int = ACK, *, tcp: bool = False) -> Client:
    return relay.claim(id, options | SHARE, tcp=tcp)


def test_every_holder_gets_every_frame_in_order(relay: RelayProcess) -> None:
    holders = [share(relay, b"N", tcp=bool(index % 2)) for index in range(8)]
    a, b = relay.claim(b"A"), relay.claim(b"B")
    data = noise(300_000, 2)
    sent = {a: frames(b"N", data), b: frames(b"N", data[::-1])}
    received = exchange(sent, dict.fromkeys(holders, 4 * len(data)))
    for holder in holders:
        pairs = list(zip(received[holder][0::2], received[holder][1::2], strict=True))
        assert bytes(byte for id, byte in pairs if id == ord("A")) == data
        assert bytes(byte for id, byte in pairs if id == ord("B")) == data[::-1]
    for client in (a, b, *holders):
        client.close()
    ledger = relay.stop()
    assert (ledger["accepted"], ledger["copied"], ledger["written"]) == (600_000, 7 * 600_000, 8 * 600_000)


def test_a_chunk_for_shared_and_other_ids_reaches_all_of_them(relay: RelayProcess) -> None:
    one, other, b, a = share(relay, b"N"), share(relay, b"N"), relay.claim(b"B"), relay.claim(b"A")
    a.send(b"N1B2N3B4")
    one.expect(b"A1A3")
    other.expect(b"A1A3")
    b.expect(b"A2A4")


def test_a_holder_sends_in_the_name_of_the_id_and_does_not_hear_itself(relay: RelayProcess) -> None:
    one, other, a = share(relay, b"N"), share(relay, b"N"), relay.claim(b"A")
    one.send(b"A1N2")
    a.expect(b"N1")
    other.expect(b"N2")
    other.send(b"N3")
    one.expect(b"N3")


def test_a_frame_of_the_only_holder_to_its_own_id_has_no_route(relay: RelayProcess) -> None:
    one = relay.claim(b"N", EVENTS | SHARE)
    one.send(b"N1")
    one.expect(event(NO_ROUTE, b"N"))
    one.close()
    assert relay.stop()["dropped.no_route"] == 1


@pytest.mark.parametrize(("first", "second"), [(SHARE, NONE), (NONE, SHARE)], ids=["shared first", "exclusive first"])
def test_a_claim_of_the_other_kind_is_refused(relay: RelayProcess, first: int, second: int) -> None:
    relay.claim(b"N", ACK | first)
    refused = relay.hello(b"N", ACK | second)
    refused.expect(b"N\1")
    refused.expect_end()


def test_replace_does_not_concern_shared_ids(start_relay: StartRelay) -> None:
    relay = start_relay("--duplicate", "replace")
    one, other = share(relay, b"N"), share(relay, b"N")
    relay.hello(b"N", ACK).expect(b"N\1")
    relay.claim(b"A").send(b"N1")
    one.expect(b"A1")
    other.expect(b"A1")


def test_once_the_last_holder_has_left_the_id_may_be_held_alone(relay: RelayProcess) -> None:
    watcher = relay.observe()
    one, other = share(relay, b"N"), share(relay, b"N")
    watcher.expect(event(JOINED, b"N"))
    one.close()
    other.close()
    watcher.expect(event(LEFT, b"N"))
    relay.claim(b"N", ACK)
    watcher.expect(event(JOINED, b"N"))
    relay.hello(b"N", ACK | SHARE).expect(b"N\1")


def test_a_shared_claim_waits_for_an_exclusive_holder_that_has_hung_up(relay: RelayProcess) -> None:
    b, gone = relay.claim(b"B"), relay.claim(b"N")
    gone.send(frames(b"B", b"x" * 1000))
    gone.close()
    share(relay, b"N")
    b.expect(frames(b"N", b"x" * 1000))


def test_sharing_id_0_is_a_bad_hello(relay: RelayProcess) -> None:
    refused = relay.hello(b"\0", ACK | SHARE)
    refused.expect(b"\0\3")
    refused.expect_end()


def test_joined_comes_with_the_first_holder_and_left_after_the_last(relay: RelayProcess) -> None:
    watcher = relay.claim(b"W", EVENTS)
    one, other = share(relay, b"N"), share(relay, b"N")
    watcher.expect(event(JOINED, b"N"))
    late = relay.hello(b"L", EVENTS)
    late.expect(b"L\0", event(JOINED, b"L"), event(JOINED, b"N"), event(JOINED, b"W"), event(SYNCED))
    watcher.expect(event(JOINED, b"L"))
    one.send(b"W1")
    one.close()
    watcher.expect(b"N1")
    watcher.ping(1)
    other.close()
    watcher.expect(event(LEFT, b"N"))


def test_a_bound_client_shares_what_the_relay_always_shares(start_relay: StartRelay) -> None:
    relay = start_relay("--share", "N,0x80-0x8f")
    bound = [relay.bound(b"N") for _ in range(3)]
    asked = [share(relay, b"N"), relay.claim(b"N", ACK)]
    a = relay.claim(b"A")
    a.send(b"N1")
    for holder in (*bound, *asked):
        holder.expect(b"A1")


def test_a_stopped_holder_pauses_the_sender_and_the_others_get_theirs_at_once(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "100000")
    stopped, reading, a = share(relay, b"N"), share(relay, b"N"), relay.claim(b"A")
    sent = a.send_until_blocked(frames(b"N", MUCH)) // 2 * 2
    assert sent < 2 * len(MUCH), "the sender was never paused"
    # What the relay has read reaches the one that reads, also the chunk that found the other one's queue full.
    taken = len(reading.receive(100_000))
    received = exchange({a: frames(b"N", MUCH)[sent:]}, {stopped: 2 * len(MUCH), reading: 2 * len(MUCH) - taken})
    assert received[stopped] == frames(b"A", MUCH)
    assert received[reading] == frames(b"A", MUCH)[taken:]


def test_a_stopped_holder_is_closed_by_the_stall_rule_and_the_others_get_everything(start_relay: StartRelay) -> None:
    relay = start_relay("--stall-timeout", "2")
    stopped, reading, a = share(relay, b"N"), share(relay, b"N"), relay.claim(b"A")
    assert exchange({a: frames(b"N", MUCH)}, {reading: 2 * len(MUCH)}) == {reading: frames(b"A", MUCH)}
    stopped.close()
    for client in (a, reading):
        client.close()
    assert relay.stop()["dropped.slow_consumer"] > 0


@pytest.mark.parametrize("options", [ACK | LOSSY, ACK | LOSSY | SHARE], ids=["alone", "shared"])
def test_a_lossy_receiver_pauses_no_sender(start_relay: StartRelay, options: int) -> None:
    relay = start_relay("--queue-bytes", "10000", "--stall-timeout", "0")
    stopped, b, a = relay.claim(b"N", options), relay.claim(b"B"), relay.claim(b"A", EVENTS)
    a.send(frames(b"N", MUCH), b"B!")
    b.expect(b"A!")
    a.expect(event(DROPPED, b"N"))
    a.send(event(FLUSH, 1))
    # What is in its queue waits for it, and has to be taken or dropped before FLUSHED.
    stopped.close()
    assert event(FLUSHED, 1) in a.receive(8)
    for client in (a, b):
        client.close()
    ledger = relay.stop()
    assert ledger["dropped.queue_full"] > 3_000_000


def test_a_lossy_holder_loses_what_the_others_get(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "10000", "--stall-timeout", "0")
    lossy, reading, a = share(relay, b"N", ACK | LOSSY), share(relay, b"N"), relay.claim(b"A")
    assert exchange({a: frames(b"N", MUCH)}, {reading: 2 * len(MUCH)}) == {reading: frames(b"A", MUCH)}
    for client in (a, reading):
        client.close()
    kept = b""
    relay.signal()
    while more := lossy.socket.recv(1 << 16):
        kept += more
    lossy.close()
    assert 0 < len(kept) < 2 * len(MUCH)
    assert frames(b"A", MUCH).startswith(kept)
    ledger = relay.expect_exit(0)
    assert len(kept) // 2 + ledger["dropped.queue_full"] == len(MUCH)


def test_a_drop_is_reported_again_after_a_frame_has_reached_a_later_holder_of_a_shared_id(
    start_relay: StartRelay,
) -> None:
    relay = start_relay("--queue-bytes", "10000", "--stall-timeout", "0")
    a = relay.claim(b"A", EVENTS)
    alone = relay.claim(b"N", ACK | LOSSY)
    a.expect(event(JOINED, b"N"))
    a.send(frames(b"N", MUCH))
    a.expect(event(DROPPED, b"N"))
    a.ping(1)
    alone.close()
    a.expect(event(LEFT, b"N"))
    shared = share(relay, b"N", ACK | LOSSY)
    a.expect(event(JOINED, b"N"))
    a.send(b"N1")
    shared.expect(b"A1")
    a.send(frames(b"N", MUCH))
    a.expect(event(DROPPED, b"N"))


def test_a_denied_frame_is_reported_and_so_is_a_later_drop(tmp_path: Path) -> None:
    policy = '[principals.me]\nuid = {}\nids = "A-Z"\nto = "{}"\n'
    options = ("--queue-bytes", "10000", "--stall-timeout", "0")
    with RelayProcess(tmp_path, *options, config=policy.format(os.getuid(), "A")) as relay:
        shared, a = share(relay, b"N", ACK | LOSSY), relay.claim(b"A", EVENTS)
        a.send(b"N0")
        a.expect(event(DROPPED, b"N"))
        (tmp_path / "relay.toml").write_text(policy.format(os.getuid(), "A,N"))
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_for_line("reloaded")
        a.send(b"N1")
        shared.expect(b"A1")
        a.send(frames(b"N", MUCH))
        a.expect(event(DROPPED, b"N"))


def test_a_drop_is_reported_once_although_the_other_holders_get_everything(start_relay: StartRelay) -> None:
    relay = start_relay("--queue-bytes", "10000", "--stall-timeout", "0")
    lossy, reading = share(relay, b"N", ACK | LOSSY), share(relay, b"N")
    a = relay.claim(b"A", EVENTS)
    for _ in range(20):
        exchange({a: frames(b"N", MUCH[:100_000])}, {reading: 200_000})
    a.expect(event(DROPPED, b"N"))
    a.ping(3)
    assert lossy.receive(2)[:1] == b"A"


def test_a_flush_waits_for_every_holder(start_relay: StartRelay) -> None:
    relay = start_relay("--stall-timeout", "0", "--queue-bytes", "1000000")
    stopped, reading, a = share(relay, b"N"), share(relay, b"N"), relay.claim(b"A", EVENTS)
    sent = frames(b"N", MUCH[:200_000])
    assert exchange({a: sent + event(FLUSH, 7)}, {reading: len(sent)}) == {reading: frames(b"A", MUCH[:200_000])}
    a.ping(1)
    stopped.expect(frames(b"A", MUCH[:200_000]))
    a.expect(event(FLUSHED, 7))


def test_held_frames_go_to_the_first_holder(start_relay: StartRelay) -> None:
    relay = start_relay("--hold-frames", "10")
    a = relay.claim(b"A", EVENTS)
    a.send(b"N1N2")
    a.ping(1)
    one = share(relay, b"N")
    one.expect(b"A1A2")
    other = share(relay, b"N")
    a.expect(event(JOINED, b"N"))
    a.send(b"N3")
    one.expect(b"A3")
    other.expect(b"A3")


def test_there_are_255_sessions_in_all(relay: RelayProcess) -> None:
    holders = [share(relay, b"N") for _ in range(254)]
    relay.claim(b"A").send(b"N1")
    for holder in holders:
        holder.expect(b"A1")
    refused = relay.hello(b"N", ACK | SHARE)
    refused.expect(b"N\4")
    refused.expect_end()
    relay.hello(b"B", ACK).expect(b"B\4")


def test_a_principal_may_share_what_its_ids_name(start_relay: StartRelay) -> None:
    relay = start_relay(config='[principals.net]\naddress = "127.0.0.1"\nids = "N"\n')
    share(relay, b"N", tcp=True)
    share(relay, b"N", tcp=True)
    relay.hello(b"M", ACK | SHARE, tcp=True).expect(b"M\2")


def test_250_holders_in_a_flood_stay_below_the_ceiling(start_relay: StartRelay) -> None:
    """Half of them are stopped, and pause the sender until the stall rule closes them; then the others get the rest."""
    relay = start_relay("--stall-timeout", "2")
    ceiling = re.search(r"memory_ceiling=(\d+)", "".join(relay.lines))
    assert ceiling is not None
    stopped, reading = ([share(relay, b"N") for _ in range(125)] for _ in range(2))
    a = relay.claim(b"A")
    before = resident(relay.process.pid)
    sent = frames(b"N", MUCH[:500_000])
    received = exchange({a: sent}, dict.fromkeys(reading, len(sent)))
    assert set(received.values()) == {frames(b"A", MUCH[:500_000])}
    assert resident(relay.process.pid) - before < int(ceiling[1])
    for client in (a, *reading, *stopped):
        client.close()
    ledger = relay.stop()
    assert ledger["accepted"] == 500_000
    assert ledger["dropped.slow_consumer"] > 0


def resident(pid: int) -> int:
    """Return the most bytes of memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_presence_of_a_shared_id_is_of_the_holders_that_a_client_may_know_of(start_relay: StartRelay) -> None:
    """B may not hear from the first holder of N, but from the second."""
    relay = start_relay(
        config='[principals.one]\naddress = "127.0.0.1"\nids = "N"\nto = "C"\n'
        '[principals.two]\naddress = "127.0.0.2"\nids = "N"\nto = "B"\n'
        '[principals.three]\naddress = "127.0.0.3"\nids = "B"\nto = "B,C"\n'
    )

    def claim(source: str, id: bytes, options: int) -> Client:
        client = relay.tcp(source)
        client.send(id, bytes((0x80 | options,)))
        client.expect(id, b"\0")
        return client

    b = claim("127.0.0.3", b"B", EVENTS)
    b.expect(event(JOINED, b"B"), event(SYNCED))
    first = claim("127.0.0.1", b"N", ACK | SHARE)
    second = claim("127.0.0.2", b"N", ACK | SHARE)
    b.expect(event(JOINED, b"N"))
    second.send(b"B1")
    b.expect(b"N1")
    second.close()
    b.expect(event(LEFT, b"N"))
    first.close()
    b.ping(1)


def test_a_reload_that_takes_the_id_from_one_holder_closes_that_one(start_relay: StartRelay) -> None:
    def policy(second: str) -> str:
        return f'[principals.one]\naddress = "127.0.0.1"\n[principals.two]\naddress = "127.0.0.2"\nids = "{second}"\n'

    relay = start_relay(config=policy("N"))
    stays, goes = relay.tcp("127.0.0.1"), relay.tcp("127.0.0.2")
    for holder in (stays, goes):
        holder.send(b"N", bytes((0x80 | ACK | SHARE,)))
        holder.expect(b"N\0")
    watcher = relay.claim(b"W", EVENTS, tcp=True)
    (relay.directory / "relay.toml").write_text(policy("M"))
    relay.signal(signal.SIGHUP)
    relay.wait_for_line("reloaded")
    goes.expect_end()
    watcher.ping(1)  # no LEFT: the id is still held
    watcher.send(b"N1")
    stays.expect(b"W1")
    for client in (stays, goes, watcher):
        client.close()
    relay.signal()


def test_an_operator_closes_all_holders_of_a_shared_id(start_relay: StartRelay) -> None:
    relay = start_relay("--admin", "unix:server_socket.admin")
    holders = [share(relay, b"N") for _ in range(3)]
    watcher = relay.observe()
    subprocess.run(
        [sys.executable, "-m", "triorelay", "close", "N", "--admin", "unix:server_socket.admin"],
        cwd=relay.directory,
        env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
        check=True,
        timeout=60,
    )
    for holder in holders:
        holder.expect_end()
    watcher.expect(event(LEFT, b"N"))
