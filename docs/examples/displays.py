"""A sensor, a display that must not miss anything, and one that may: three clients of one relay."""

import sys

import trio

import triorelay


async def display(relay: str, *, lossy: bool, ready: trio.Event) -> None:
    async with triorelay.open_client(relay, id="N", shared=True, lossy=lossy) as client:
        ready.set()
        async with client.messages() as messages:
            source, reading = await messages.receive()
            print(f"{'lossy' if lossy else 'careful'} display: {source} measures {reading.decode()}", flush=True)


async def main(relay: str) -> None:
    async with trio.open_nursery() as nursery, triorelay.open_client(relay, id="S") as sensor:
        for lossy in (False, True):
            ready = trio.Event()
            nursery.start_soon(lambda lossy=lossy, ready=ready: display(relay, lossy=lossy, ready=ready))
            await ready.wait()
        async with sensor.messages() as messages:
            await messages.send("N", b"21.5 degrees")


trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "unix:server_socket")
