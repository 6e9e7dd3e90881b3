"""A display: shows the newest value of each sensor, and says when a sensor leaves.

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
                    print(f"{event.id} left", flush=True)

        nursery.start_soon(watch)
        async for sensor, readings in client:
            print(f"{sensor}: {readings[-1]} C", flush=True)


try:
    trio.run(main, *sys.argv[1:])
except* KeyboardInterrupt:
    pass
