"""The code in the tables for users of MQTT, NATS, ZeroMQ and D-Bus: each command and each piece of Python runs."""

from __future__ import annotations

import ast
import json
import re
import select
import shlex
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import triorelay
from tests.cli import processes
from tests.cli.processes import PATIENCE, command, run
from tests.cli.terminal import in_terminal
from tests.examples.scene import next_line, running
from triorelay import blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "migrate.md"
ELSEWHERE = {"9734": "0", "nats.example:4222": "127.0.0.1:1"}
"""The page's ports and hosts, and those for a test: a port that is free, and a server that does not answer."""


def pieces() -> dict[str, None]:
    """Return the pieces of code in the third column of each table, each once."""
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    return dict.fromkeys(piece for row in rows for piece in re.findall(r"(?<!\})`([^`]+)`", row))


def commands(serve: bool) -> list[str]:
    found = [piece for piece in pieces() if piece.startswith("triorelay ")]
    return [line for line in found if line.startswith("triorelay serve ") == serve]


def python() -> list[str]:
    return [piece for piece in pieces() if not piece.startswith("triorelay ")]


def test_the_tables_are_found() -> None:
    assert len(commands(serve=True)) >= 7
    assert len(python()) >= 20


@pytest.mark.parametrize("line", commands(serve=True))
def test_a_relay_starts_as_the_table_says(tmp_path: Path, line: str) -> None:
    for here, there in ELSEWHERE.items():
        line = line.replace(here, there)
    with processes.relay(*shlex.split(line)[2:], "--admin", "none", cwd=tmp_path) as relay:
        relay.process.terminate()
        assert relay.end()[0] == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the directory of a relay that all pieces use, one after the other."""
    directory = tmp_path_factory.mktemp("place")
    with processes.relay("--unix", "server_socket", cwd=directory):
        yield directory


# -- commands of clients


def sends(place: Path, words: list[str]) -> None:
    with blocking.connect(f"unix:{place}/server_socket", id="B") as b:
        assert run(*words, cwd=place).returncode == 0
        data = b""
        while data != b"hello":
            source, more = b.receive(timeout=PATIENCE)
            data += more
        assert len(source) == 1


def receives(place: Path, words: list[str]) -> None:
    with running(command(*words), cwd=place) as process, blocking.connect(f"unix:{place}/server_socket", id="A") as a:
        a.wait_for("B", timeout=PATIENCE)
        a.send("B", b"1")
        assert next_line(process).split()[0] == "A"
        process.terminate()


def calls(place: Path, words: list[str]) -> None:
    with running(command("answer", "--id", "B", "--exec", "read n; echo $((2 * n))"), cwd=place):
        done = run(*words, "--wait", str(PATIENCE), cwd=place)
    assert (done.returncode, done.stdout) == (0, "42\n")


def answers(place: Path, words: list[str]) -> None:
    words = ["tr a-z A-Z" if word == "COMMAND" else word for word in words]
    with running(command(*words, "--id", "B"), cwd=place) as process:
        done = run("call", "B", "question", "--wait", str(PATIENCE), cwd=place)
        process.terminate()
    assert (done.returncode, done.stdout) == (0, "QUESTION\n")


def lists(place: Path, words: list[str]) -> None:
    with blocking.connect(f"unix:{place}/server_socket", id="B"):
        assert "B" in run(*words, cwd=place).stdout.splitlines()


def watches(place: Path, words: list[str]) -> None:
    with in_terminal(*words, cwd=place) as terminal:
        terminal.until("q quit")
        terminal.press("q")
        assert terminal.process.wait(PATIENCE) == 0


def monitors(place: Path, words: list[str]) -> None:
    with running(command(*words), cwd=place) as process, blocking.connect(f"unix:{place}/server_socket", id="A") as a:
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 0.1)[0]:  # nothing says when it looks
            a.send("A", b"1")
        assert "A to A" in next_line(process)
        process.terminate()


CLIENTS: dict[str, Callable[[Path, list[str]], None]] = {
    "triorelay send B hello": sends,
    "triorelay receive --id B": receives,
    "triorelay call B 21": calls,
    "triorelay answer --exec COMMAND": answers,
    "triorelay who": lists,
    "triorelay top": watches,
    "triorelay monitor": monitors,
}
"""What shows that a command of the tables works, by the command."""


@pytest.mark.parametrize("line", commands(serve=False))
def test_a_command_does_what_the_table_says(place: Path, line: str) -> None:
    CLIENTS[line](place, shlex.split(line)[1:])


# -- pieces of Python


class Scene:
    """Other clients around the piece, and what shows that it worked.

    Attributes:
        got: set once another client received what the piece sent, or its call.
        entered: how often the block that the piece begins was entered.
    """

    def __init__(self, address: str, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        self.got = trio.Event()
        self.entered = 0
        self._address = address
        self._stack = stack
        self._nursery = nursery

    async def client(self, id: str, **options: Any) -> triorelay.Client:
        return await self._stack.enter_async_context(triorelay.open_client(self._address, id=id, **options))

    def enter(self) -> None:
        self.entered += 1

    async def names(self, piece: str) -> dict[str, Any]:
        """Return the names that a piece of the page may use, for those that this one uses."""
        names: dict[str, Any] = {
            "triorelay": triorelay,
            "trio": trio,
            "json": json,
            "relay": self._address,
            "nursery": self._nursery,
            "payload": b"1",
            "header": b"h",
            "value": {"left": 30},
            "enter": self.enter,
            "handler": self.handler,
            "receive": self.receive,
        }
        loaded = (node for node in ast.walk(ast.parse(body(piece))) if isinstance(node, ast.Name))
        used = {node.id for node in loaded if isinstance(node.ctx, ast.Load)}
        if "open_client" in piece:
            return names
        client = names["client"] = await self.client("A")
        if "event" in used and "events" not in piece:
            names["event"] = await self.first_joined(client)
        b = await self.client("B")
        await client.wait_for("B")
        if "messages" in used:
            n = await self.client("N", shared=True)
            names["messages"] = await self._stack.enter_async_context(client.messages())
            for other in (b, n):
                self._nursery.start_soon(self.answer, await self._stack.enter_async_context(other.messages()))
        elif "calls" in used:
            names["calls"] = await self._stack.enter_async_context(client.calls())
            theirs = await self._stack.enter_async_context(b.calls())
            self._nursery.start_soon(theirs.serve, self.handler)
            if "serve" in piece:
                self._nursery.start_soon(theirs.call, "A", b"21")
        elif "stream" in piece:
            await self._stack.enter_async_context(b.stream("A"))
        else:
            for other in (b, await self.client("N", shared=True)):
                self._nursery.start_soon(self.take, other)
            await b.send("A", b"1")
            if "events" in piece:
                self._nursery.start_soon(self.come_and_go)
        return names

    async def come_and_go(self) -> None:
        while not self.entered:  # nothing says when the piece looks
            async with triorelay.open_client(self._address, id="J"):
                pass

    async def first_joined(self, client: triorelay.Client) -> triorelay.Event:
        events = client.events()
        async with triorelay.open_client(self._address, id="J"):
            return await anext(events)

    async def handler(self, caller: str, payload: bytes) -> bytes:
        self.got.set()
        return b"%d" % (2 * int(payload))

    async def receive(self) -> None:
        self.got.set()

    async def take(self, other: triorelay.Client) -> None:
        async for _ in other:
            self.got.set()

    async def answer(self, other: triorelay.MessageChannel) -> None:
        await other.send("A", b"1")
        async for _ in other:
            self.got.set()


def body(piece: str) -> str:
    """Return the piece as statements: a block that it begins is entered once."""
    if not piece.endswith(":"):
        return piece
    return f"{piece}\n    enter()" + ("\n    break" if piece.startswith("async for") else "")


@pytest.mark.parametrize("piece", python())
async def test_a_piece_of_python_works(place: Path, piece: str) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            scene = Scene(f"unix:{place}/server_socket", stack, nursery)
            names = await scene.names(piece)
            program = compile(f"async def run():\n{textwrap.indent(returned(piece), '    ')}", piece, "exec")
            exec(program, names)
            if re.search(r"send\(|call\(|serve\(|start_soon\(", piece):
                nursery.start_soon(names["run"])
                await scene.got.wait()
            else:
                result = await names["run"]()
                if hasattr(result, "__aenter__"):
                    await stack.enter_async_context(result)
                assert result is not False
            assert scene.entered == piece.endswith(":")
            nursery.cancel_scope.cancel()


def returned(piece: str) -> str:
    """Return the statements of a function that returns the value of a piece that is an expression."""
    tree = ast.parse(body(piece), mode="exec")
    return f"return {piece}" if isinstance(tree.body[0], ast.Expr) else body(piece)
