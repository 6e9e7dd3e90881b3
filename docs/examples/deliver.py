"""Deliver every line, whatever happens to the relay: each is repeated until a flush confirms it.

deliver.py PEER [ADDRESS]     is D; the lines are standard input; a number in front tells the peer which it has already
"""

import sys

import trio

import triorelay


async def deliver(client: triorelay.Client, messages: triorelay.MessageChannel, peer: str, line: bytes) -> None:
    while True:
        await client.wait_for(peer)
        try:
            await messages.send(peer, line)
            return await client.flush()
        except (triorelay.ConnectionLost, triorelay.NotDelivered) as error:
            print(f"again, because {error}", file=sys.stderr, flush=True)


async def main(peer: str, address: str = "unix:server_socket") -> None:
    backoff = triorelay.Backoff()
    async with (
        triorelay.open_client(address, id="D", reconnect=backoff, strict=True) as client,
        client.messages() as messages,
    ):
        number = 0
        while line := await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
            number += 1
            await deliver(client, messages, peer, b"%d %s" % (number, line.rstrip(b"\n")))
            print(f"delivered {number}", flush=True)


trio.run(main, *sys.argv[1:])
