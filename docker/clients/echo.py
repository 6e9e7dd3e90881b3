"""Answers each client with its own bytes. Comes back by itself when the relay was away."""

import sys

import trio

import triorelay


async def main(relay: str, name: str) -> None:
    async with triorelay.open_client(relay, id=name, reconnect=triorelay.Backoff()) as client:
        async for source, data in client:
            print(f"{data!r} from {source}", flush=True)
            await client.send(source, data)


trio.run(main, sys.argv[1], sys.argv[2])
