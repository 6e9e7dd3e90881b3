"""One process of a measurement: python -m benchmarks.clients._process LIBRARY ROLE ADDRESS ARGUMENTS...

1. A receiver says its name to the sender, which waits for all names before it begins.
2. A receiver checks that what arrives is what was sent, in order, and acknowledges each half window.
3. The sender sends for some seconds, never more than a window ahead of any receiver. The time that counts ends with the
   last acknowledgment of all that was sent.
4. The first eight bytes of a payload are its number; one of `END` ends a receiver.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.clients._libraries import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.clients._libraries import Bus

SENDER, RECEIVERS, BROADCAST = "A", "BCDEFGHI", "Z"
WINDOW = 512
HALF = WINDOW // 2
END = b"\xff" * 8
WARM_UP = 0.3  # seconds


async def gather(bus: Bus, receivers: int) -> None:
    """Wait until all receivers have said their names."""
    missing = set(RECEIVERS[:receivers])
    while missing:
        missing.discard((await bus.receive()).decode())


async def flood(bus: Bus, targets: Sequence[str], receivers: int, size: int, seconds: float) -> dict[str, float]:
    """Send to all; return how many messages a second each receiver got, and this process's processor time for each."""
    await gather(bus, receivers)
    filling = bytes(range(1, 256)) * (size // 255 + 1)
    filling = filling[: size - 8]
    acknowledged = dict.fromkeys(RECEIVERS[:receivers], 0)
    first = sent = 0
    used = 0.0
    begin = start = time.perf_counter()
    while (now := time.perf_counter()) < begin + WARM_UP + seconds:
        if not first and now > begin + WARM_UP:
            first, start, used = sent, now, time.process_time()
        for _ in range(HALF):
            payload = sent.to_bytes(8) + filling
            for target in targets:
                await bus.send(target, payload)
            sent += 1
        while min(acknowledged.values()) < sent - HALF:
            await _credit(bus, acknowledged)
    while min(acknowledged.values()) < sent:
        await _credit(bus, acknowledged)
    rate = (sent - first) / (time.perf_counter() - start)
    used = time.process_time() - used
    for target in targets:
        await bus.send(target, END)
    return {"rate": rate, "sender_us": 1e6 * used / (sent - first)}


async def _credit(bus: Bus, acknowledged: dict[str, int]) -> None:
    credit = await bus.receive()
    acknowledged[chr(credit[0])] = int.from_bytes(credit[1:])


async def drink(bus: Bus, name: str, size: int) -> dict[str, float]:
    """Receive a flood and acknowledge it; return this process's processor time for each message."""
    await bus.send(SENDER, name.encode())
    received, used = 0, time.process_time()

    async def handler(payload: bytes) -> bool:
        nonlocal received
        if payload == END:
            return True
        if len(payload) != size or payload[:8] != received.to_bytes(8):
            raise AssertionError(f"message {received} of {size} bytes arrived as {payload[:8]!r}, {len(payload)} bytes")
        received += 1
        if received % HALF == 0:
            await bus.send(SENDER, name.encode() + received.to_bytes(8))
        return False

    await bus.handle(handler)
    return {"receiver_us": 1e6 * (time.process_time() - used) / received}


async def ask(bus: Bus, size: int, seconds: float) -> list[float]:
    """Send and wait for the echo, again and again; return the times that it took, in seconds."""
    await gather(bus, 1)
    payload = bytes(8) + b"x" * (size - 8)
    times = []
    begin = time.perf_counter()
    while (start := time.perf_counter()) < begin + WARM_UP + seconds:
        await bus.send(RECEIVERS[0], payload)
        await bus.receive()
        if start > begin + WARM_UP:
            times.append(time.perf_counter() - start)
    await bus.send(RECEIVERS[0], END)
    return times


async def echo(bus: Bus, name: str) -> None:
    """Send back what arrives."""
    await bus.send(SENDER, name.encode())

    async def handler(payload: bytes) -> bool:
        if payload == END:
            return True
        await bus.send(SENDER, payload)
        return False

    await bus.handle(handler)


async def pour(address: str, size: int, seconds: float) -> float:
    """Send a triorelay stream by writes of one size; return bytes a second."""
    import triorelay

    async with triorelay.open_client(address, id=SENDER) as client:
        print("ready", flush=True)
        await client.wait_for(RECEIVERS[0])
        async with client.stream(RECEIVERS[0]) as stream:
            data = b"x" * size
            count, start = 0, time.perf_counter()
            while time.perf_counter() < start + seconds:
                for _ in range(64):
                    await stream.send_all(data)
                count += 64
            await stream.send_eof()
            received = b""
            while part := await stream.receive_some():
                received += part
            elapsed = time.perf_counter() - start
            if int.from_bytes(received) != count * size:
                raise AssertionError(f"{int.from_bytes(received)} bytes of {count * size} arrived")
            return count * size / elapsed


async def swallow(address: str) -> None:
    """Receive a triorelay stream, and say how many bytes came."""
    import triorelay

    async with (
        triorelay.open_client(address, id=RECEIVERS[0]) as client,
        client.stream(SENDER) as stream,
    ):
        received = 0
        while part := await stream.receive_some():
            received += len(part)
        await stream.send_all(received.to_bytes(8))


def main(name: str, role: str, address: str, who: str, size: str, seconds: str, receivers: str) -> None:
    library = LIBRARIES[name]
    spreads = int(receivers) > 1 and library.broadcasts
    figures: dict[str, float] = {}

    async def on_bus() -> None:
        listen = BROADCAST if role == "drink" and spreads else who
        async with library.connect(address, who, listen) as bus:
            if who == SENDER:
                print("ready", flush=True)
            if role == "flood":
                targets = BROADCAST if spreads else RECEIVERS[: int(receivers)]
                figures.update(await flood(bus, targets, int(receivers), int(size), float(seconds)))
            elif role == "drink":
                figures.update(await drink(bus, who, int(size)))
            elif role == "ask":
                times = sorted(await ask(bus, int(size), float(seconds)))
                figures["median_us"] = 1e6 * statistics.median(times)
                figures["p99_us"] = 1e6 * times[int(0.99 * len(times))]
            else:
                await echo(bus, who)

    async def on_stream() -> None:
        if role == "pour":
            figures["rate"] = await pour(address, int(size), float(seconds)) / int(size)
        else:
            await swallow(address)

    library.run(on_stream if role in ("pour", "swallow") else on_bus)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
