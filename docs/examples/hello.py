"""Two clients of one relay, `make run`, in the same directory."""

import trio

import triorelay


async def main() -> None:
    relay = "unix:server_socket"
    async with (
        triorelay.open_client(relay, id="A") as a,
        triorelay.open_client(relay, id="B") as b,
    ):
        await a.send("B", b"1")
        source, data = await b.receive()
        print(f"{source} says {data.decode()}")

        async with a.messages() as sender, b.messages() as receiver:
            await sender.send("B", b"a whole message")
            source, payload = await receiver.receive()
            print(f"{source} says {payload.decode()}")

        async with (
            a.calls() as calls,
            b.calls() as serving,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(serving.serve, double)
            print(await calls.call("B", b"21"))
            nursery.cancel_scope.cancel()


async def double(caller: str, payload: bytes) -> bytes:
    return str(2 * int(payload)).encode()


trio.run(main)
