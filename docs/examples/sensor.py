"""A sensor: sends its temperature, one byte, to each connected display ten times a second.

sensor.py [ADDRESS]           is client S; the displays are 1 to 9 (display.py); runs until Ctrl-C
"""

import math
import sys
from contextlib import suppress

import trio

import triorelay


async def main(address: str = "unix:server_socket") -> None:
    async with triorelay.open_client(address, id="S", reconnect=triorelay.Backoff(sends="fail")) as client:
        while True:
            celsius = round(20 + 5 * math.sin(trio.current_time()))
            for display in client.peers & set("123456789"):
                with suppress(triorelay.ConnectionLost):
                    await client.send(display, bytes([celsius]))
            await trio.sleep(0.1)


with suppress(KeyboardInterrupt):
    trio.run(main, *sys.argv[1:])
