"""The unit files of the docs on a host that systemd runs: activation by socket, readiness, restart and watchdog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docker.engine import SERVER_SOCKET, docker_now

if TYPE_CHECKING:
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


@pytest.fixture(scope="session")
def systemd_image(base: str, image: str) -> str:
    name = "triorelay-systemd:under-test"
    arguments = ("--build-arg", f"BASE={base}", "--build-arg", f"IMAGE={image}")
    docker_now("build", "--tag", name, *arguments, "--file", str(HERE / "systemd" / "Dockerfile"), str(UNITS))
    return name


async def state(host: Container) -> set[str]:
    return set((await host.execute("systemctl", "show", "--property=ActiveState,Result", "triorelay.service")).split())


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
