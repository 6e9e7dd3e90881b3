"""What users of MQTT, NATS, ZeroMQ and D-Bus look for; `triorelay serve --unix server_socket` in this directory."""

import trio

import triorelay

RELAY = "unix:server_socket"


async def publish_to_one_subscriber() -> None:
    async with (
        triorelay.open_client(RELAY, id="P") as planner,
        triorelay.open_client(RELAY, id="S") as sensor,
        planner.messages() as received,
        sensor.messages() as sent,
    ):
        await sent.send("P", b"21.5")
        source, reading = await received.receive()
        print(f"{source} measures {reading.decode()}")


async def learn_who_is_there_and_who_left() -> None:
    async with triorelay.open_client(RELAY, id="P") as planner:
        events = planner.events()
        async with triorelay.open_client(RELAY, id="S"):
            await planner.wait_for("S")
            print("S is here:", "S" in planner.peers)
        async for event in events:
            if event.code == triorelay.EventCode.LEFT:
                print(f"{event.id} left")
                break


async def be_sure_that_it_was_delivered() -> None:
    async with triorelay.open_client(RELAY, id="S") as sensor:
        try:
            async with triorelay.open_client(RELAY, id="P", strict=True) as planner:
                await planner.send("S", b"1")
                await planner.flush()  # S's kernel has it
                print("delivered:", await sensor.receive())
                await planner.send("X", b"1")
                await planner.flush()
        except triorelay.NotDelivered as error:
            print("not delivered:", error)


async def stream_bytes() -> None:
    async with (
        triorelay.open_client(RELAY, id="P") as planner,
        triorelay.open_client(RELAY, id="S") as sensor,
        planner.stream("S") as reading,
        sensor.stream("P") as writing,
    ):
        await writing.send_all(b"any number of bytes")
        await writing.send_eof()
        print("streamed:", b"".join([chunk async for chunk in reading]).decode())


async def call() -> None:
    async def double(source: str, payload: bytes) -> bytes:
        return b"%d" % (2 * int(payload))

    async with (
        triorelay.open_client(RELAY, id="P") as planner,
        triorelay.open_client(RELAY, id="S") as server,
        planner.calls() as calls,
        server.calls() as served,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(served.serve, double)
        print("called:", (await calls.call("S", b"21")).decode())
        nursery.cancel_scope.cancel()


async def publish_to_all_holders_of_an_id() -> None:
    async with (
        triorelay.open_client(RELAY, id="P") as planner,
        triorelay.open_client(RELAY, id="N", shared=True) as one,
        triorelay.open_client(RELAY, id="N", shared=True, lossy=True) as another,
    ):
        await planner.send("N", b"1")
        print("published:", await one.receive(), await another.receive())


async def main() -> None:
    await publish_to_one_subscriber()
    await publish_to_all_holders_of_an_id()
    await call()
    await learn_who_is_there_and_who_left()
    await be_sure_that_it_was_delivered()
    await stream_bytes()


trio.run(main)
