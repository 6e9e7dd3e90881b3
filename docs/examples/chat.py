"""Chat over a relay: each line that you type goes to every connected client.

chat.py ID [ADDRESS]          ADDRESS is unix:server_socket by default; Ctrl-D ends it
"""

import os
import sys
from collections.abc import AsyncIterator

import trio

import triorelay


async def typed_lines() -> AsyncIterator[bytes]:
    rest = b""
    while chunk := await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


async def main(own_id: str, address: str = "unix:server_socket") -> None:
    async with (
        triorelay.open_client(address, id=own_id) as client,
        client.messages() as messages,
        trio.open_nursery() as nursery,
    ):

        async def listen() -> None:
            async for sender, line in messages:
                print(f"{sender}: {line.decode(errors='replace')}", flush=True)

        async def watch() -> None:
            async for event in client.events():
                if event.code in (triorelay.EventCode.JOINED, triorelay.EventCode.LEFT):
                    print(f"{event.id} {'joins' if event.code == triorelay.EventCode.JOINED else 'leaves'}", flush=True)

        nursery.start_soon(listen)
        nursery.start_soon(watch)
        print(f"connected: {' '.join(sorted(client.peers)) or 'none'}", flush=True)
        async for line in typed_lines():
            for peer in client.peers:
                await messages.send(peer, line)
        nursery.cancel_scope.cancel()


trio.run(main, *sys.argv[1:])
