"""Serve calls: a client that calls C gets its words back in capitals.

answer.py [ADDRESS]           runs until Ctrl-C; ask.py calls it
"""

import sys
from contextlib import suppress

import trio

import triorelay


async def capitals(caller: str, payload: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return payload.upper()


async def main(address: str = "unix:server_socket") -> None:
    backoff = triorelay.Backoff(initial=True)
    async with triorelay.open_client(address, id="C", reconnect=backoff) as client, client.calls() as calls:
        await calls.serve(capitals, at_once=8)


with suppress(KeyboardInterrupt):
    trio.run(main, *sys.argv[1:])
