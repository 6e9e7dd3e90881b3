"""Answer requests: a client that sends a message to C gets its words back in capitals.

answer.py [ADDRESS]           runs until Ctrl-C; ask.py asks it
"""

import sys
from contextlib import suppress

import trio

import triorelay


async def main(address: str = "unix:server_socket") -> None:
    backoff = triorelay.Backoff()
    async with triorelay.open_client(address, id="C", reconnect=backoff) as client, client.messages() as requests:
        async for sender, request in requests:
            number, text = request[:4], request[4:]
            await requests.send(sender, number + text.upper())


with suppress(KeyboardInterrupt):
    trio.run(main, *sys.argv[1:])
