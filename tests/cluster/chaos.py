"""Real relays and a real NATS server among random clients, while everything fails that can; all from one seed.

Faults: a relay is killed, stopped, drained or handed over to another process; the server is killed or stopped; one
relay's way to it is cut. What holds throughout: a claim is answered or its connection ends; an observer sees an id join
and leave in turn; what a client gets of one session never goes back in time, and none of it is its own; no relay ends
by itself, or logs a traceback. Some ids are shared by clients of any relays, and one client may want such an id alone.
When the faults are over the relays agree on the holders of all ids, each pair of sessions exchanges bytes exactly, and
every ledger balances.
"""

from __future__ import annotations

import os
import random
import re
import signal
import ssl
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
import trustme

from tests.cluster.holders import ALONE, HOLDERS, IDS, SHARED, TAGS, Holder, exchange, receive_exactly
from tests.cluster.link import Link
from tests.cluster.nats_server import NEWEST, NatsServer
from tests.wire.client import ACK, EVENTS, JOINED, LEFT, LOSSY, SHARE
from tests.wire.relay_process import SOURCE_TREE

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LEASE = 5.0
TICK = 0.1
"""Seconds for which the data byte of a frame stays the same: it tells when the frame was sent."""
SHARED_TICK = 1.6
"""The same for a frame of a shared id, of which the upper bits say which session sent it."""
TAG_REST = 15.0
"""Seconds until the next session may have the tag of one that has ended: as long as its stamps have one meaning."""
OBSERVER = bytes((0, 0x80 | EVENTS))
HEALING = 90.0
"""Seconds until all is well again after the last fault, on a machine that is very busy."""


@dataclass(eq=False)
class Member:
    """One relay of the realm, which runs again and again."""

    directory: Path
    options: tuple[str, ...]
    link: Link
    runs: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> str:
        return str(self.directory / "socket")

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.directory.glob("log*")))

    async def start(self, *options: str) -> None:
        """Run it, and wait until it is ready."""
        self.runs += 1
        log = self.directory / f"log{self.runs:03}"
        command = [sys.executable, "-m", "triorelay", "serve", "--unix", self.path, "--admin", "none", *self.options]
        command += options
        with log.open("wb") as file:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it outlives this function
                command,
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": str(SOURCE_TREE)},
                stdin=subprocess.DEVNULL,
                stderr=file,
            )
        with trio.move_on_after(HEALING):
            while " ready " not in log.read_text():
                assert self.process.poll() is None, log.read_text()
                await trio.sleep(0.02)
        assert " ready " in log.read_text(), f"not ready within {HEALING:g} s:\n{self.log()}"

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended by itself:\n{self.log()}"
        self.process.send_signal(number)

    async def hand_over(self) -> str:
        """Have another process take over; return the last line of the one before."""
        old, log = self.process, self.directory / f"log{self.runs:03}"
        assert old is not None
        await self.start("--take-over")
        with trio.fail_after(HEALING):
            assert await trio.to_thread.run_sync(old.wait, abandon_on_cancel=True) == 0, self.log()
        return log.read_text().splitlines()[-1]

    async def wait(self) -> int:
        """Wait for its end; return its exit code."""
        process = self.process
        assert process is not None
        with trio.fail_after(HEALING):
            return await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


class World:
    """The realm, its clients and what befalls them."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.chance = random.Random(seed)
        self.directory = directory
        self.members: list[Member] = []
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.tags = {id: dict.fromkeys(range(TAGS), 0.0) for id in SHARED}
        """When each tag may be given to a session."""

    async def run(self, seconds: float) -> None:
        """Start it, let things fail for so long, and see that all is well afterwards."""
        chance = self.chance
        self.directory.mkdir()
        with ExitStack() as running:
            server = running.enter_context(self._server(tls=chance.random() < 0.25))
            options = ["--cluster-fallback", chance.choice(["local", "refuse"]), "--drain-timeout", "3"]
            options += ["--duplicate", chance.choice(["reject", "replace"])]
            for number in range(3):
                link = running.enter_context(Link(server.port))
                url = link.url.replace("nats:", "tls:") if self._tls else link.url
                place = self.directory / f"r{number}"
                place.mkdir()
                self.members.append(Member(place, ("--cluster", url, *options), link))
            running.callback(self._end)
            for member in self.members:
                await member.start()
            async with trio.open_nursery() as nursery:
                for member in self.members:
                    nursery.start_soon(self._observe, member)
                for id in ALONE + chance.choice([b"", b"AB", b"N"]):  # some ids are wanted by others, too
                    nursery.start_soon(self._come_and_go, id, 0)
                for id in HOLDERS * SHARED:
                    nursery.start_soon(self._come_and_go, id, SHARE)
                with trio.move_on_after(seconds):
                    while True:
                        await trio.sleep(chance.uniform(0, 1))
                        with trio.CancelScope(shield=True):
                            await self._fail(server)
                nursery.cancel_scope.cancel()
            await self._heal()
            for member in self.members:
                member.send(signal.SIGTERM)
            for member in self.members:
                code = await member.wait()
                self._check_end(member, code)

    def _server(self, *, tls: bool) -> NatsServer:
        (self.directory / "nats").mkdir()
        self._tls = tls
        options: tuple[str, ...] = ()
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.directory / "ca.pem")
            pem = self.directory / "server.pem"
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
            options = ("--tls", "--tlscert", str(pem), "--tlskey", str(pem))
            os.environ[ssl.get_default_verify_paths().openssl_cafile_env] = str(self.directory / "ca.pem")
        program = self.chance.choice(["", str(NEWEST)])
        return NatsServer(self.directory / "nats", *options, program=program)

    def _end(self) -> None:
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.process.kill()
                member.process.wait()

    # -- faults

    async def _fail(self, server: NatsServer) -> None:
        """Break something, and repair it."""
        chance, member = self.chance, self.chance.choice(self.members)
        fault = chance.choice(["kill", "stop", "drain", "handover", "server killed", "server stopped", "cut"])
        long = chance.choice([0.2, 1, 3, 1.3 * LEASE])
        self.counts[fault] += 1
        match fault:
            case "kill":
                member.send(signal.SIGKILL)
                await member.wait()
                await trio.sleep(chance.choice([0, long]))
                await member.start()
            case "stop":
                member.send(signal.SIGSTOP)
                await trio.sleep(long)
                member.send(signal.SIGCONT)
            case "drain":
                member.send(signal.SIGTERM)
                self._check_end(member, await member.wait())
                await member.start()
            case "handover":
                assert "handed over" in await member.hand_over(), member.log()
            case "server killed":
                server.kill()
                await trio.sleep(long)
                await trio.to_thread.run_sync(server.start)
            case "server stopped":
                server.signal(signal.SIGSTOP)
                await trio.sleep(long)
                server.signal(signal.SIGCONT)
            case _:
                member.link.cut()
                await trio.sleep(long)
                member.link.mend()

    def _check_end(self, member: Member, code: int) -> None:
        log = member.log()
        assert code == 0, log
        assert "Traceback" not in log, log
        assert "bug in" not in log, log
        ledger = {key: int(value) for key, value in re.findall(r"(\S+)=(\d+)", log.splitlines()[-1])}
        dropped = sum(count for key, count in ledger.items() if key.startswith("dropped."))
        assert ledger["accepted"] + ledger["copied"] == ledger["written"] + ledger["queued"] + dropped, log

    # -- clients

    async def _connect(self, member: Member, hello: bytes) -> trio.SocketStream | None:
        with suppress(OSError, trio.BrokenResourceError):
            stream = await trio.open_unix_socket(member.path)
            try:
                await stream.send_all(hello)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream
        return None

    async def _observe(self, member: Member) -> None:
        """See, again and again, that ids join and leave in turn."""
        while True:
            stream = await self._connect(member, OBSERVER)
            if stream is None:
                await trio.sleep(0.05)
                continue
            present: set[int] = set()
            async with stream:
                with suppress(trio.BrokenResourceError):
                    await receive_exactly(stream, 2)
                    while len(event := await receive_exactly(stream, 4)) == 4:
                        code, id = event[1], event[3]
                        if code == JOINED:
                            assert id not in present, f"{chr(id)} joined twice:\n{member.log()}"
                            present.add(id)
                        elif code == LEFT:
                            assert id in present, f"{chr(id)} left twice:\n{member.log()}"
                            present.discard(id)

    async def _come_and_go(self, me: int, share: int) -> None:
        chance = self.chance
        while True:
            await trio.sleep(chance.uniform(0, 1))
            options = ACK | share | chance.choice([0, 0, LOSSY])
            stream = await self._connect(chance.choice(self.members), bytes((me, 0x80 | options)))
            if stream is None:
                continue
            async with stream:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    with trio.fail_after(HEALING):  # an answer, or an end
                        answer = await receive_exactly(stream, 2)
                    if len(answer) == 2 and answer[1] == 0:
                        self.counts["sessions"] += 1
                        await self._live(stream, me, share)

    def _take_tag(self, me: int) -> int | None:
        """Return a number for a session of a shared id, None if there is none: the session sends nothing then."""
        now = trio.current_time()
        tag = next((tag for tag, free_at in self.tags[me].items() if free_at <= now), None)
        if tag is not None:
            self.tags[me][tag] = float("inf")
        return tag

    async def _live(self, stream: trio.SocketStream, me: int, share: int) -> None:
        """Send for a while, and see that what comes of one session never goes back in time, and none of its own."""
        tag = self._take_tag(me) if me in SHARED else 0
        try:
            await self._send_and_receive(stream, me, share, tag)
        finally:
            if me in SHARED and tag is not None:
                self.tags[me][tag] = trio.current_time() + TAG_REST

    async def _send_and_receive(self, stream: trio.SocketStream, me: int, share: int, tag: int | None) -> None:
        chance, newest = self.chance, dict[tuple[int, int], int]()
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with suppress(trio.BrokenResourceError):
                    while len(frame := await receive_exactly(stream, 2)) == 2:
                        source, byte = frame
                        sender, stamp, period = (
                            (byte // TAGS, byte % TAGS, TAGS) if source in SHARED else (0, byte, 256)
                        )
                        before = newest.setdefault((source, sender), stamp)
                        assert 2 * ((stamp - before) % period) < period, (
                            f"a frame of {chr(source)} is older than before"
                        )
                        assert not share or (source, sender) != (me, tag), f"{chr(me)} hears itself"
                        newest[source, sender] = stamp
                        self.counts["frames"] += 1
                nursery.cancel_scope.cancel()

            async def send() -> None:
                with suppress(trio.BrokenResourceError):
                    for _ in range(chance.randrange(1, 40)):
                        if tag is not None:
                            to, now = chance.choice(IDS), trio.current_time()
                            stamp = (
                                tag * TAGS + int(now / SHARED_TICK) % TAGS if me in SHARED else int(now / TICK) % 256
                            )
                            await stream.send_all(bytes((to, stamp)) * chance.choice([1, 2, 50, 2000]))
                        await trio.sleep(chance.choice([0, 0.01, 0.3]))

            nursery.start_soon(receive)
            with trio.move_on_after(10):  # so that stamps have one meaning
                await send()
            nursery.cancel_scope.cancel()

    # -- the end

    async def _heal(self) -> None:
        """See that every id can be held, is seen by all, and is reached by all, exactly."""
        clients: list[Holder] = []
        doing = ""
        try:
            with trio.move_on_after(HEALING) as healing:
                doing = "join the realm"
                await trio.sleep(LEASE)  # until then a relay may find out that the server was away
                for member in self.members:
                    while "cluster away" in member.log().rpartition("cluster joined")[2]:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                for at, id in enumerate(ALONE):
                    doing = f"claim {chr(id)}"
                    clients.append((id, 0, await self._claim(self.members[at % 3], id, ACK)))
                for id in SHARED:
                    doing = f"share {chr(id)}"
                    for number in range(2 * HOLDERS):
                        member = self.chance.choice(self.members)
                        clients.append((id, number, await self._claim(member, id, ACK | SHARE)))
                for member in self.members:
                    doing = f"see all ids at {member.directory.name}"
                    await self._sees(member, set(IDS))
                doing = "exchange bytes"
                await exchange(clients, len(self.members))
            logs = "\n".join(member.directory.name + "\n" + member.log() for member in self.members)
            assert not healing.cancelled_caught, f"it cannot {doing}:\n{logs}"
        finally:
            for _, _, stream in clients:
                await stream.aclose()

    async def _claim(self, member: Member, id: int, options: int) -> trio.SocketStream:
        while True:
            stream = await self._connect(member, bytes((id, 0x80 | options)))
            if stream is not None:
                with suppress(trio.BrokenResourceError):
                    if await receive_exactly(stream, 2) == bytes((id, 0)):
                        return stream
                await stream.aclose()
            await trio.sleep(0.1)

    async def _sees(self, member: Member, ids: set[int]) -> None:
        stream = await self._connect(member, OBSERVER)
        assert stream is not None
        async with stream:
            await receive_exactly(stream, 2)
            present: set[int] = set()
            while present != ids:
                event = await receive_exactly(stream, 4)
                if event[1] == JOINED:
                    present.add(event[3])
                elif event[1] == LEFT:
                    present.discard(event[3])


async def run_world(seed: int, directory: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one seed for so long; relays have to get over everything that fails."""
    monkeypatch.setenv("SSL_CERT_FILE", "")  # a world with TLS sets it
    monkeypatch.delenv("SSL_CERT_FILE")
    world = World(seed, directory / "world")
    await world.run(seconds)
    assert world.counts["sessions"]
    assert world.counts["frames"]
