"""Two clients of one relay: `triorelay serve` in this directory, then this."""

import trio

import triorelay


async def main() -> None:
    relay = "unix:server_socket"
    async with triorelay.open_client(relay, id="A") as a, triorelay.open_client(relay, id="B") as b:
        await a.send("B", b"1")
        source, data = await b.receive()
        print(f"{source} says {data.decode()}")


trio.run(main)
