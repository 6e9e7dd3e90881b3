"""A relay that another one takes over from, as processes: clients notice nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.handover.relays import take_over
from tests.wire.client import (
    ACK,
    EVENTS,
    FLUSH,
    FLUSHED,
    JOINED,
    LEFT,
    LOSSY,
    SHARE,
    event,
    exchange,
    frames,
    noise,
)
from tests.wire.relay_process import SOURCE_TREE, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MUCH = noise(2_000_000, 1)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[RelayProcess]:
    with RelayProcess(tmp_path) as relay:
        yield relay


def test_clients_keep_talking_and_the_ledger_continues(old: RelayProcess) -> None:
    a, b, c = old.claim(b"A"), old.article(b"B"), old.claim(b"C", tcp=True)
    a.send(b"B1C2")
    b.expect(b"A1")
    c.expect(b"A2")
    with take_over(old) as new:
        assert new.tcp_port == old.tcp_port
        a.send(b"B3C4")
        b.expect(b"A3")
        c.expect(b"A4")
        d = new.claim(b"D", tcp=True)
        d.send(b"A5")
        a.expect(b"D5")
        ledger = new.stop()
    assert ledger["accepted"] == 6  # one is B's to itself


def test_clients_with_events_hear_nothing_of_it(old: RelayProcess) -> None:
    watcher, a = old.observe(), old.claim(b"A", EVENTS)
    watcher.expect(event(JOINED, b"A"))
    with take_over(old) as new:
        a.ping(1)
        watcher.ping(2)
        b = new.claim(b"B")
        watcher.expect(event(JOINED, b"B"))
        a.expect(event(JOINED, b"B"))
        b.close()
        watcher.expect(event(LEFT, b"B"))


def test_half_a_frame_and_half_a_hello_are_completed(old: RelayProcess) -> None:
    a, b, late = old.claim(b"A", EVENTS), old.claim(b"B"), old.unix()
    a.expect(event(JOINED, b"B"))
    a.send(b"B")
    late.send(b"L")
    a.send(b"1B")
    b.expect(b"A1")
    with take_over(old):
        a.send(b"2")
        b.expect(b"A2")
        late.send(b"\x81B3")
        late.expect(b"L\0")
        b.expect(b"L3")
        a.expect(event(JOINED, b"L"))


def test_a_claim_that_waits_for_its_holder_continues_to_wait(old: RelayProcess) -> None:
    """The holder has hung up, and a frame of it waits for room."""
    stopped, holder, late = old.claim(b"S"), old.claim(b"H"), old.unix()
    sent = holder.send_until_blocked(frames(b"S", MUCH)) // 2 * 2
    holder.close()
    late.send(b"H\x81S!")
    with take_over(old):
        received = stopped.receive(sent)
        assert received == frames(b"H", MUCH)[:sent]
        late.expect(b"H\0")
        stopped.expect(b"H!")


def test_what_is_queued_and_paused_arrives_whole_and_in_order(old: RelayProcess) -> None:
    receiver = old.claim(b"R")
    senders = [old.claim(bytes((id,)), tcp=bool(id % 2)) for id in b"abcd"]
    data = {sender: frames(b"R", noise(1_000_000, seed)) for seed, sender in enumerate(senders)}
    left = {sender: sent[sender.send_until_blocked(sent) :] for sender, sent in data.items()}
    with take_over(old) as new:
        received = exchange(left, {receiver: 8_000_000})[receiver]
        for seed, id in enumerate(b"abcd"):
            mine = bytes(byte for source, byte in zip(received[0::2], received[1::2], strict=True) if source == id)
            assert mine == noise(1_000_000, seed)
        for client in (receiver, *senders):
            client.close()
        ledger = new.stop()
    assert (ledger["accepted"], ledger["written"]) == (4_000_000, 4_000_000)


def test_open_flushes_are_answered(old: RelayProcess) -> None:
    stopped, a = old.claim(b"S"), old.claim(b"A", EVENTS)
    sent = a.send_until_blocked(frames(b"S", MUCH)) // 2 * 2
    b = old.claim(b"B", EVENTS)
    b.send(b"S!", event(FLUSH, 5))
    with take_over(old):
        received = stopped.receive(sent + 2)
        assert b"B!" in (received[at : at + 2] for at in range(0, len(received), 2))
        b.expect(event(FLUSHED, 5))
        a.expect(event(JOINED, b"B"))


def test_held_frames_wait_on(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--hold-frames", "10", "--hold-time", "0") as old:
        a = old.claim(b"A", EVENTS)
        a.send(b"X1X2", event(FLUSH, 1))
        a.ping(9)
        with take_over(old, "--hold-frames", "10", "--hold-time", "0") as new:
            x = new.claim(b"X")
            x.expect(b"A1A2")
            a.expect(event(JOINED, b"X"), event(FLUSHED, 1))


def test_shared_and_lossy_holders_stay_what_they_are(old: RelayProcess) -> None:
    one, other = old.claim(b"N", ACK | SHARE), old.claim(b"N", ACK | SHARE | LOSSY)
    a = old.claim(b"A")
    with take_over(old) as new:
        a.send(b"N1")
        one.expect(b"A1")
        other.expect(b"A1")
        new.hello(b"N", ACK).expect(b"N\1")
        new.claim(b"N", ACK | SHARE)


def test_a_client_that_shut_its_sending_side_still_gets_what_is_queued(old: RelayProcess) -> None:
    watcher, leaving, a = old.observe(), old.claim(b"L"), old.claim(b"A")
    watcher.expect(event(JOINED, b"L"), event(JOINED, b"A"))
    a.send_until_blocked(frames(b"L", MUCH))
    leaving.leave()
    watcher.expect(event(LEFT, b"L"))
    with take_over(old):
        watcher.ping(1)
        received = leaving.read_to_end()
        assert len(received) > 65536
        assert frames(b"A", MUCH).startswith(received)


def test_the_stall_rule_holds_after_a_handover(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--stall-timeout", "4") as old:
        stopped, b, a = old.claim(b"S"), old.claim(b"B"), old.claim(b"A")
        a.send_until_blocked(frames(b"S", MUCH))
        with take_over(old, "--stall-timeout", "4") as new:
            new.wait_for_line("slow_consumer")
            stopped.close()
            b.send(b"A1")
            a.expect(b"B1")


def test_settings_may_differ_and_sessions_that_are_not_allowed_any_more_are_closed(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--tls", "127.0.0.1:0", *TLS(tmp_path)) as old:
        a, b = old.claim(b"A"), old.claim(b"B", tcp=True)
        policy = f'[principals.me]\nuid = {os.getuid()}\nids = "A-Z"\n'
        with take_over(old, config=policy) as new:
            b.expect_end()
            a.send(b"A1")
            a.expect(b"A1")
            assert "tls:" not in "".join(new.lines)


def test_sessions_with_tls_get_an_end_and_come_back(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, "--tls", "127.0.0.1:0", *TLS(tmp_path)) as old:
        port = re.search(r"tls:127.0.0.1:(\d+)", "".join(old.lines))
        assert port is not None
        command = [sys.executable, "-m", "triorelay", "receive", "--id", "T", "--relay", f"tls:127.0.0.1:{port[1]}"]
        receiver = subprocess.Popen(
            [*command, "--tls-ca", str(tmp_path / "ca.pem"), "--reconnect"],
            env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            watcher = old.observe()
            watcher.expect(event(JOINED, b"T"))
            with take_over(old, "--tls", "127.0.0.1:0", *TLS(tmp_path)) as new:
                watcher.expect(event(LEFT, b"T"), event(JOINED, b"T"))
                new.claim(b"A").send(b"T1")
                assert receiver.stdout is not None
                line = receiver.stdout.readline()
                assert line.startswith("A")
        finally:
            receiver.kill()
            receiver.communicate()


def TLS(directory: Path) -> tuple[str, ...]:
    import trustme

    if not (directory / "ca.pem").exists():
        authority = trustme.CA()
        authority.cert_pem.write_to_path(directory / "ca.pem")
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            directory / "server.pem"
        )
    return "--tls-cert", str(directory / "server.pem"), "--tls-key", str(directory / "server.pem")


def test_a_lock_file_that_was_removed_moves_all_the_same(old: RelayProcess) -> None:
    a = old.claim(b"A")
    os.unlink(f"{old.unix_path}.lock")
    with take_over(old) as new:
        a.send(b"A1")
        a.expect(b"A1")
        new.claim(b"B")
