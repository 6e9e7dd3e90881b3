"""A relay in which there is one of everything, and its state: ``python -m tests.handover.record`` writes it anew."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from tests.relay.in_memory import running
from triorelay.handover._state import VERSION, HandoverState, PeerState, encode
from triorelay.protocol import EventCode, HelloOption, encode_event
from triorelay.relay import Config, capture

HOLD = 2


async def recorded() -> HandoverState:
    """Return the state of a relay with a half frame, a paused sender, a FLUSH, held frames, and a shared id."""
    async with running(Config(queue_bytes=64, hold_frames=HOLD, stall_timeout=0), capacity=4) as world:
        a = await world.claim(b"A", HelloOption.EVENTS)
        for _ in range(2):
            await world.claim(b"N", HelloOption.ACK | HelloOption.SHARE)
        await world.claim(b"B")
        c = await world.claim(b"C")
        await a.send(b"N1B2B3B4X5X6" + encode_event(EventCode.FLUSH, 7) + b"B")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.send, b"B!" * 80)
            await trio.testing.wait_all_tasks_blocked()
            state, connections = capture(world.relay)
            nursery.cancel_scope.cancel()
        return HandoverState(VERSION, "0.1.0", [PeerState.of(one.peer) for one in connections], [], state)


if __name__ == "__main__":
    path = Path(__file__).parent / "states" / f"{VERSION}.msgpack"
    path.write_bytes(encode(trio.run(recorded, clock=trio.testing.MockClock(autojump_threshold=0))))
