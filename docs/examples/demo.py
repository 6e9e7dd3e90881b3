"""Watch a relay at work: the article's two programs, a client over TCP, a dozen that chat, a flood, a late message.

    python docs/examples/demo.py            takes about ten seconds
    python docs/examples/demo.py --quick    takes about two

It uses a temporary directory, which it removes at the end, and a TCP port that the system chooses.
"""

import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import trio

from triorelay.client import Client, open_client
from triorelay.protocol import EventCode

HERE = Path(__file__).resolve().parent
ARTICLE_CLIENT = HERE.parents[1] / "tests" / "c" / "article_client.c"
TALKERS = "abcdefghijkl"
WORDS = ["hello", "yes", "no", "why?", "left arm up", "42 degrees", "battery low", "door open", "ping", "done"]
FLOOD_BLOCK = bytes(65536)


def tell(text: str) -> None:
    print(text, flush=True)


async def lines_of(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


class Demo:
    def __init__(self, directory: Path, *, quick: bool) -> None:
        self.directory = directory
        self.address = f"unix:{directory}/server_socket"
        self.port = 0
        self.seconds = 1.0 if quick else 8.0
        self.pause = 0.05 if quick else 0.3

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            relay: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    [sys.executable, "-m", "triorelay", "serve", "--unix", "server_socket", "--tcp", "127.0.0.1:0"],
                    cwd=self.directory,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    # Ctrl-C is for the demo, which then ends the relay.
                    start_new_session=True,
                )
            )
            assert relay.stderr is not None
            log = lines_of(relay.stderr)
            tell(f"A relay starts in {self.directory}, as: triorelay serve --unix server_socket --tcp 127.0.0.1:0")
            await self.wait_until_ready(log)
            await self.article_clients()
            await self.tcp_client()
            await self.talk()
            tell("\nThe relay gets SIGTERM, drains, and prints its ledger:")
            relay.send_signal(signal.SIGTERM)
            async for line in log:
                if line.startswith("ledger "):
                    self.check_the_ledger(line)

    async def wait_until_ready(self, log: AsyncIterator[str]) -> None:
        async for line in log:
            found = re.search(r"tcp:127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                tell(f"It is ready, and listens on TCP port {self.port} too.")
                return
            tell(f"  {line}")
        raise RuntimeError("the relay did not start")

    # -- the article's two programs

    async def article_clients(self) -> None:
        program = await self.article_program()
        async with trio.open_nursery() as nursery:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            clients: list[trio.Process] = [
                await nursery.start(
                    partial(trio.run_process, [*program, own, other, data, "-"], cwd=self.directory, **pipes)
                )
                for own, other, data in (("A", "B", "1"), ("B", "A", "2"))
            ]
            for client in clients:
                assert client.stderr is not None
                await anext(lines_of(client.stderr))
            # A connected client may not have its id yet, and these two have no way to ask for events.
            async with open_client(self.address, observer=True) as observer:
                await observer.wait_for("A")
                await observer.wait_for("B")
            for own, other, data, client in (("A", "B", "1", clients[0]), ("B", "A", "2", clients[1])):
                tell(f"  {own} writes {other}{data}: to {other}, the byte {data}")
                assert client.stdin is not None
                await client.stdin.aclose()
            for own, client in zip("AB", clients, strict=True):
                assert client.stdout is not None
                frame = await anext(lines_of(client.stdout))
                tell(f"  {own} reads  {frame}: from {frame[0]}, the byte {frame[1]}")

    async def article_program(self) -> list[str]:
        """Return the command of the article's client: compiled if possible, else the same in Python."""
        compiler = shutil.which("cc")
        if compiler is None or not ARTICLE_CLIENT.exists():
            tell("\nThe article's two clients, in Python because there is no C compiler here:")
            return [sys.executable, str(HERE / "article_client.py")]
        tell("\nThe article's two clients, in C:")
        program = str(self.directory / "article_client")
        await trio.run_process([compiler, "-o", program, str(ARTICLE_CLIENT)])
        return [program]

    # -- one client over TCP, one over the Unix socket

    async def tcp_client(self) -> None:
        tell("\nA client without any library, over TCP: its hello is U 0x80, and its frame is Z!")
        async with open_client(self.address, id="Z") as receiver:
            with socket.create_connection(("127.0.0.1", self.port)) as sender:
                sender.sendall(b"U\x80Z!")
                source, data = await receiver.receive()
            tell(f"  Z, on the Unix socket, gets {data.decode()!r} from {source}")

    # -- a dozen that chat

    async def talk(self) -> None:
        tell(f"\nA dozen clients connect, {TALKERS[::2]} over the Unix socket and {TALKERS[1::2]} over TCP, and chat:")
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    open_client(f"tcp:127.0.0.1:{self.port}" if number % 2 else self.address, id=talker)
                )
                for number, talker in enumerate(TALKERS)
            ]
            await clients[0].wait_for(TALKERS[-1])
            with trio.move_on_after(self.seconds):
                async with trio.open_nursery() as nursery:
                    for client in clients:
                        nursery.start_soon(self.listen, client)
                    await self.chat(clients)
            await self.flood(clients)
            await self.write_too_late(clients[0])

    async def chat(self, clients: list[Client]) -> None:
        while True:
            speaker = random.choice(clients)
            await speaker.send(random.choice(sorted(speaker.peers)), random.choice(WORDS).encode())
            await trio.sleep(self.pause)

    async def listen(self, client: Client) -> None:
        async for source, data in client:
            tell(f"  {source} to {client.id}: {data.decode()}")

    async def flood(self, clients: list[Client]) -> None:
        tell("\nFor one second each of them sends to the next one as fast as it can:")
        received = [0] * len(clients)

        async def send(client: Client, destination: str) -> None:
            while True:
                await client.send(destination, FLOOD_BLOCK)

        async def count(number: int, client: Client) -> None:
            async for _, data in client:
                received[number] += len(data)

        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients):
                    nursery.start_soon(count, number, client)
                    nursery.start_soon(send, client, clients[number - 1].id)
        tell(f"  {sum(received):,} frames arrived (all twelve clients are this one process)")
        await self.settle(clients)

    async def settle(self, clients: list[Client]) -> None:
        """Receive what is still on its way, so that all clients can leave without losses, and hear events at once."""

        async def take(client: Client) -> None:
            async for _ in client:
                pass

        async with trio.open_nursery() as takers:
            for client in clients:
                takers.start_soon(take, client)
            async with trio.open_nursery() as flushes:
                for client in clients:
                    flushes.start_soon(client.flush)
            # Now all of it is at its receivers, and the answer to a ping comes behind it.
            async with trio.open_nursery() as pings:
                for client in clients:
                    pings.start_soon(client.ping)
            takers.cancel_scope.cancel()

    async def write_too_late(self, client: Client) -> None:
        tell("\nOne more client connects and leaves, and another writes to it too late:")
        events = client.events()
        async with open_client(self.address, id="x"):
            await client.wait_for("x")
        await client.send("x", b"where are you?")
        async for event in events:
            if chr(event.argument) == "x":
                tell(f"  {client.id} gets the event {EventCode(event.code).name} {chr(event.argument)}")
            if event.code == EventCode.NO_ROUTE:
                return

    def check_the_ledger(self, line: str) -> None:
        entries = {key: int(count) for key, _, count in (pair.partition("=") for pair in line.split()[1:])}
        dropped = sum(count for key, count in entries.items() if key.startswith("dropped."))
        tell(f"  {line}")
        balanced = entries["accepted"] == entries["written"] + entries["queued"] + dropped
        tell(
            f"  {entries['accepted']:,} accepted = {entries['written']:,} written + {entries['queued']:,} queued "
            f"+ {dropped:,} dropped: {'it balances' if balanced else 'IT DOES NOT BALANCE'}"
        )
        if not balanced:
            raise RuntimeError("the ledger does not balance")


def main() -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="triorelay-demo-") as directory:
            trio.run(
                Demo(Path(directory), quick="--quick" in sys.argv[1:]).run,
                restrict_keyboard_interrupt_to_checkpoints=True,  # what is being started is then in a nursery already
            )
    except* KeyboardInterrupt:
        tell("\nInterrupted. The relay has ended, and its directory is gone.")
        sys.exit(130)


main()
