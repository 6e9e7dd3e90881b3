"""Handovers in a row under load: nothing is lost, doubled or out of order, and the ledger adds up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.handover.load import Load, Talker
from tests.handover.relays import take_over
from tests.wire.client import EVENTS, FLUSH, FLUSHED, JOINED, event, frames, noise
from tests.wire.relay_process import RelayProcess

if TYPE_CHECKING:
    from pathlib import Path

HANDOVERS = int(os.environ.get("HANDOVERS") or 10)
OPTIONS = "--hold-frames", "100", "--hold-time", "0", "--stall-timeout", "0"
PAIRS, FLOODS = 64, 4
MUCH = noise(1_000_000, 3)


def test_handovers_in_a_row_under_load_lose_double_and_reorder_nothing(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, *OPTIONS) as first:
        relay = first
        stopped, paused, asker = relay.claim(b"S"), relay.claim(b"P"), relay.claim(b"E", EVENTS)
        asker.send(frames(b"X", b"held"))
        asker.send(frames(b"S", b"for S"), event(FLUSH, 1))
        asker.ping(2)
        load = Load()
        ids = iter(range(100, 256))
        for index in range(PAIRS + FLOODS):
            one, two = bytes((next(ids),)), bytes((next(ids),))
            clients = [relay.claim(id, tcp=bool(index % 2)) for id in (one, two)]
            is_pair = index < PAIRS
            burst = 1 + index % 7 if is_pair else 16384
            talkers = (
                Talker(clients[0], one, two, sends=is_pair, burst=burst),
                Talker(clients[1], two, one, sends=is_pair, burst=burst),
            )
            (load.pairs if is_pair else load.floods).append(talkers)
            asker.expect(event(JOINED, one), event(JOINED, two))
        sent_to_stopped = paused.send_until_blocked(frames(b"S", MUCH)) // 2
        load.start()
        for number in range(HANDOVERS):
            relay = take_over(relay, *OPTIONS)
            asker.ping(number)
        talked = load.finish()
        received = stopped.receive(2 * (sent_to_stopped + 5))
        sources = received[0::2]
        assert bytes(byte for id, byte in zip(sources, received[1::2], strict=True) if id == ord("E")) == b"for S"
        assert (
            bytes(byte for id, byte in zip(sources, received[1::2], strict=True) if id == ord("P"))
            == (MUCH[:sent_to_stopped])
        )
        # The FLUSH waits for the frames that are held, too.
        relay.claim(b"X").expect(frames(b"E", b"held"))
        asker.expect(event(JOINED, b"X"), event(FLUSHED, 1))
        relay._close_clients()
        ledger = relay.stop()
        assert ledger["accepted"] == talked + sent_to_stopped + len("for S") + len("held")
        assert ledger["written"] == ledger["accepted"]
