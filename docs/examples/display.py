"""A display: shows what sensors send, the newest only, and says when a sensor goes.

display.py ID [ADDRESS]       ID is 1 to 9; runs until Ctrl-C
"""

import sys

import trio

import triorelay


async def main(own_id: str, address: str = "unix:server_socket") -> None:
    async with (
        triorelay.open_client(address, id=own_id, reconnect=triorelay.Backoff()) as client,
        trio.open_nursery() as nursery,
    ):

        async def watch() -> None:
            async for event in client.events():
                if event.code == triorelay.EventCode.LEFT:
                    print(f"{event.id}: gone", flush=True)

        nursery.start_soon(watch)
        async for sensor, readings in client:
            print(f"{sensor}: {readings[-1]} C", flush=True)


try:
    trio.run(main, *sys.argv[1:])
except* KeyboardInterrupt:
    pass
