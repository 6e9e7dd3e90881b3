"""Send requests to C (answer.py) all at once; a number connects each answer with its request.

ask.py TEXT…                  TRIORELAY_RELAY names the relay, by default unix:server_socket
"""

import os
import sys
from itertools import count

import trio

import triorelay
from triorelay.client import MessageChannel


class Asker:
    def __init__(self, channel: MessageChannel) -> None:
        self.channel = channel
        self.numbers = count()
        self.waiting: dict[bytes, trio.MemorySendChannel[bytes]] = {}

    async def ask(self, peer: str, text: bytes) -> bytes:
        number = next(self.numbers).to_bytes(4)
        send_answer, answer = trio.open_memory_channel[bytes](1)
        self.waiting[number] = send_answer
        try:
            await self.channel.send(peer, number + text)
            with trio.fail_after(5):
                return await answer.receive()
        finally:
            del self.waiting[number]

    async def hear(self) -> None:
        async for _, message in self.channel:
            # An answer that comes too late is ignored.
            if message[:4] in self.waiting:
                self.waiting[message[:4]].send_nowait(message[4:])


async def main() -> None:
    address = os.environ.get("TRIORELAY_RELAY", "unix:server_socket")
    async with (
        triorelay.open_client(address) as client,
        client.messages() as channel,
        trio.open_nursery() as nursery,
    ):
        asker = Asker(channel)
        nursery.start_soon(asker.hear)
        await client.wait_for("C")

        async def ask(text: str) -> None:
            print(text, "->", (await asker.ask("C", text.encode())).decode())

        async with trio.open_nursery() as asking:
            for text in sys.argv[1:]:
                asking.start_soon(ask, text)
        nursery.cancel_scope.cancel()


trio.run(main)
