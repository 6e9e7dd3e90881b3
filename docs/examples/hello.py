"""Two clients of one relay, `make run`, in the same directory."""

import trio

import triorelay


async def main() -> None:
    relay = "unix:server_socket"
    async with triorelay.open_client(relay, id="A") as a, triorelay.open_client(relay, id="B") as b:
        await a.send("B", b"1")
        source, data = await b.receive()
        print(f"{source} says {data.decode()}")

        async with a.messages() as sender, b.messages() as receiver:
            await sender.send("B", b"a whole message")
            source, payload = await receiver.receive()
            print(f"{source} says {payload.decode()}")


trio.run(main)
