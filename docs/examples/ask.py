"""Call C (answer.py) with each TEXT, all at once, and print the replies.

ask.py TEXT…                  the relay is the one of TRIORELAY_RELAY, or unix:server_socket
"""

import os
import sys

import trio

import triorelay


async def main() -> None:
    address = os.environ.get("TRIORELAY_RELAY", "unix:server_socket")
    async with (
        triorelay.open_client(address) as client,
        client.calls() as calls,
        trio.open_nursery() as nursery,
    ):

        async def ask(text: str) -> None:
            with trio.fail_after(5):
                reply = await calls.call("C", text.encode())
            print(text, "->", reply.decode())

        await client.wait_for("C")
        for text in sys.argv[1:]:
            nursery.start_soon(ask, text)


trio.run(main)
