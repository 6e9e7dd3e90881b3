"""Containers, networks and volumes on the engine that the docker command talks to.

1. Whatever a test waits for, it reads from a stream: the log of a container, or the engine's own events. Nothing polls.
2. All that a `Site` makes carries its label, and goes when the test ends. Nothing else is touched.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from pathlib import Path

# A failing test says so after this many seconds. What these tests wait for takes a second or two, but for a lost cable.
PATIENCE = 60

# All that a relay may do in a container, and all that it needs.
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")

SOCKETS = "/run/triorelay"
SERVER_SOCKET = f"{SOCKETS}/server_socket"


def docker_now(*arguments: str, check: bool = True, stdin: bytes | None = None) -> str:
    """Run a docker command and return what it printed, where there is no event loop."""
    command = ["docker", *arguments]
    result = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0 or not check, f"{command} failed:\n{result.stdout.decode()}"
    return result.stdout.decode().strip()


async def docker(*arguments: str, check: bool = True, stdin: bytes = b"") -> str:
    """Run a docker command and return what it printed."""
    command = ["docker", *arguments]
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            command, stdin=stdin, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    assert result.returncode == 0 or not check, f"{command} failed:\n{result.stdout.decode()}"
    return result.stdout.decode().strip()


async def first_match(pattern: str, *command: str, patience: float = PATIENCE) -> re.Match[str]:
    """Follow what a docker command prints until a line matches."""
    seen: list[str] = []
    run = partial(trio.run_process, ["docker", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    with trio.move_on_after(patience):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            rest = b""
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    seen.append(line.decode())
                    if found := re.search(pattern, seen[-1]):
                        nursery.cancel_scope.cancel()
                        return found
    raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(seen[-30:]))


@dataclass(frozen=True, slots=True)
class Ledger:
    """The counters that a relay tells as its status, and leaves as its last line."""

    counts: dict[str, int]

    @classmethod
    def of_line(cls, line: str) -> Ledger:
        word, *counts = line.split()
        assert word == "ledger"
        return cls({name: int(count) for name, _, count in (one.partition("=") for one in counts)})

    @classmethod
    def of_status(cls, status: dict[str, Any]) -> Ledger:
        counts = dict(status["ledger"])
        dropped = {f"dropped.{reason}": count for reason, count in counts.pop("dropped").items()}
        return cls(counts | dropped)

    def __getitem__(self, name: str) -> int:
        return self.counts[name]

    @property
    def dropped(self) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith("dropped."))

    def balances(self) -> bool:
        return self["accepted"] + self["copied"] == self["written"] + self["queued"] + self.dropped


@dataclass(frozen=True, slots=True)
class Container:
    """One container, which may be running or not."""

    name: str

    async def line(self, pattern: str, *, since: str = "0", patience: float = PATIENCE) -> re.Match[str]:
        """Wait until the container has logged a line that matches, and return the match."""
        return await first_match(pattern, "logs", "--follow", "--since", since, self.name, patience=patience)

    async def healthy(self, *, since: str = "0") -> None:
        """Wait until the engine finds the container healthy."""
        filters = [f"container={self.name}", "event=health_status"]
        flags = itertools.chain.from_iterable(("--filter", one) for one in filters)
        await first_match(r"health_status: healthy", "events", "--since", since, *flags)

    async def ended(self) -> int:
        """Wait until the container has ended, and return its exit status."""
        return int(await docker("wait", self.name))

    async def execute(self, *command: str) -> str:
        """Run a command in the container, and return what it printed."""
        return await docker("exec", self.name, *command)

    async def followed(self, *command: str, pattern: str) -> re.Match[str]:
        """Run a command in the container until it prints a line that matches."""
        return await first_match(pattern, "exec", self.name, *command)

    async def logs(self, *, since: str = "0") -> list[str]:
        return (await docker("logs", "--since", since, self.name)).splitlines()

    async def ledger(self, *, since: str = "0") -> Ledger:
        """The ledger of a relay that has ended."""
        return Ledger.of_line((await self.logs(since=since))[-1])

    async def result(self) -> dict[str, Any]:
        """Wait until a peer has ended, and return what it counted."""
        await self.ended()
        counted: dict[str, Any] = json.loads((await self.logs())[-1])
        return counted

    async def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(await docker("inspect", self.name))
        assert isinstance(found, dict)
        return found

    async def address_on(self, network: str) -> str:
        address = (await self.inspect())["NetworkSettings"]["Networks"][network]["IPAddress"]
        assert isinstance(address, str)
        return address


async def exchange(*clients: Container) -> list[str]:
    """Let each C client send its frame, and return the frame that each has got."""
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(partial(docker, "attach", client.name, stdin=b"\n"))
    return [(await client.line("^[A-Z][0-9]$"))[0] for client in clients]


@dataclass(slots=True)
class Site:
    """What one test has on the engine: containers, networks and volumes, all named after the site.

    Args:
        label: Names this site, and is unique on the engine.
        image: The relay's image.
        c_image: An image of the C clients alone.
        peer: The path of peer.py.
    """

    label: str
    image: str
    c_image: str
    peer: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def _name(self, kind: str) -> str:
        return f"{self.label}-{kind}-{next(self._numbers)}"

    async def network(self) -> str:
        name = self._name("network")
        await docker("network", "create", "--label", self.label, name)
        return name

    async def volume(self) -> str:
        name = self._name("volume")
        await docker("volume", "create", "--label", self.label, name)
        return name

    async def run(self, image: str, *command: str, options: tuple[str, ...] = ()) -> Container:
        """Start a container, confined to what relays and clients need."""
        return await self._start(*CONFINED, *options, image, *command)

    async def systemd(self, image: str) -> Container:
        """Boot a host of the image of tests/docker/systemd, and wait until it listens for the relay."""
        # Confined by its network alone: systemd mounts, and sets filters and capabilities of its own.
        rights = ("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined")
        host = await self._start(*rights, "--network=none", "--tty", "--tmpfs=/run", "--tmpfs=/tmp", image)
        await host.line("Multi-User System")
        return host

    async def _start(self, *arguments: str) -> Container:
        container = Container(self._name("container"))
        await docker("run", "--detach", "--name", container.name, "--label", self.label, *arguments)
        return container

    async def relay(self, volume: str, *networks: str, options: tuple[str, ...] = ()) -> Container:
        """Start a relay by the image's own command, and wait until it is ready."""
        mount = ("--volume", f"{volume}:{SOCKETS}", "--health-interval=1s")
        relay = await self.run(self.image, options=(*mount, "--network", networks[0], *options))
        for network in networks[1:]:
            await docker("network", "connect", network, relay.name)
        await relay.line(" ready ")
        return relay

    async def near(self, volume: str, role: str, *arguments: str, uid: int = 1001) -> Container:
        """Start a peer with no network, only the volume; its uid is not the relay's, its group is."""
        options = ("--network=none", f"--user={uid}:9734", "--volume", f"{volume}:{SOCKETS}")
        return await self._peer(options, role, SERVER_SOCKET, *arguments)

    async def far(self, network: str, relay: Container, role: str, *arguments: str) -> Container:
        """Start a peer that has nothing but a network."""
        options = ("--network", network, "--user=1004:1004")
        return await self._peer(options, role, f"{relay.name}:9734", *arguments)

    async def article_client(self, volume: str, *arguments: str) -> Container:
        """Start the article's client beside the socket; see `exchange`."""
        options = ("--network=none", "--volume", f"{volume}:{SOCKETS}", "--workdir", SOCKETS)
        return await self._c_client("article_client", *arguments, options=options)

    async def tcp_client(self, relay: Container, network: str, *arguments: str) -> Container:
        """Start the article's client in its form for TCP; see `exchange`."""
        address = await relay.address_on(network)
        return await self._c_client("tcp_client", address, "9734", *arguments, options=("--network", network))

    async def _c_client(self, program: str, *arguments: str, options: tuple[str, ...]) -> Container:
        """Start a C client that connects, and waits for a line on standard input before it sends."""
        options = ("--interactive", "--user=1002:9734", "--entrypoint", f"/{program}", *options)
        return await self.run(self.c_image, *arguments, "-", options=options)

    async def echo(self, relay: Container, network: str, name: str) -> Container:
        """Start a client of the library that answers every client, and reconnects after a loss of the relay."""
        program = self.peer.parent.parent.parent / "docker" / "clients" / "echo.py"
        options = ("--entrypoint=python3", "--no-healthcheck", "--init", "--network", network)
        mount = ("--volume", f"{program}:/echo.py:ro", "--user=1004:1004")
        return await self.run(self.image, "/echo.py", f"tcp:{relay.name}:9734", name, options=(*options, *mount))

    async def _peer(self, options: tuple[str, ...], *arguments: str) -> Container:
        python = ("--entrypoint=python3", "--no-healthcheck", "--init", "--volume", f"{self.peer}:/peer.py:ro")
        return await self.run(self.image, "/peer.py", *arguments, options=(*python, *options))

    def remove(self) -> None:
        """Show the end of each log, for a test that has failed, and take everything away."""
        mine = f"label={self.label}"
        for name in docker_now("ps", "--all", "--filter", mine, "--format", "{{.Names}}").split():
            tail = docker_now("logs", "--tail", "20", name, check=False)
            sys.stdout.write(f"--- {name}\n{tail}\n")
            docker_now("rm", "--force", "--volumes", name)
        for kind in ("network", "volume"):
            for name in docker_now(kind, "ls", "--filter", mine, "--quiet").split():
                docker_now(kind, "rm", name)
