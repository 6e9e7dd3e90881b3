"""A relay that answers each line on its standard input with what it has in use, and drains at the end of that input."""

from __future__ import annotations

import gc
import json
import os
import sys
from functools import partial
from pathlib import Path

import trio

from triorelay.relay import Config, Relay, serve

PAGE = os.sysconf("SC_PAGE_SIZE")


def in_use(relay: Relay) -> dict[str, object]:
    gc.collect()
    return {
        "tcp": next(int(address.rpartition(":")[2]) for address in relay.addresses if address.startswith("tcp:")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "sessions": len(relay.exchange.sessions),
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE,
        "ledger": relay.ledger.summary(relay.exchange.queued_frames()),
    }


async def main(path: str) -> None:
    config = Config(
        unix=(path,), tcp=(("127.0.0.1", 0),), hold_frames=50, hold_time=1, stall_timeout=2, hello_timeout=1
    )
    async with trio.open_nursery() as nursery:
        relay: Relay = await nursery.start(partial(serve, config))
        async with trio.lowlevel.FdStream(os.dup(0)) as lines:
            while await lines.receive_some(1):
                sys.stdout.write(json.dumps(in_use(relay)) + "\n")
                sys.stdout.flush()
        relay.drain()


trio.run(main, sys.argv[1])
