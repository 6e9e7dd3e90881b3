"""The unit files of the docs on a host that systemd runs: activation by socket, readiness, restart and watchdog."""

from __future__ import annotations

import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.docker.engine import PATIENCE, SERVER_SOCKET, docker_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.docker.engine import Container, Site

HERE = Path(__file__).parent
UNITS = HERE.parent.parent / "docs" / "how-to" / "systemd"

# A client that says nothing but hello and waits for its welcome. Python is what the host has.
CLIENT = """
import socket, sys
connection = socket.socket(socket.{})
connection.connect({!r})
connection.sendall(b"A\\x81")
sys.stdout.write(repr(connection.recv(2)))
"""
OVER_UNIX = CLIENT.format("AF_UNIX", SERVER_SOCKET)
OVER_TCP = CLIENT.format("AF_INET", ("127.0.0.1", 9734))
WELCOME = repr(b"A\0")

# A client that stays: each byte that it reads goes to the relay and back.
TALKER = f"""
import os, socket
connection = socket.socket(socket.AF_UNIX)
connection.connect({SERVER_SOCKET!r})
connection.sendall(b"T\\x81")
os.write(1, connection.recv(2, socket.MSG_WAITALL))
while byte := os.read(0, 1):
    connection.sendall(b"T" + byte)
    os.write(1, connection.recv(2, socket.MSG_WAITALL))
"""


@pytest.fixture(scope="session")
def systemd_image(base: str, image: str) -> str:
    name = "triorelay-systemd:under-test"
    arguments = ("--build-arg", f"BASE={base}", "--build-arg", f"IMAGE={image}")
    docker_now("build", "--tag", name, *arguments, "--file", str(HERE / "systemd" / "Dockerfile"), str(UNITS))
    return name


async def state(host: Container) -> set[str]:
    return set((await host.execute("systemctl", "show", "--property=ActiveState,Result", "triorelay.service")).split())


class Talker:
    """A client on the host that stays connected."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def expect(self, pair: bytes) -> None:
        """Read what the relay sent to the client."""
        assert self._process.stdout is not None
        got = b""
        with trio.fail_after(PATIENCE):
            while len(got) < len(pair) and (data := await self._process.stdout.receive_some()):
                got += data
        assert got == pair

    async def talk(self, byte: bytes) -> None:
        """Send a frame to the client itself, and read it."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(byte)
        await self.expect(b"T" + byte)


@asynccontextmanager
async def talker(host: Container) -> AsyncIterator[Talker]:
    command = ["docker", "exec", "--interactive", host.name, "python3", "-c", TALKER]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        client = Talker(process)
        await client.expect(b"T\0")
        yield client
    finally:
        process.kill()
        await process.wait()


async def main_pid(host: Container) -> str:
    return await host.execute("systemctl", "show", "--property=MainPID", "--value", "triorelay.service")


async def logged(host: Container, pattern: str) -> None:
    """Wait until the service's journal has a line that matches."""
    await host.followed("journalctl", "--follow", "--lines=all", "--unit=triorelay.service", pattern=pattern)


async def test_a_first_client_starts_the_relay_which_keeps_the_sockets_over_a_restart(
    site: Site, systemd_image: str
) -> None:
    host = await site.systemd(systemd_image)
    inode = await host.execute("stat", "--format=%i %U %G %a", SERVER_SOCKET)
    assert inode.endswith(" triorelay triorelay 660")
    # No relay runs yet, and clients of the group may bind their names.
    assert (
        await host.execute("stat", "--format=%U %G %a", str(Path(SERVER_SOCKET).parent)) == "triorelay triorelay 3770"
    )
    assert await host.execute("python3", "-c", OVER_UNIX) == WELCOME
    # A notify service is active once it has said that it is ready; starting it again waits for that.
    await host.execute("systemctl", "start", "triorelay.service")
    assert await state(host) == {"ActiveState=active", "Result=success"}
    assert await host.execute("python3", "-c", OVER_TCP) == WELCOME

    await host.execute("systemctl", "restart", "triorelay.service")
    assert await host.execute("python3", "-c", OVER_UNIX) == WELCOME
    await host.execute("systemctl", "stop", "triorelay.service")
    assert await state(host) == {"ActiveState=inactive", "Result=success"}
    assert await host.execute("stat", "--format=%i %U %G %a", SERVER_SOCKET) == inode
    journal = await host.execute("journalctl", "--unit=triorelay.service", "--output=cat")
    assert journal.count("\nledger ") == 2


async def test_a_relay_that_hangs_is_ended_by_the_watchdog_and_started_again(site: Site, systemd_image: str) -> None:
    host = await site.systemd(systemd_image)
    await host.execute("systemctl", "start", "triorelay.service")
    await host.execute("systemctl", "kill", "--signal=SIGSTOP", "triorelay.service")
    await host.followed("journalctl", "--follow", "--unit=triorelay.service", pattern="Failed with result 'watchdog'")
    assert await host.execute("python3", "-c", OVER_UNIX) == WELCOME


async def test_a_successor_that_a_signal_starts_is_the_service_from_then_on(site: Site, systemd_image: str) -> None:
    host = await site.systemd(systemd_image)
    inode = await host.execute("stat", "--format=%i", SERVER_SOCKET)
    async with talker(host) as client:
        await client.talk(b"0")
        pids = [await main_pid(host)]
        for byte in (b"1", b"2"):
            await host.execute("systemctl", "kill", "--kill-whom=main", "--signal=USR2", "triorelay.service")
            await logged(host, rf"\[{pids[-1]}\]: handed over sessions=1 frames=0\s*$")
            await client.talk(byte)
            pids.append(await main_pid(host))
        assert len({*pids, "0"}) == 4
        shown = await host.execute("systemctl", "show", "--property=ActiveState,Result,NRestarts", "triorelay.service")
        assert set(shown.split()) == {"ActiveState=active", "Result=success", "NRestarts=0"}
        assert await host.execute("python3", "-c", OVER_UNIX) == WELCOME
        assert await host.execute("python3", "-c", OVER_TCP) == WELCOME
        assert await host.execute("stat", "--format=%i", SERVER_SOCKET) == inode

        # From here on systemd logs every word that it gets: the successor continues giving signs of life.
        await host.execute("systemctl", "log-level", "debug")
        await logged(host, rf"notification message from PID {pids[-1]}\b.*WATCHDOG=1")
        await client.talk(b"3")

    # And it is watched: one that hangs is ended and started again, with the same sockets.
    await host.execute("systemctl", "kill", "--signal=SIGSTOP", "triorelay.service")
    await logged(host, "Failed with result 'watchdog'")
    assert await host.execute("python3", "-c", OVER_UNIX) == WELCOME


async def test_a_successor_is_reloaded_and_stopped_as_the_relay_before_it(site: Site, systemd_image: str) -> None:
    host = await site.systemd(systemd_image)
    async with talker(host) as client:
        first = await main_pid(host)
        await host.execute("systemctl", "kill", "--kill-whom=main", "--signal=USR2", "triorelay.service")
        await logged(host, rf"\[{first}\]: handed over sessions=1 frames=0\s*$")
        await client.talk(b"1")
        second = await main_pid(host)
        assert second not in ("0", first)

        await host.execute("systemctl", "reload", "triorelay.service")
        await logged(host, rf"\[{second}\]: .*reloaded ")
        await client.talk(b"2")
        assert await state(host) == {"ActiveState=active", "Result=success"}

    await host.execute("systemctl", "stop", "triorelay.service")
    assert await state(host) == {"ActiveState=inactive", "Result=success"}
    await logged(host, rf"\[{second}\]: ledger accepted=2 copied=0 written=2 ")
    # The sockets stay, and start the relay again.
    assert await host.execute("python3", "-c", OVER_UNIX) == WELCOME
